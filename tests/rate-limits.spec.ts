import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Isolate, startFunctions } from './support/functions.ts'
import { functionsUrl, session, stack, url } from './support/local.ts'
import {
  type Breakable,
  complete,
  exempt,
  keepsLimits,
  type Limited,
  limited,
  read,
  survives,
  withPlan,
} from './support/rate-limits.ts'

const served = ['chat', 'health', 'openai']
const redis = { UPSTASH_REDIS_REST_URL: `${url}/sandbox/upstash/${randomUUID()}`, UPSTASH_REDIS_REST_TOKEN: 'sandbox' }
const isolates: Isolate[] = []
const inPostgres = { isolates: [`http://127.0.0.1:${stack.ports.functions}`, ''] } as Limited
const inUpstash = { isolates: ['', ''] } as Limited

withPlan()
beforeAll(async () => {
  const known = { RATE_LIMIT_EXEMPT: exempt }
  const started = [
    startFunctions(served, known),
    startFunctions(served, redis),
    startFunctions(served, { ...redis, ...known }),
  ]
  isolates.push(...(await Promise.all(started)))
  const [second, ...others] = isolates.map(({ url }) => url)
  inPostgres.isolates[1] = second!
  inUpstash.isolates = others as [string, string]
})
afterAll(() => Promise.all(isolates.map((isolate) => isolate.stop())))

keepsLimits('Postgres', inPostgres)
keepsLimits('Upstash’s Redis', inUpstash)

const faults = (faults: object) =>
  fetch(`${redis.UPSTASH_REDIS_REST_URL}/faults`, { method: 'PUT', body: JSON.stringify(faults) })
survives('Upstash’s Redis', {
  get isolates() {
    return inUpstash.isolates
  },
  goDown: () => faults({ down: true }),
  goSlow: () => faults({ delay_ms: 10_000 }),
  recover: () => faults({}),
  forget: () => fetch(redis.UPSTASH_REDIS_REST_URL, { method: 'DELETE' }),
} satisfies Breakable)

describe('the rate of a person’s calls', () => {
  it('is not asked of who watches the service', async () => {
    for (const path of ['', '/live', '/ready', '/providers']) {
      expect((await fetch(`${functionsUrl}/health${path}`)).headers.has('ratelimit')).toBe(false)
    }
  })

  it('S-18 that cannot be checked in Postgres lets reads pass, and closes what costs money', async () => {
    const person = await limited()
    const [one] = inPostgres.isolates
    await read(person, one)
    const holder = session()
    await holder.unsafe('begin')
    await holder`select from private.rate_buckets where key = ${`* user:${person.id}`} for update`

    const [reading, asking] = await Promise.all([read(person, one), complete(person, one)])
    await holder.unsafe('rollback')

    expect(reading.status).toBe(404)
    expect(reading.headers.has('ratelimit')).toBe(false)
    expect(asking.status).toBe(503)
    expect(asking.headers.get('retry-after')).toBe('5')
    expect(await asking.json()).toMatchObject({ code: 'rate_limit_unavailable' })
    expect((await complete(person, one)).status).toBe(200)
  })
})
