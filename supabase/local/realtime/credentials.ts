import { type Claims, TokenError, type Tokens } from '../gateway/tokens.ts'

/** A token that was accepted, and what it says. `token` is compared when a client sends one again. */
export interface Credentials {
  token: string
  claims: Claims
}

/** Why a token is refused: `code` leads the reason of a failed join, `message` alone closes a channel. */
export class Refused extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message)
  }
  get reason(): string {
    return `${this.code}: ${this.message}`
  }
}

/** Accepts an API key of this stack or a user's token; throws `Refused`. */
export async function identify(tokens: Tokens, given: string): Promise<Credentials> {
  const token = cleaned(given)
  const key = tokens.keyClaims(token)
  if (key) return { token, claims: key }
  try {
    const claims = await tokens.verify(token)
    checkExpiry(claims)
    return { token, claims }
  } catch (error) {
    throw error instanceof TokenError ? refusal(error) : error
  }
}

/** Stricter than the gateway, which allows for clocks that differ: a channel lives long enough to notice. */
export function checkExpiry({ exp }: Claims): void {
  const seconds = Math.floor(Date.now() / 1000) - exp
  if (seconds >= 0) throw expired(seconds)
}

function refusal(error: TokenError): Refused {
  if (error.reason === 'expired') return expired(error.expiredSeconds ?? 0)
  if (error.reason === 'signature') return new Refused('JwtSignatureError', 'Failed to validate JWT signature')
  if (error.reason === 'claims') return new Refused('InvalidJWTToken', 'Fields `role` and `exp` are required in JWT')
  return new Refused('MalformedJWT', 'The token provided is not a valid JWT')
}

const expired = (seconds: number) => new Refused('InvalidJWTToken', `Token has expired ${seconds} seconds ago`)

function cleaned(token: string): string {
  const text = token.replace(/\s/g, '')
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
