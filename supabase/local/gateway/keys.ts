import { gatewayError, restError } from './errors.ts'
import { type Claims, TokenError, type Tokens } from './tokens.ts'

/** Who a request comes from: an API key alone, or a user's token beside a key. */
export type Credentials = { claims: Claims; response?: undefined } | { claims?: undefined; response: Response }

const refused = (response: Response): Credentials => ({ response })

/** Hosted refuses secret keys from what names itself like a browser. */
export const isBrowser = (request: Request): boolean =>
  /^\s*Mozilla\s*\/\s*5\s*\.\s*0/i.test(request.headers.get('user-agent') ?? '')

export const apikeyOf = (request: Request, url: URL): string | null =>
  request.headers.get('apikey') ?? url.searchParams.get('apikey')

/** The token of an Authorization header; null when it is of another scheme. */
export function bearerOf(authorization: string): string | null {
  const [scheme = '', token = ''] = authorization.trim().split(/\s+(.*)/s)
  return scheme.toLowerCase() === 'bearer' ? token : null
}

/** Checks the key alone, with hosted's texts; null when it passes. */
export function refuseKey(request: Request, url: URL, tokens: Tokens): Response | null {
  const apikey = apikeyOf(request, url)
  if (!apikey) {
    return gatewayError(401, 'No API key found in request', 'No `apikey` request header or url param was found.')
  }
  const claims = tokens.keyClaims(apikey)
  if (!claims) return gatewayError(401, 'Invalid API key', 'Double check your Supabase `apikey`')
  if (claims.role === 'service_role' && isBrowser(request)) {
    return gatewayError(401, 'Forbidden use of secret API key in browser')
  }
  return null
}

/** Checks key and token. A credential that is present but wrong is refused, never passed over. */
export async function authenticate(request: Request, url: URL, tokens: Tokens): Promise<Credentials> {
  const response = refuseKey(request, url, tokens)
  if (response) return refused(response)
  const apikey = apikeyOf(request, url)
  const keyClaims = tokens.keyClaims(apikey)!
  const authorization = request.headers.get('authorization')
  if (!authorization) return { claims: keyClaims }
  const bearer = bearerOf(authorization)
  // As hosted: the header stands for the key, and one without a token is nobody's.
  if (bearer === null) return { claims: { ...keyClaims, role: 'anon' } }
  // supabase-js sends its key in both headers while nobody is signed in.
  if (bearer === apikey) return { claims: keyClaims }
  if (bearer === '') {
    return refused(tokenRefusal(new TokenError('malformed', 'Empty JWT is sent in Authorization header')))
  }
  try {
    return { claims: await tokens.verify(bearer) }
  } catch (error) {
    if (!(error instanceof TokenError)) throw error
    return refused(tokenRefusal(error))
  }
}

/** PostgREST's answer to a token that it does not accept. */
function tokenRefusal({ reason, message }: TokenError): Response {
  const headers = { 'www-authenticate': `Bearer error="invalid_token", error_description="${message}"` }
  if (reason === 'expired' || reason === 'claims') return restError(401, 'PGRST303', message, null, null, headers)
  const details = reason === 'signature' ? 'None of the keys was able to decode the JWT' : null
  return restError(401, 'PGRST301', message, details, null, headers)
}
