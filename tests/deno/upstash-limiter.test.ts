import { deepEqual, equal, ok, rejects } from 'node:assert/strict'
import fc from 'fast-check'
import { Hono } from 'hono'
import type { ServiceDatabase } from '../../functions/_shared/database.ts'
import { readEnv } from '../../functions/_shared/env.ts'
import { countHits } from '../../functions/_shared/limits/hits.ts'
import { refillOf, upstashLimiter } from '../../functions/_shared/limits/upstash.ts'
import { upstash } from '../../supabase/local/sandbox/upstash.ts'

const url = 'http://redis.test/upstash/db'

/** A database that knows one rule, and what it was told of hits. */
function ruled(capacity: number, perSecond: number) {
  const rules = [{ route: '*', plan: 'free', capacity, refill_per_second: perSecond }]
  const told: unknown[] = []
  const call = (name: string, batch: unknown) => {
    if (name === 'add_rate_hits') told.push(batch)
    return Promise.resolve(name === 'read_catalogue' ? { version: 1, plan: 'free', models: [], rules } : null)
  }
  return { told, service: () => ({ call }) as Pick<ServiceDatabase, 'call'> }
}

/** Runs `work` with the sandbox's Redis behind `fetch`, and a clock that moves when it is told to. */
async function withRedis<T>(work: (clock: { now: number; requests: number }) => Promise<T>): Promise<T> {
  const clock = { now: 1_800_000_000_000, requests: 0 }
  const served = new Hono().route('/upstash', upstash())
  const [before, time] = [globalThis.fetch, Date.now]
  globalThis.fetch = (input, init) => {
    clock.requests += 1
    return Promise.resolve(served.request(String(input), init))
  }
  Date.now = () => clock.now
  try {
    return await work(clock)
  } finally {
    globalThis.fetch = before
    Date.now = time
  }
}

const limiterOf = (capacity: number, perSecond: number, timeoutMs?: number) =>
  upstashLimiter({ url, token: 'sandbox', service: ruled(capacity, perSecond).service, timeoutMs })
const call = { route: 'chat/messages', userId: '0190c0de-0000-7000-8000-000000000001', address: null }

Deno.test('a rate becomes whole tokens after whole milliseconds, within a thousandth', () => {
  deepEqual(refillOf(4), { tokens: 1, milliseconds: 250 })
  deepEqual(refillOf(0.01), { tokens: 1, milliseconds: 100_000 })
  deepEqual(refillOf(300), { tokens: 3, milliseconds: 10 })
  fc.assert(
    fc.property(fc.double({ min: 1e-6, max: 1e5, noNaN: true }), (perSecond) => {
      const { tokens, milliseconds } = refillOf(perSecond)
      ok(Number.isInteger(tokens) && tokens >= 1 && Number.isInteger(milliseconds) && milliseconds >= 1)
      ok(Math.abs((tokens * 1000) / milliseconds / perSecond - 1) <= 0.001)
    }),
  )
})

Deno.test('a bucket in Redis gives its burst and its rate, no more and no less, and says when to come back', async () => {
  const rule = fc.record({
    capacity: fc.integer({ min: 1, max: 20 }),
    perSecond: fc.oneof(fc.constantFrom(0.5, 1, 4, 8, 300), fc.double({ min: 0.05, max: 400, noNaN: true })),
    // In refills, so that fast and slow buckets are met in all their states.
    waits: fc.array(fc.oneof(fc.constant(0), fc.double({ min: 0, max: 6, noNaN: true })), {
      minLength: 1,
      maxLength: 60,
    }),
  })
  await fc.assert(
    fc.asyncProperty(rule, ({ capacity, perSecond, waits }) =>
      withRedis(async (clock) => {
        const { take } = limiterOf(capacity, perSecond)
        const { tokens, milliseconds } = refillOf(perSecond)
        const began = clock.now
        const taken: number[] = []
        // A bucket that refills steadily and is asked at the same moments: what Postgres keeps.
        let steady = capacity
        let seen = began
        for (const wait of waits) {
          clock.now += Math.round(wait * milliseconds)
          const told = await take(call)
          steady = Math.min(capacity, steady + ((clock.now - seen) / milliseconds) * tokens)
          seen = clock.now
          // One that refills at ticks is never behind by more than the tick that is on its way.
          ok(told!.allowed || steady < 1 + tokens - 1e-9, `refused with ${steady} left`)
          equal(told!.retryAfterSeconds === null, told!.allowed)
          if (told!.allowed) {
            taken.push(clock.now)
            steady = Math.max(0, steady - 1)
            continue
          }
          equal(told!.remaining, 0)
          clock.now += told!.retryAfterSeconds! * 1000
          ok((await take(call))!.allowed, 'what was said to come did not')
          taken.push(clock.now)
          steady = Math.max(0, Math.min(capacity, steady + ((clock.now - seen) / milliseconds) * tokens) - 1)
          seen = clock.now
        }
        for (const [first, from] of taken.entries()) {
          for (const [last, to] of taken.entries()) {
            if (last < first) continue
            const most = capacity + (Math.floor((to - from) / milliseconds) + 1) * tokens
            ok(last - first + 1 <= most, `${last - first + 1} within ${to - from} ms`)
          }
        }
      }),
    ),
    { numRuns: 60 },
  )
})

Deno.test('what is left is what comes through, and after the reset all is there again', () =>
  withRedis(async (clock) => {
    const { take } = limiterOf(6, 1)
    const first = await take(call)
    deepEqual(first, {
      allowed: true,
      limit: 6,
      remaining: 5,
      refillPerSecond: 1,
      resetSeconds: 1,
      retryAfterSeconds: null,
      plan: 'free',
    })
    for (let left = first!.remaining - 1; left >= 0; left--) equal((await take(call))!.remaining, left)
    const refused = await take(call)
    deepEqual(
      [refused!.allowed, refused!.remaining, refused!.resetSeconds, refused!.retryAfterSeconds],
      [false, 0, 6, 1],
    )
    clock.now += refused!.resetSeconds * 1000
    equal((await take(call))!.remaining, 5)
  }))

Deno.test('a request whose answer is lost is not sent again', () =>
  withRedis(async (clock) => {
    const answered = globalThis.fetch
    const { take } = limiterOf(5, 0.001)
    await take(call)
    const before = clock.requests
    globalThis.fetch = async (...request) => {
      await answered(...request)
      throw new TypeError('connection closed before message completed')
    }
    await rejects(take(call), TypeError)
    equal(clock.requests, before + 1)
    globalThis.fetch = answered
    equal((await take(call))!.remaining, 2)
  }))

Deno.test('a store that is slow, or is no Upstash, decides nothing', async () => {
  const before = globalThis.fetch
  const answers: Record<string, () => Response> = {
    'a page': () => new Response('<h1>Welcome</h1>'),
    'an error': () => Response.json({ error: 'ERR max daily request limit exceeded' }, { status: 400 }),
    'no result': () => Response.json({}),
    'another result': () => Response.json({ result: btoa('fine') }),
    'nothing in it': () => Response.json({ result: [] }),
  }
  try {
    for (const [what, answer] of Object.entries(answers)) {
      globalThis.fetch = () => Promise.resolve(answer())
      await rejects(limiterOf(5, 1).take(call), Error, what)
    }
    globalThis.fetch = (_, init) =>
      new Promise((_, reject) => init!.signal!.addEventListener('abort', () => reject(init!.signal!.reason)))
    await rejects(limiterOf(5, 1, 20).take(call), { name: 'TimeoutError' })
  } finally {
    globalThis.fetch = before
  }
  await rejects(
    upstashLimiter({ url: 'http://127.0.0.1:9', token: 'x', service: ruled(5, 1).service }).take(call),
    TypeError,
  )
})

Deno.test('hits are handed over together, and kept while the database cannot take them', async () => {
  const batches: unknown[] = []
  let isDown = true
  const { promise: told, resolve } = Promise.withResolvers<void>()
  const count = countHits(
    () => ({
      call: (_: string, batch: unknown) => {
        batches.push(batch)
        if (!isDown) resolve()
        return isDown
          ? Promise.reject(new Error('down')).finally(() => (isDown = false))
          : Promise.resolve(null as never)
      },
    }),
    5,
  )
  count('*', call, true)
  count('*', call, false)
  count('*', { ...call, userId: null, address: '192.0.2.1' }, true)
  await told
  const expected = [
    { key: `* user:${call.userId}`, taken: 1, refused: 1 },
    { key: '* visitors', taken: 1, refused: 0 },
  ]
  deepEqual(batches, [expected, expected])
})

Deno.test('an address without a token, a token without one, or no address at all is named at the start', () => {
  const variables: Record<string, string> = {
    SUPABASE_URL: 'http://127.0.0.1:1',
    SUPABASE_DB_URL: 'postgresql://postgres:secret@127.0.0.1:1/postgres',
    SUPABASE_PUBLISHABLE_KEYS: '{"default":"sb_publishable_x"}',
    SUPABASE_SECRET_KEYS: '{"default":"sb_secret_x"}',
  }
  const wrong: [object, string][] = [
    [{ UPSTASH_REDIS_REST_URL: url }, 'UPSTASH_REDIS_REST_TOKEN'],
    [{ UPSTASH_REDIS_REST_TOKEN: 'x' }, 'UPSTASH_REDIS_REST_URL'],
    [{ UPSTASH_REDIS_REST_URL: 'eu1.upstash.io', UPSTASH_REDIS_REST_TOKEN: 'x' }, 'UPSTASH_REDIS_REST_URL'],
    [{ UPSTASH_REDIS_REST_URL: 'rediss://eu1.upstash.io', UPSTASH_REDIS_REST_TOKEN: 'x' }, 'UPSTASH_REDIS_REST_URL'],
  ]
  for (const [given, missing] of wrong) {
    try {
      readEnv((name) => ({ ...variables, ...given })[name])
      ok(false, missing)
    } catch (error) {
      ok(String(error).includes(missing), String(error))
    }
  }
  equal(readEnv((name) => variables[name]).pingRedis, null)
})
