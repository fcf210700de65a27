import { createLocalJWKSet, jwtVerify } from 'jose'
import { refuse } from './refusals.ts'

/**
 * `verify_jwt = true`: the platform looks at the caller's token before the function starts. New-style API keys are no
 * tokens and do not pass, which is why functions are advised to turn this off and check for themselves.
 */
export function tokenCheck(jwks: string, issuer: string): (request: Request) => Promise<Response | null> {
  const keys = createLocalJWKSet(JSON.parse(jwks))
  return async (request) => {
    // Browsers send no credentials with a preflight.
    if (request.method === 'OPTIONS') return null
    const header = request.headers.get('authorization')
    if (!header) return refuse(401, 'UNAUTHORIZED_NO_AUTH_HEADER', 'Missing authorization header')
    const token = /^bearer (\S+)$/i.exec(header.trim())?.[1]
    if (!token) return refuse(401, 'UNAUTHORIZED_INVALID_JWT_FORMAT', 'Invalid JWT')
    try {
      await jwtVerify(token, keys, { algorithms: ['ES256'], issuer, requiredClaims: ['exp'] })
      return null
    } catch {
      return refuse(
        401,
        token.split('.').length === 3 ? 'UNAUTHORIZED_INVALID_JWT' : 'UNAUTHORIZED_INVALID_JWT_FORMAT',
        'Invalid JWT',
      )
    }
  }
}
