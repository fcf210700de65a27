import type { Problem } from '../_shared/problem.ts'

/** Our code → OpenAI's, for those that its clients know. */
const codes: Record<string, string> = {
  sign_in_required: 'invalid_api_key',
  token_invalid: 'invalid_api_key',
  token_expired: 'invalid_api_key',
  api_key_unknown: 'invalid_api_key',
  api_key_revoked: 'invalid_api_key',
  api_key_expired: 'invalid_api_key',
  character_not_found: 'model_not_found',
  context_too_long: 'context_length_exceeded',
  content_refused: 'content_filter',
  tokens_per_month_exceeded: 'insufficient_quota',
  budget_per_month_exceeded: 'insufficient_quota',
}

/** Fields that are to blame for a refusal of the database. */
const params: Record<string, string> = {
  model_not_found: 'model',
  model_not_in_plan: 'model',
  character_not_found: 'model',
  mature_confirmation_required: 'model',
  conversation_of_another_character: 'model',
  message_empty: 'messages',
  message_too_long: 'messages',
  message_invalid: 'messages',
  dimensions_too_many: 'dimensions',
}

/** Statuses that OpenAI has for what is a failure of the model to us. */
const statuses: Record<string, number> = { context_too_long: 400, content_refused: 400, provider_rate_limited: 503 }

/** Failures that asking again does not mend: the SDK tries again whatever is 409, 429 or 500 and above, unless told. */
const lasting =
  /^(provider_not_configured|provider_refused_\w+|provider_quota_exhausted|cost_ceiling_reached|idempotency_key_reused|character_unavailable)$/

/** The SDK waits as long as Retry-After says up to this; longer, and it asks again at once. */
const longestWaitSeconds = 60

/** The problem as OpenAI's clients read errors. */
export function toOpenAiError(problem: Problem): Response {
  // OpenAI knows no 422: what is read and wrong is 400 as well.
  const status = statuses[problem.code] ?? (problem.status === 422 ? 400 : problem.status)
  const wait = Number(problem.headers['retry-after'] ?? 0)
  const headers: Record<string, string> = { ...problem.headers, 'content-type': 'application/json' }
  if (lasting.test(problem.code) || wait > longestWaitSeconds) headers['x-should-retry'] = 'false'
  return new Response(JSON.stringify({ error: describe(problem, status) }), { status, headers })
}

/** What stands under `error`, in an answer or in a stream that has begun. */
export function describe(problem: Problem, status = problem.status) {
  const [mistake] = problem.errors ?? []
  return {
    message: mistake?.detail ?? problem.detail,
    type: typeOf(status),
    param: mistake ? paramOf(mistake.pointer) : (params[problem.code] ?? null),
    code: codes[problem.code] ?? (status === 429 ? 'rate_limit_exceeded' : (mistake?.code ?? problem.code)),
    reason: problem.code,
  }
}

function typeOf(status: number): string {
  if (status === 429) return 'rate_limit_error'
  if (status === 403) return 'permission_error'
  return status >= 500 ? 'server_error' : 'invalid_request_error'
}

/** `#/messages/0/role` as OpenAI writes it: `messages[0].role`. */
function paramOf(pointer: string): string | null {
  const [, ...parts] = pointer.split('/')
  const names = parts.map((part) => decodeURIComponent(part).replaceAll('~1', '/').replaceAll('~0', '~'))
  return names.map((name, index) => (/^\d+$/.test(name) ? `[${name}]` : index ? `.${name}` : name)).join('') || null
}
