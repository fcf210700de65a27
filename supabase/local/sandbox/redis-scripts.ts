import type { Reply } from './redis.ts'

/** A Lua script, written out: `call` is `redis.call`. */
type Script = (call: (...command: (string | number)[]) => Reply, keys: string[], args: string[]) => Reply

/** A limit that was set for everybody under this key counts instead of the caller's. */
const limitOf = (call: Parameters<Script>[0], key: string | undefined, given: string | undefined): number => {
  const set = key ? call('GET', key) : null
  return Number(set ?? given)
}

const fixedWindow: Script = (call, [key, dynamic], [tokens, window, by]) => {
  const limit = limitOf(call, dynamic, tokens)
  const used = call('INCRBY', key!, by!) as number
  if (used === Number(by)) call('PEXPIRE', key!, window!)
  return [used, limit]
}

const fixedWindowRemaining: Script = (call, [key, dynamic], [tokens]) => {
  const limit = limitOf(call, dynamic, tokens)
  return [limit - Number(call('GET', key!) ?? 0), limit]
}

/** Of the window before counts as much as still overlaps with a window that ends now. */
const usedBefore = (call: Parameters<Script>[0], key: string, now: number, window: number) =>
  Math.floor((1 - (now % window) / window) * Number(call('GET', key) ?? 0))

const slidingWindow: Script = (call, [current, previous, dynamic], [tokens, now, window, rate]) => {
  const limit = limitOf(call, dynamic, tokens)
  const by = Number(rate)
  const before = usedBefore(call, previous!, Number(now), Number(window))
  if (by > 0 && before + Number(call('GET', current!) ?? 0) >= limit) return [-1, limit]
  const used = call('INCRBY', current!, by) as number
  if (used === by) call('PEXPIRE', current!, Number(window) * 2 + 1000)
  return [limit - (used + before), limit]
}

const slidingWindowRemaining: Script = (call, [current, previous, dynamic], [tokens, now, window]) => {
  const limit = limitOf(call, dynamic, tokens)
  const used = usedBefore(call, previous!, Number(now), Number(window)) + Number(call('GET', current!) ?? 0)
  return [limit - used, limit]
}

const tokenBucket: Script = (call, [key, dynamic], args) => {
  const [, interval, refill, now, by] = args.map(Number) as [number, number, number, number, number]
  const limit = limitOf(call, dynamic, args[0])
  const [at, left] = call('HMGET', key!, 'refilledAt', 'tokens') as (string | null)[]
  let refilledAt = at == null ? now : Number(at)
  let tokens = at == null ? limit : Number(left)
  if (now >= refilledAt + interval) {
    const refills = Math.floor((now - refilledAt) / interval)
    tokens = Math.min(limit, tokens + refills * refill)
    refilledAt += refills * interval
  }
  if (by > 0 && tokens < by) return [-1, refilledAt + interval, limit]
  const remaining = tokens - by
  const full = Math.ceil((limit - remaining) / refill) * interval
  call('HSET', key!, 'refilledAt', refilledAt, 'tokens', remaining)
  if (full > 0) call('PEXPIRE', key!, full)
  return [remaining, refilledAt + interval, limit]
}

const tokenBucketRemaining: Script = (call, [key, dynamic], [tokens]) => {
  const limit = limitOf(call, dynamic, tokens)
  const [at, left] = call('HMGET', key!, 'refilledAt', 'tokens') as (string | null)[]
  return at == null ? [limit, -1, limit] : [Number(left), Number(at), limit]
}

/** Ends without a value, as the script does. */
const resetTokens: Script = (call, [pattern]) => {
  const [, keys] = call('SCAN', '0', 'MATCH', pattern!) as [string, string[]]
  for (const key of keys) call('DEL', key)
  return null
}

/** The scripts of `@upstash/ratelimit` 2.2.0 for one region, by the SHA-1 of their Lua. */
export const scripts: Record<string, Script> = {
  b2efc02798c8e9b471a10f9b1d5745db89923ff3: fixedWindow,
  '823cb2a5a902d69681244f5e28e5ebb8f2a89edd': fixedWindowRemaining,
  '74740bb3d7792848093cdef586b6b6037c455fd6': slidingWindow,
  '7ca36169e0fc9caedd81b4eef8e99854c157f9b5': slidingWindowRemaining,
  d60be5bd3d83482ae229309f1f7425424f891204: tokenBucket,
  '40daf4a441df736f5c99f8b77bbe176c909e5de4': tokenBucketRemaining,
  '54bd274ddc59fb3be0f42deee2f64322a10e2b50': resetTokens,
}
