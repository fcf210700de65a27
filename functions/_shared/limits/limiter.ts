import type { ServiceDatabase } from '../database.ts'

/** Who calls which route: `chat/generations/:id/stream`, as it is registered. Without a user the address counts. */
export interface Call {
  route: string
  userId: string | null
  address: string | null
}

export interface Decision {
  allowed: boolean
  /** Calls that may come at once. */
  limit: number
  remaining: number
  /** Calls that are given back in a second. */
  refillPerSecond: number
  /** Until all are given back. */
  resetSeconds: number
  /** Until the next call may come; null when this one may. */
  retryAfterSeconds: number | null
  plan: string
}

/**
 * Where token buckets are kept. One question for rule and token, since a store may know both in one trip. Null: the plan
 * has no limit there. Throws when the store does not answer.
 */
export interface RateLimiter {
  take(call: Call): Promise<Decision | null>
}

interface Taken {
  allowed: boolean
  limit: number
  remaining: number
  refill_per_second: number
  reset_seconds: number
  retry_after_seconds: number | null
  plan: string
}

/** Buckets in the database: rule, plan of this moment and token in one statement. */
export function postgresLimiter(service: () => Pick<ServiceDatabase, 'call'>): RateLimiter {
  return {
    async take({ route, userId, address }) {
      const taken = await service().call<Taken | null>('take_rate', route, userId, address)
      return (
        taken && {
          allowed: taken.allowed,
          limit: taken.limit,
          remaining: taken.remaining,
          refillPerSecond: taken.refill_per_second,
          resetSeconds: taken.reset_seconds,
          retryAfterSeconds: taken.retry_after_seconds,
          plan: taken.plan,
        }
      )
    },
  }
}
