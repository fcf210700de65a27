/**
 * A refusal in Auth's own vocabulary. Status, code and wording are those of supabase/auth, because clients branch on
 * the code and show the message.
 */
export class AuthError extends Error {
  override name = 'AuthError'

  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    /** Members beside code and message, for example the reasons of a weak password. */
    readonly details: Record<string, unknown> = {},
  ) {
    super(message)
  }
}

export const invalid = (message: string) => new AuthError(400, 'validation_failed', message)

const unexpected = () =>
  new AuthError(500, 'unexpected_failure', 'Unexpected failure, please check server logs for more information')

/** Turns whatever a handler threw into the error a client may see; what it may not see goes to the log. */
export function toAuthError(error: unknown): AuthError {
  if (error instanceof AuthError) return error
  console.error('auth:', error)
  return unexpected()
}

/** supabase-js asks for the newer of two shapes by a header, and reads the code from where that version puts it. */
const VERSION_HEADER = 'x-supabase-api-version'
const VERSION = '2024-01-01'

export function errorResponse(error: unknown, request: Request): Response {
  const { status, code, message, details } = toAuthError(error)
  const headers = new Headers({ 'x-sb-error-code': code })
  const newer = (request.headers.get(VERSION_HEADER) ?? '') >= VERSION
  if (newer) headers.set(VERSION_HEADER, VERSION)
  const body = newer ? { code, message, ...details } : { code: status, error_code: code, msg: message, ...details }
  return Response.json(body, { status, headers })
}

/** The word OAuth has for a status, as redirects carry it in `error`. */
export function oauthError({ status, code }: AuthError): string {
  if (['signup_disabled', 'user_banned', 'provider_email_needs_verification'].includes(code)) return 'access_denied'
  const words: Record<number, string> = {
    400: 'invalid_request',
    401: 'unauthorized_client',
    403: 'access_denied',
    503: 'temporarily_unavailable',
  }
  return words[status] ?? 'server_error'
}
