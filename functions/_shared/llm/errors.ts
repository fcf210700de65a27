import { APIConnectionError, APIError, APIUserAbortError } from 'openai'
import { DeadlineError } from '../deadline.ts'

export type ModelErrorCode =
  | 'provider_not_configured'
  | 'provider_refused_key'
  | 'provider_quota_exhausted'
  | 'provider_rate_limited'
  | 'provider_refused_request'
  | 'context_too_long'
  | 'content_refused'
  | 'provider_unavailable'
  | 'provider_timeout'
  | 'answer_interrupted'
  | 'answer_empty'
  | 'cost_ceiling_reached'
  | 'tokens_per_month_exceeded'
  | 'budget_per_month_exceeded'
  | 'budget_unavailable'
  | 'moderation_unavailable'

/** Why a model gave no (whole) answer, in words of ours: what providers say may quote prompts, or be a page of HTML. */
export class ModelError extends Error {
  constructor(
    readonly code: ModelErrorCode,
    /** Whether the same route may do better later. Another route may always be tried. */
    readonly retryable: boolean,
    { retryAfterSeconds, requestId, cause }: { retryAfterSeconds?: number; requestId?: string; cause?: unknown } = {},
  ) {
    super(code, { cause })
    this.name = 'ModelError'
    this.retryAfterSeconds = retryAfterSeconds
    this.requestId = requestId
  }
  readonly retryAfterSeconds?: number
  /** What the provider calls the request. */
  readonly requestId?: string
}

/** Sorts what the SDK, the network or our deadlines threw. */
export function toModelError(error: unknown): ModelError {
  if (error instanceof ModelError) return error
  if (error instanceof DeadlineError) return new ModelError('provider_timeout', true, { cause: error })
  if (error instanceof APIUserAbortError) return new ModelError('answer_interrupted', true, { cause: error })
  if (error instanceof APIConnectionError) return new ModelError('provider_unavailable', true, { cause: error })
  if (error instanceof APIError) return fromStatus(error)
  // A broken socket is a bare TypeError, a broken event a SyntaxError.
  return new ModelError('answer_interrupted', true, { cause: error })
}

function fromStatus(error: APIError): ModelError {
  const { status } = error
  const code = String(error.code ?? error.type ?? '')
  const options = {
    retryAfterSeconds: retryAfter(error.headers ?? undefined),
    requestId: error.requestID?.slice(0, 200),
    cause: error,
  }
  if (/context_length|context_window|too_long/.test(code)) return new ModelError('context_too_long', false, options)
  if (/content_(filter|policy)|moderation/.test(code)) return new ModelError('content_refused', false, options)
  if (status === 402 || code === 'insufficient_quota') return new ModelError('provider_quota_exhausted', false, options)
  if (status === 429) return new ModelError('provider_rate_limited', true, options)
  if (status === 401 || status === 403) return new ModelError('provider_refused_key', false, options)
  if (status === 408 || status === 409 || (status ?? 500) >= 500)
    return new ModelError('provider_unavailable', true, options)
  return new ModelError('provider_refused_request', false, options)
}

/** Seconds of a Retry-After header, given as seconds or as a date; at most an hour is believed. */
function retryAfter(headers?: Headers): number | undefined {
  const value = headers?.get('retry-after')
  if (!value) return undefined
  const seconds = /^\d+(\.\d+)?$/.test(value) ? Number(value) : (Date.parse(value) - Date.now()) / 1000
  return Number.isFinite(seconds) ? Math.min(3600, Math.max(0, Math.ceil(seconds))) : undefined
}
