import type { Problem as ProblemBody, ProblemError } from '../../types/problem.ts'

const titles: Record<number, string> = {
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  405: 'Method Not Allowed',
  409: 'Conflict',
  413: 'Content Too Large',
  415: 'Unsupported Media Type',
  422: 'Unprocessable Content',
  429: 'Too Many Requests',
  500: 'Internal Server Error',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
}

export interface ProblemOptions {
  errors?: ProblemError[]
  headers?: Record<string, string>
  cause?: unknown
}

/** An answer that is not the one asked for (RFC 9457). Handlers throw it; `http.ts` renders it. */
export class Problem extends Error {
  readonly errors?: ProblemError[]
  readonly headers: Record<string, string>

  constructor(
    readonly status: number,
    readonly code: string,
    readonly detail: string,
    { errors, headers = {}, cause }: ProblemOptions = {},
  ) {
    super(code, { cause })
    this.name = 'Problem'
    this.errors = errors
    this.headers = headers
  }

  body(): ProblemBody {
    return {
      type: 'about:blank',
      title: titles[this.status] ?? 'Error',
      status: this.status,
      detail: this.detail,
      code: this.code,
      ...(this.errors && { errors: this.errors }),
    }
  }

  toResponse(): Response {
    return new Response(JSON.stringify(this.body()), {
      status: this.status,
      headers: { 'content-type': 'application/problem+json', ...this.headers },
    })
  }

  /** 422: the request can be read, and says something that is not allowed. */
  static invalid(errors: ProblemError[]): Problem {
    return new Problem(422, 'request_invalid', 'The request does not have the expected form; see `errors`.', { errors })
  }
}

/** What PostgREST, supabase-js and postgres.js have in common when the database refuses. */
interface DatabaseError {
  code?: string
  message?: string
  details?: string | null
  detail?: string | null
  hint?: string | null
  constraint_name?: string
}

/** SQLSTATE (or its first two characters) → answer, for what our own functions did not refuse by name. */
const states: Record<string, [status: number, code: string, detail: string]> = {
  '23505': [409, 'already_exists', 'Such a thing exists already.'],
  '23503': [409, 'reference_missing', 'Something this refers to does not exist.'],
  '23': [422, 'value_not_allowed', 'A value breaks a rule of the database.'],
  '22': [422, 'value_invalid', 'A value cannot be stored.'],
  '42501': [403, 'forbidden', 'The caller may not do this.'],
  '57014': [503, 'took_too_long', 'The database took too long to answer.'],
  '55P03': [503, 'busy', 'Somebody else is changing this; try again.'],
  '40': [503, 'busy', 'Somebody else is changing this; try again.'],
  '08': [503, 'database_unavailable', 'The database cannot be reached.'],
  '53': [503, 'database_unavailable', 'The database cannot take more work.'],
  '57': [503, 'database_unavailable', 'The database is restarting.'],
  PGRST301: [401, 'token_invalid', 'The token was refused.'],
  PGRST303: [401, 'token_invalid', 'The token was refused.'],
  PGRST000: [503, 'database_unavailable', 'The database cannot be reached.'],
  PGRST003: [503, 'database_unavailable', 'The database cannot take more work.'],
}

/** Seconds until the moment that a hint names (`Try again after 2026-12-01T00:00:00.000Z.`), 1 where it names none. */
function secondsUntil(hint: string | null | undefined): number {
  const moment = Date.parse(hint?.match(/\d{4}-\d\d-\d\dT[\d:.]+Z/)?.[0] ?? '')
  return Number.isNaN(moment) ? 1 : Math.max(1, Math.ceil((moment - Date.now()) / 1000))
}

/** postgres.js names failures of the connection itself in words. */
const connectionErrors = /^(CONNECT|CONNECTION_|ECONN|EPIPE|ETIMEDOUT|NOT_TAGGED_CALL$)/

/**
 * Turns a refusal of the database into a problem: `PTxyz` is raised by our own functions with a stable code as its
 * message; constraints and privileges keep their SQLSTATE's meaning. Anything else is ours to explain: a bare 500.
 */
export function fromDatabase(error: DatabaseError): Problem {
  const code = error.code ?? ''
  if (/^PT[1-5]\d\d$/.test(code)) {
    const status = Number(code.slice(2))
    return new Problem(
      status,
      error.message ?? 'refused',
      error.detail ?? error.details ?? 'The request was refused.',
      {
        headers: status === 429 ? { 'retry-after': String(secondsUntil(error.hint)) } : {},
        cause: error,
      },
    )
  }
  const known = states[code] ?? states[code.slice(0, 2)]
  if (known) return new Problem(...known, { cause: error, headers: known[0] === 503 ? { 'retry-after': '1' } : {} })
  if (connectionErrors.test(code))
    return new Problem(...states['08']!, { cause: error, headers: { 'retry-after': '1' } })
  return new Problem(500, 'internal_error', 'Something went wrong on our side.', { cause: error })
}
