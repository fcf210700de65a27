import { type CryptoKey, compactVerify, errors, importJWK, SignJWT } from 'jose'
import type { Stack } from '../stack.ts'

export interface Claims {
  sub?: string
  role: string
  /** Seconds since the epoch. */
  exp: number
  [claim: string]: unknown
}

/** Why a token is refused. `message` is the text PostgREST gives for the same token. */
export class TokenError extends Error {
  override name = 'TokenError'

  constructor(
    readonly reason: 'expired' | 'malformed' | 'signature' | 'claims',
    message: string,
    readonly expiredSeconds?: number,
  ) {
    super(message)
  }
}

export interface Tokens {
  /** Public keys, as `/auth/v1/.well-known/jwks.json` serves them. */
  jwks: { keys: JsonWebKey[] }
  /** Signs a user's token: ES256 with the `kid` that the JWKS names. */
  sign(claims: Claims): Promise<string>
  /** Claims of a token signed by `sign`; throws TokenError for every other one. */
  verify(token: string): Promise<Claims>
  /** Claims that an API key stands for; null for anything that is no key of this stack. */
  keyClaims(apikey: string | null): Claims | null
}

/** The only roles a token may name: membership in the database is wider than what a caller may ask for. */
const API_ROLES = new Set(['anon', 'authenticated', 'service_role'])
/** Clocks of two machines differ; PostgREST allows the same. */
const SKEW_SECONDS = 30
/** One ES256 check costs half a millisecond, so tokens seen before are remembered until they expire. */
const REMEMBERED = 2_000

export async function createTokens(stack: Stack): Promise<Tokens> {
  const { kid, kty, crv, x, y } = stack.keys.signingKey
  const publicJwk = { kty, crv, x, y, kid, alg: 'ES256', use: 'sig', key_ops: ['verify'] }
  const privateKey = await importJWK({ ...stack.keys.signingKey, alg: 'ES256', key_ops: ['sign'] }, 'ES256')
  const publicKey = (await importJWK(publicJwk, 'ES256')) as CryptoKey
  const never = Math.floor(Date.UTC(2100, 0, 1) / 1000)
  const keys = new Map<string, Claims>([
    [stack.keys.publishable, { role: 'anon', exp: never }],
    [stack.keys.secret, { role: 'service_role', exp: never }],
  ])
  const verified = new Map<string, Claims>()

  async function verifySignature(token: string): Promise<Claims> {
    const parts = token.split('.').length
    if (parts !== 3) throw new TokenError('malformed', `Expected 3 parts in JWT; got ${parts}`)
    let payload: Uint8Array
    try {
      const result = await compactVerify(token, publicKey, { algorithms: ['ES256'] })
      if (result.protectedHeader.kid !== kid) throw new TokenError('signature', 'No suitable key or wrong key type')
      payload = result.payload
    } catch (error) {
      if (error instanceof TokenError) throw error
      if (error instanceof errors.JWSSignatureVerificationFailed || error instanceof errors.JOSEAlgNotAllowed) {
        throw new TokenError('signature', 'No suitable key or wrong key type')
      }
      throw new TokenError('malformed', "JWT couldn't be decoded or it is invalid")
    }
    return readClaims(payload)
  }

  return {
    jwks: { keys: [publicJwk] },
    sign: (claims) => new SignJWT({ ...claims }).setProtectedHeader({ alg: 'ES256', kid, typ: 'JWT' }).sign(privateKey),
    async verify(token) {
      let claims = verified.get(token)
      if (!claims) {
        claims = await verifySignature(token)
        if (verified.size >= REMEMBERED) verified.delete(verified.keys().next().value!)
        verified.set(token, claims)
      }
      checkTimes(claims)
      return claims
    },
    keyClaims: (apikey) => (apikey && keys.get(apikey)) || null,
  }
}

function readClaims(payload: Uint8Array): Claims {
  let claims: unknown
  try {
    claims = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(payload))
  } catch {
    throw new TokenError('malformed', "JWT couldn't be decoded or it is invalid")
  }
  if (typeof claims !== 'object' || claims === null || Array.isArray(claims)) {
    throw new TokenError('malformed', "JWT couldn't be decoded or it is invalid")
  }
  const { role, exp } = claims as Partial<Claims>
  if (typeof exp !== 'number') throw new TokenError('claims', "The JWT 'exp' claim must be a number")
  if (typeof role !== 'string' || !API_ROLES.has(role)) throw new TokenError('claims', 'role not allowed')
  return claims as Claims
}

function checkTimes({ exp, nbf }: Claims) {
  const now = Math.floor(Date.now() / 1000)
  if (now > exp + SKEW_SECONDS) throw new TokenError('expired', 'JWT expired', now - exp)
  if (typeof nbf === 'number' && now < nbf - SKEW_SECONDS) throw new TokenError('claims', 'JWT not yet valid')
}
