import type { Context, MiddlewareHandler } from 'hono'
import { matchedRoutes } from 'hono/route'
import { withDeadline } from '../deadline.ts'
import type { Env } from '../env.ts'
import type { Service } from '../http.ts'
import { Problem } from '../problem.ts'
import { clientAddress } from './address.ts'
import type { Decision } from './limiter.ts'

/** A store that has not answered by then counts as down. */
const patienceMs = 3000

/** Routes that cost money: without a limiter they are closed, all others open. */
const costly = /^(chat\/(messages\b|complete$|analyze$)|openai\/v1\/(chat\/completions|embeddings)$)/

/**
 * Refuses with 429 who calls a route more often than their plan allows, and says on every answer how much is left
 * (draft-ietf-httpapi-ratelimit-headers). Goes after the middleware that tells who calls.
 */
export function limitRate(env: Env): MiddlewareHandler<Service> {
  return async (c, next) => {
    const address = clientAddress(c.req.raw.headers, env.rates.addressHeader)
    if (env.rates.isExempt(address)) return next()
    const route = routeOf(c)
    const call = { route, userId: c.get('caller')?.id ?? null, address }
    let decision: Decision | null
    try {
      decision = await withDeadline('rate limiter', patienceMs, () => env.rates.limiter.take(call))
    } catch (error) {
      c.get('log').error('rate_limiter_failed', { route }, error)
      if (!costly.test(route)) return next()
      throw new Problem(503, 'rate_limit_unavailable', 'Limits cannot be checked now; try again.', {
        headers: { 'retry-after': '5' },
        cause: error,
      })
    }
    if (!decision) return next()
    const headers = headersOf(decision)
    if (!decision.allowed) {
      throw new Problem(429, 'rate_limit_exceeded', 'Too many requests; wait as long as Retry-After says.', {
        headers: { ...headers, 'retry-after': String(Math.max(1, Math.ceil(decision.retryAfterSeconds ?? 1))) },
      })
    }
    await next()
    for (const [name, value] of Object.entries(headers)) c.res.headers.set(name, value)
  }
}

/** The route's pattern as rules name it: without slash at the ends, and without the forms of parameters. */
function routeOf(c: Context): string {
  const path = matchedRoutes(c).at(-1)?.path ?? ''
  return path.replace(/\{[^}]*\}/g, '').replace(/^\/+|\/+$/g, '')
}

function headersOf({ limit, remaining, refillPerSecond, resetSeconds, plan }: Decision): Record<string, string> {
  return {
    'ratelimit-policy': `"${plan}";q=${limit};w=${Math.ceil(limit / refillPerSecond)}`,
    ratelimit: `"${plan}";r=${remaining};t=${Math.ceil(resetSeconds)}`,
  }
}
