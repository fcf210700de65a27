import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { denoExecutable } from '../local/fixtures/functions-host.ts'
import { url } from '../support/local.ts'
import { type Redis, startRedis } from '../support/redis.ts'

let redis: Redis
beforeAll(async () => {
  redis = await startRedis()
})
afterAll(() => redis?.stop())

it('the sandbox’s Redis gives Upstash’s own clients what a redis-server gives them', async () => {
  const see = async (base: string, token: string) => {
    const args = ['run', '-A', '--quiet', 'tests/local/fixtures/upstash-sdk.ts', base, token]
    return JSON.parse((await promisify(execFile)(denoExecutable(), args)).stdout)
  }

  const real = await see(redis.url, redis.token)

  expect(real.limits.together).toBe(4)
  expect(await see(`${url}/sandbox/upstash/${randomUUID()}`, 'sandbox')).toEqual(real)
})
