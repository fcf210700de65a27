/**
 * How long this isolate still has. Hosted ends an isolate a fixed time after it began (150 s on the free plan, 400 s on
 * paid ones), with whatever it is doing; work that needs longer is handed on before that.
 */
export interface WallClock {
  /** Called with each request: the first one begins the isolate's time. */
  touch(): void
  /** Milliseconds until work should be handed on; Infinity where nothing ends the isolate. */
  remaining(): number
}

/** `seconds` is the platform's limit, 0 for none. A tenth of it, 10 s at most, is kept for handing over. */
export function wallClock(seconds: number, now: () => number = Date.now): WallClock {
  if (seconds <= 0) return { touch() {}, remaining: () => Number.POSITIVE_INFINITY }
  const limit = seconds * 1000
  const margin = Math.min(10_000, limit / 5)
  let begin: number | undefined
  return {
    touch() {
      begin ??= now()
    },
    remaining() {
      // Still here after the limit: the platform gives more than we were told. Count anew, rather than hand on all work at once for ever.
      if (begin === undefined || now() - begin > limit + 2000) begin = now()
      return Math.max(0, begin + limit - margin - now())
    },
  }
}
