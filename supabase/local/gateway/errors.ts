/** An answer in PostgREST's form. */
export function restError(
  status: number,
  code: string,
  message: string,
  details: string | null = null,
  hint: string | null = null,
  headers: Record<string, string> = {},
): Response {
  return new Response(JSON.stringify({ code, details, hint, message }), {
    status,
    headers: { 'content-type': 'application/json; charset=utf-8', ...headers },
  })
}

/** An answer in the form of the API gateway that stands before all services. */
export function gatewayError(status: number, message: string, hint?: string): Response {
  return Response.json(hint ? { message, hint } : { message }, { status })
}

export interface DatabaseError {
  code: string
  message: string
  detail?: string
  hint?: string
}

const SQLSTATE = /^[0-9A-Z]{5}$/

/** Whether an error was raised by Postgres; `CONNECTION_CLOSED` and the like come from the driver. */
export function isDatabaseError(error: unknown): error is DatabaseError {
  return error instanceof Error && 'severity' in error && 'code' in error && SQLSTATE.test(String(error.code))
}

/** Whether an error says that the database could not be reached, or ended the connection. */
export function isConnectionError(error: unknown): boolean {
  if (!(error instanceof Error) || !('code' in error)) return false
  if ('severity' in error) return error.severity === 'FATAL'
  return /^(CONNECTION_|CONNECT_TIMEOUT|ECONN|EPIPE)/.test(String(error.code))
}

/** Statuses by SQLSTATE, or by its class, as in PostgREST's `pgErrorStatus`; anything else is 400. */
const STATUS: Record<string, number> = {
  '08': 503,
  '09': 500,
  '0L': 403,
  '0P': 403,
  '21': 500,
  '23503': 409,
  '23505': 409,
  '25': 500,
  '25006': 405,
  '28': 403,
  '2D': 500,
  '38': 500,
  '39': 500,
  '3B': 500,
  '40': 500,
  '42883': 404,
  '42P01': 404,
  '42P17': 500,
  '53': 503,
  '53400': 500,
  '54': 500,
  '55': 500,
  '57': 500,
  '57P01': 503,
  '58': 500,
  F0: 500,
  HV: 500,
  P0: 500,
  P0001: 400,
  XX: 500,
}

export function databaseErrorResponse(error: DatabaseError, role: string, relation?: string): Response {
  const status = databaseErrorStatus(error, role)
  // lite's statements name columns without their table, PostgREST's with it.
  const message =
    error.code === '42703' && relation
      ? error.message.replace(/^column "([^"]+)" does not exist$/, `column ${relation}.$1 does not exist`)
      : error.message
  const headers: Record<string, string> = status === 401 ? { 'www-authenticate': 'Bearer' } : {}
  return restError(status, error.code, message, error.detail ?? null, error.hint ?? null, headers)
}

function databaseErrorStatus({ code, message }: DatabaseError, role: string): number {
  if (code === '42501') return role === 'anon' ? 401 : 403
  if (code === '22023' && /^role .* does not exist$/.test(message)) return 401
  if (code === '21000' && message.endsWith('requires a WHERE clause')) return 400
  if (code.startsWith('PT')) {
    const status = Number(code.slice(2))
    return status >= 200 && status <= 599 ? status : 500
  }
  return STATUS[code] ?? STATUS[code.slice(0, 2)] ?? 400
}

export const databaseUnavailable = () =>
  restError(503, 'PGRST001', 'Database connection error. Retrying the connection.', null, null, { 'retry-after': '1' })
