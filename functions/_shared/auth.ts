import { extractCredentials, verifyCredentials } from '@supabase/server/core'
import type { Context, MiddlewareHandler } from 'hono'
import { decodeProtectedHeader } from 'jose'
import type { Env } from './env.ts'
import type { Service } from './http.ts'
import { Problem } from './problem.ts'

export interface Actor {
  /** The user's id. */
  id: string
  /** The user's own token: what is done with it, is done as the user. Null: an API key stands for them. */
  token: string | null
}

/** A user who came with their own token. */
export interface Caller extends Actor {
  token: string
}

export const challenge = { 'www-authenticate': 'Bearer' }

/** A credential that is wrong is refused; it never counts as none. */
export const refuse = (code: string, detail: string) => new Problem(401, code, detail, { headers: challenge })

/**
 * Refuses, on every route, an `apikey` that is not one of the project's, and a secret key that comes from a browser,
 * where everybody can read it. The platform's gateway does both too, but not in front of functions.
 */
export function checkKeys(env: Env): MiddlewareHandler<Service> {
  return async (c, next) => {
    const given = [c.req.header('apikey'), c.req.header('authorization')?.replace(/^Bearer\s+/i, '')]
    // Servers may send some of the Sec-Fetch headers too (Node sends Sec-Fetch-Mode); none tells a site.
    const fromBrowser =
      c.req.header('sec-fetch-site') !== undefined || /^\s*Mozilla\s*\/\s*5\b/i.test(c.req.header('user-agent') ?? '')
    const isSecret = async (key = '') =>
      key.startsWith('sb_secret_') || (await isOneOf(key, Object.values(env.keys.secret)))
    if (fromBrowser && ((await isSecret(given[0])) || (await isSecret(given[1])))) {
      throw refuse(
        'secret_key_in_browser',
        'A secret key must never leave your servers. Use the publishable key, and replace this one.',
      )
    }
    const key = given[0]
    if (
      key !== undefined &&
      !(await isOneOf(key, [...Object.values(env.keys.secret), ...Object.values(env.keys.publishable)]))
    ) {
      throw refuse('api_key_invalid', 'The apikey is not one of this project.')
    }
    await next()
  }
}

/** Lets a signed-in user through, verified by the project's public keys, and keeps who it is for `caller(c)`. */
export function requireUser(env: Env): MiddlewareHandler<Service> {
  const issuer = `${env.url}/auth/v1`
  const remote = new URL(`${issuer}/.well-known/jwks.json`)

  return async (c, next) => {
    const { token } = extractCredentials(c.req.raw)
    if (!token) {
      if (c.req.header('authorization'))
        throw refuse('token_invalid', 'The Authorization header holds no bearer token.')
      throw refuse('sign_in_required', 'Sign in, and send the access token as bearer token.')
    }
    // A project signs with a new key while functions still hold the old set: an unknown kid is looked up at the project.
    const kid = keyId(token)
    const jwks = env.jwks?.keys.some((key) => (key as { kid?: string }).kid === kid) ? env.jwks : remote
    const { data, error } = await verifyCredentials(
      { token, apikey: null },
      {
        auth: 'user',
        issuer,
        audience: 'authenticated',
        env: { url: env.url, jwks: jwks as never, publishableKeys: env.keys.publishable, secretKeys: env.keys.secret },
      },
    )
    if (error) {
      if (error.status >= 500) {
        throw new Problem(503, 'keys_unavailable', 'The keys that verify tokens cannot be reached.', { cause: error })
      }
      if (Object.values(env.keys.publishable).includes(token)) {
        throw refuse('sign_in_required', 'Sign in, and send the access token as bearer token.')
      }
      throw refuse(hasExpired(error) ? 'token_expired' : 'token_invalid', 'The access token was refused.')
    }
    const { jwtClaims: claims } = data
    // jose checks `exp` only where it is present; a token that never ends was not made by Auth.
    if (claims?.role !== 'authenticated' || typeof claims.exp !== 'number' || !/^[0-9a-f-]{36}$/i.test(claims.sub)) {
      throw refuse('token_invalid', 'The access token was refused.')
    }
    c.set('caller', { id: claims.sub, token })
    await next()
  }
}

/** The user that `requireUser` let through. */
export function caller(c: Context<Service>): Caller {
  const { id, token } = c.get('caller')
  if (token === null) throw new Error('A route for users was reached with an API key.')
  return { id, token }
}

/** Whoever was let through, by their token or by an API key. */
export function actor(c: Context<Service>): Actor {
  return c.get('caller')
}

/** Lets the database's scheduler through: it knows the worker's secret, which opens nothing else. */
export function requireWorkerSecret(env: Env): MiddlewareHandler<Service> {
  return async (c, next) => {
    const token = c.req.header('authorization')?.match(/^Bearer\s+(\S+)$/i)?.[1]
    if (!token) throw refuse('worker_secret_required', 'Send the worker secret as bearer token.')
    if (!(await sameText(token, env.workerSecret)))
      throw refuse('worker_secret_invalid', 'This is not the worker secret.')
    await next()
  }
}

function keyId(token: string): string | undefined {
  try {
    return decodeProtectedHeader(token).kid
  } catch {
    return undefined
  }
}

function hasExpired(error: { message: string; cause?: unknown }): boolean {
  return (error.cause as { code?: string } | undefined)?.code === 'ERR_JWT_EXPIRED' || /expired/.test(error.message)
}

async function isOneOf(key: string, keys: string[]): Promise<boolean> {
  const same = await Promise.all(keys.map((known) => sameText(key, known)))
  return same.includes(true)
}

/** Compares in a time that tells nothing about where the texts differ. */
async function sameText(a: string, b: string): Promise<boolean> {
  const digest = async (text: string) =>
    new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text)))
  const [left, right] = await Promise.all([digest(a), digest(b)])
  let difference = 0
  for (let index = 0; index < left.length; index += 1) difference |= left[index]! ^ right[index]!
  return difference === 0
}
