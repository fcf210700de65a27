import { extractCredentials } from '@supabase/server/core'
import type { MiddlewareHandler } from 'hono'
import { challenge, requireUser } from './auth.ts'
import type { Env } from './env.ts'
import type { Service } from './http.ts'
import { Problem } from './problem.ts'

export type Scope = 'chat' | 'models' | 'embeddings'

/** Lets through who sends a personal API key that opens `scope`, or the token of a signed-in user, as bearer token. */
export function requireKeyOrUser(env: Env, scope: Scope): MiddlewareHandler<Service> {
  const byToken = requireUser(env)
  return async (c, next) => {
    const { token } = extractCredentials(c.req.raw)
    if (!token?.startsWith('pk_parlor_')) return byToken(c, next)
    try {
      const { user_id } = await env.service.call<{ user_id: string }>(
        'authenticate_api_key',
        await hashOf(token),
        scope,
      )
      c.set('caller', { id: user_id, token: null })
    } catch (error) {
      if (!(error instanceof Problem) || error.status !== 401) throw error
      throw new Problem(401, error.code, error.detail, { headers: challenge, cause: error })
    }
    await next()
  }
}

/** SHA-256 as Postgres writes bytes. */
async function hashOf(secret: string): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(secret))
  return `\\x${Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('')}`
}
