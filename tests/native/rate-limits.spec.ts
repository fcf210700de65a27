import { afterAll, beforeAll } from 'vitest'
import { type Isolate, startFunctions } from '../support/functions.ts'
import { type Breakable, exempt, keepsLimits, survives, withPlan } from '../support/rate-limits.ts'
import { type Redis, startRedis } from '../support/redis.ts'

// The limits of tests/rate-limits.spec.ts, kept in a redis-server.
let redis: Redis
const isolates: Isolate[] = []
const store: Breakable = {
  isolates: ['', ''],
  goDown: () => redis.kill(),
  goSlow: async () => redis.freeze(),
  async recover() {
    if (redis.isUp()) redis.thaw()
    else await redis.restart()
  },
  async forget() {
    await redis.command('FLUSHALL')
    await redis.command('SCRIPT', 'FLUSH')
  },
}

withPlan()
beforeAll(async () => {
  redis = await startRedis()
  const served = ['chat', 'health', 'openai']
  const variables = { UPSTASH_REDIS_REST_URL: redis.url, UPSTASH_REDIS_REST_TOKEN: redis.token }
  const started = [
    startFunctions(served, variables),
    startFunctions(served, { ...variables, RATE_LIMIT_EXEMPT: exempt }),
  ]
  isolates.push(...(await Promise.all(started)))
  store.isolates = isolates.map(({ url }) => url) as [string, string]
})
afterAll(async () => {
  await Promise.all(isolates.map((isolate) => isolate.stop()))
  await redis?.stop()
})

keepsLimits('a redis-server', store)
survives('a redis-server', store)
