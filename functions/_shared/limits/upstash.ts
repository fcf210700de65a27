import { Ratelimit } from '@upstash/ratelimit'
import { Redis } from '@upstash/redis'
import { type RateRule, readCatalogue } from '../catalogue.ts'
import type { ServiceDatabase } from '../database.ts'
import { countHits } from './hits.ts'
import type { RateLimiter } from './limiter.ts'

interface Options {
  url: string
  token: string
  service: () => Pick<ServiceDatabase, 'call'>
  /** A store that has not answered by then counts as down. */
  timeoutMs?: number
}

/**
 * Buckets in Upstash's Redis, shared by all isolates; plan and rules still come from the database, where they hold from one
 * request to the next. A bucket of another plan or another rule is another bucket, and full.
 */
export function upstashLimiter({ url, token, service, timeoutMs = 1000 }: Options): RateLimiter {
  const redis = new Redis({
    url,
    token,
    // Sent twice is counted twice. `retry: false` would try once more; this does not.
    retry: { retries: 0 },
    // As a function: with a plain signal an aborted command is resolved with null.
    signal: () => AbortSignal.timeout(timeoutMs),
    // Each decision has its own deadline; in a batch a slow one would hold all others up.
    enableAutoPipelining: false,
    enableTelemetry: false,
  })
  const buckets = new WeakMap<RateRule, Bucket>()
  const count = countHits(service)

  return {
    async take(call) {
      const { plan, rules } = await readCatalogue(service(), call.userId)
      const ofPlan = rules.filter((rule) => rule.plan === plan)
      const rule = ofPlan.find(({ route }) => route === call.route) ?? ofPlan.find(({ route }) => route === '*')
      if (!rule) return null
      const bucket = buckets.get(rule) ?? openBucket(redis, rule)
      buckets.set(rule, bucket)

      const { success, remaining, reset } = await bucket.limiter.limit(
        call.userId ? `user:${call.userId}` : `address:${call.address ?? 'unknown'}`,
      )
      // What answers is no Upstash, and what it says decides nothing.
      if (!Number.isFinite(reset)) throw new Error('The store of rate limits gave an answer that is none.')
      count(rule.route, call, success)

      // Tokens come back together, `tokens` each time; `reset` is the next time.
      const { tokens, milliseconds } = bucket.refill
      const nextMs = Math.max(1, reset - Date.now())
      const times = Math.ceil((rule.capacity - remaining) / tokens)
      return {
        allowed: success,
        limit: rule.capacity,
        remaining,
        refillPerSecond: rule.refill_per_second,
        resetSeconds: times === 0 ? 0 : Math.ceil((nextMs + (times - 1) * milliseconds) / 1000),
        retryAfterSeconds: success ? null : Math.ceil(nextMs / 1000),
        plan,
      }
    },
  }
}

interface Bucket {
  limiter: Ratelimit
  refill: Refill
}

function openBucket(redis: Redis, { route, plan, capacity, refill_per_second }: RateRule): Bucket {
  const refill = refillOf(refill_per_second)
  const { tokens, milliseconds } = refill
  const limiter = new Ratelimit({
    redis,
    limiter: Ratelimit.tokenBucket(tokens, `${milliseconds} ms`, capacity),
    prefix: `parlor:rate:${route}:${plan}:${capacity}:${tokens}/${milliseconds}`,
    // Its own timeout lets the request through.
    timeout: 0,
    // Would keep somebody out whose bucket was emptied of its debt, and every key for as long as the isolate lives.
    ephemeralCache: false,
  })
  return { limiter, refill }
}

export interface Refill {
  tokens: number
  milliseconds: number
}

/** The script refills whole tokens after whole milliseconds: the fewest that are within a thousandth of the rule's rate. */
export function refillOf(perSecond: number): Refill {
  for (let tokens = Math.max(1, Math.floor(perSecond / 2000)); ; tokens++) {
    const milliseconds = Math.max(1, Math.round((tokens * 1000) / perSecond))
    if (Math.abs((tokens * 1000) / milliseconds - perSecond) <= perSecond / 1000) return { tokens, milliseconds }
  }
}
