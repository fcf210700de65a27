/**
 * Faults are asked for by model name, `sandbox/<fault>[+<fault>…]`, because a test reaches the model only through the
 * product, which passes the name on. Any other name is a model that works.
 */
export interface Faults {
  delayMs: number
  tokenMs: number
  /** Seconds in Retry-After. */
  rateLimit: number | null
  status: number | null
  contextTokens: number | null
  has(name: string): boolean
}

const named = new Set([
  'error-html-500',
  'insufficient-quota',
  'cut',
  'cut-socket',
  'stall',
  'stall-before',
  'error-in-200',
  'error-in-stream',
  'no-usage',
  'hostile',
  'not-streaming',
  'empty-choices',
  'unstructured-once',
  'echo',
])

/** The pace of a model that works: fast, and still visibly word by word. */
const tokenMs = 8

/** Throws a string that says which fault is unknown: a misspelt fault must not pass as a working model. */
export function faultsOf(model: string): Faults {
  const faults = { delayMs: 0, tokenMs, rateLimit: null, status: null, contextTokens: null } as Omit<Faults, 'has'>
  const set = new Set<string>()
  if (model.startsWith('sandbox/')) {
    for (const word of model.slice('sandbox/'.length).split('+')) {
      const [, name, number] = /^(delay|slow|rate-limit|error|context)-(\d{1,7})$/.exec(word) ?? []
      if (name === 'delay') faults.delayMs = Number(number)
      else if (name === 'slow') faults.tokenMs = Number(number)
      else if (name === 'rate-limit') faults.rateLimit = Number(number)
      else if (name === 'context') faults.contextTokens = Number(number)
      else if (name === 'error' && Number(number) >= 400 && Number(number) <= 599) faults.status = Number(number)
      else if (named.has(word)) set.add(word)
      else throw `The model \`${model}\` does not exist: the sandbox knows no fault \`${word}\`.`
    }
  }
  return { ...faults, has: (name) => set.has(name) }
}

/** The models that `GET /models` lists: two that work, and every fault with a sample number. */
export const modelNames = [
  'sandbox-small',
  'sandbox-large',
  ...['delay-500', 'slow-200', 'rate-limit-2', 'error-500', 'context-100', ...named].map((fault) => `sandbox/${fault}`),
]

const types: Record<number, [type: string, code: string | null]> = {
  400: ['invalid_request_error', null],
  401: ['invalid_request_error', 'invalid_api_key'],
  402: ['insufficient_funds', 'payment_required'],
  403: ['permission_error', 'content_policy_violation'],
  404: ['invalid_request_error', 'model_not_found'],
  429: ['requests', 'rate_limit_exceeded'],
}

export function problem(
  status: number,
  message: string,
  code?: string,
  headers: HeadersInit = {},
  param: string | null = null,
): Response {
  const [type, usual] = types[status] ?? ['server_error', null]
  return Response.json(
    { error: { message, type: code === 'insufficient_quota' ? code : type, param, code: code ?? usual } },
    { status, headers },
  )
}
