import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, it } from 'vitest'
import { url } from '../support/local.ts'
import { denoExecutable } from './fixtures/functions-host.ts'

const redis = () => `${url}/sandbox/upstash/${randomUUID()}`
const ask = async (base: string, path: string, body: unknown, headers: Record<string, string> = {}) => {
  const init = { method: 'POST', headers: { authorization: 'Bearer sandbox', ...headers }, body: JSON.stringify(body) }
  const response = await fetch(base + path, init)
  return { status: response.status, body: await response.json() }
}

describe('the sandbox’s Redis, by Upstash’s own clients under Deno', () => {
  // biome-ignore lint/suspicious/noExplicitAny: what the script prints is the SDK's business.
  let seen: any
  beforeAll(async () => {
    const args = ['run', '-A', '--quiet', 'tests/local/fixtures/upstash-sdk.ts', redis(), 'sandbox']
    const { stdout } = await promisify(execFile)(denoExecutable(), args)
    seen = JSON.parse(stdout)
  })

  it('keeps strings, hashes and their expiry', () => {
    expect(seen).toMatchObject({
      object: { a: [1, 'two', null] },
      values: [5, 'plain', 'OK', '日本語 😀', { a: 1 }],
      exact: ['5', 'OK', null],
      missing: null,
      counted: [1, 42, 41, 41],
      once: ['OK', null],
      hash: ['one', { a: 'one', c: null }, { a: 'one', b: 2 }],
      hashLives: 100,
      persisted: [1, -1, -2],
      types: ['hash', 'string', 'none'],
      found: [5, 5],
      exists: 2,
      shortLives: true,
      gone: true,
      deleted: [2, 0, 1],
      flushed: ['OK', 0],
    })
  })

  it('takes commands in pipelines, transactions and batches of their own', () => {
    expect(seen.batch).toEqual(['OK', 1, 2])
    expect(seen.transaction).toEqual(['OK', 2, '日本語 😀'])
    expect(seen.automatic).toEqual([2, '日本語 😀', 3])
  })

  it('fails with the errors of Redis', () => {
    const { errors } = seen
    expect(errors.wrongType).toMatchObject({ name: 'UpstashError', message: expect.stringMatching(/^WRONGTYPE /) })
    expect(errors.notInteger.message).toMatch(/^ERR value is not an integer or out of range/)
    expect(errors.together.message).toBe('Command failed: ERR value is not an integer or out of range')
    const half = [{ error: expect.stringMatching(/^ERR /) }, { result: 3 }]
    expect(errors).toMatchObject({ items: half, transaction: half })
    expect(errors.arity.message).toMatch(/^ERR wrong number of arguments for 'del' command/)
    expect(errors.unscripted.message).toMatch(/^NOSCRIPT /)
    expect(errors.token).toBe('WRONGPASS')
  })

  it('diff-sandbox-2: knows the scripts of the limiter by heart, and no other', async () => {
    const { limits } = seen
    const threeOfThree = [
      [true, 3, 2],
      [true, 3, 1],
      [true, 3, 0],
      [false, 3, 0],
    ]
    expect(limits.bucket).toEqual({
      before: 4,
      spent: [
        [true, 4, 3],
        [true, 4, 2],
        [true, 4, 1],
        [true, 4, 0],
        [false, 4, 0],
      ],
      after: 0,
      weighted: 1,
    })
    expect(limits.fixed).toEqual({ before: 3, spent: threeOfThree, after: 0, weighted: 0 })
    expect(limits.sliding).toEqual({ before: 3, spent: threeOfThree, after: 0, weighted: 0 })
    expect(limits).toMatchObject({ tooMuch: [false, 4], refilled: true, together: 4, expires: [true, 4] })
    const { status, body } = await ask(redis(), '', ['eval', 'return 1', 0])
    expect([status, body.error]).toEqual([400, expect.stringMatching(/^ERR the sandbox has no Lua/)])
  })
})

describe('the sandbox’s Redis on the wire', () => {
  it('answers text as base64 of its bytes where that is asked for, and `OK` as it is', async () => {
    const base = redis()
    const encoded = { 'upstash-encoding': 'base64' }

    expect((await ask(base, '', ['set', 'a', 'é'], encoded)).body).toEqual({ result: 'OK' })
    expect((await ask(base, '', ['get', 'a'], encoded)).body).toEqual({ result: 'w6k=' })
    expect((await ask(base, '', ['mget', 'a', 'b'], encoded)).body).toEqual({ result: ['w6k=', null] })
    expect((await ask(base, '', ['get', 'a'])).body).toEqual({ result: 'é' })
    expect((await ask(base, '', ['hset', 'h', 'n', 1, 'yes', true], encoded)).body).toEqual({ result: 2 })
    expect((await ask(base, '', ['hgetall', 'h'])).body).toEqual({ result: ['n', '1', 'yes', 'true'] })
  })

  it.each([
    ['an unknown command', '', ['geo', 'a'], 400, /^ERR unknown command 'geo'/],
    ['more keys than arguments', '', ['evalsha', 'x', 1], 400, /^NOSCRIPT/],
    ['a body that is no command', '', { get: 'a' }, 400, /^ERR failed to parse/],
    ['a pipeline that is none', '/pipeline', ['get', 'a'], 400, /^ERR failed to parse/],
    ['a transaction with a command that is unknown', '/multi-exec', [['set', 'a', '1'], ['geo']], 400, /^EXECABORT/],
  ])('refuses %s', async (_, path, body, status, error) => {
    const base = redis()

    expect(await ask(base, path, body)).toEqual({ status, body: { error: expect.stringMatching(error) } })
    expect((await ask(base, '', ['dbsize'])).body).toEqual({ result: 0 })
  })

  it('refuses a caller without its token', async () => {
    expect((await ask(redis(), '', ['ping'], { authorization: 'Bearer other' })).status).toBe(401)
    expect((await ask(redis(), '/pipeline', [['ping']], { authorization: '' })).status).toBe(401)
  })

  it('has a database for each name, which can be down, slow and forgotten', async () => {
    const [base, other] = [redis(), redis()]
    const fault = (faults: object) => fetch(`${base}/faults`, { method: 'PUT', body: JSON.stringify(faults) })
    await ask(base, '', ['set', 'a', 1])

    await fault({ down: true })
    const down = await fetch(base, { method: 'POST', headers: { authorization: 'Bearer sandbox' }, body: '["ping"]' })
    expect([down.status, (await ask(other, '', ['get', 'a'])).body]).toEqual([503, { result: null }])

    await fault({ delay_ms: 10_000 })
    const impatient = { method: 'POST', body: '["ping"]', signal: AbortSignal.timeout(50) }
    await expect(fetch(base, impatient)).rejects.toMatchObject({ name: 'TimeoutError' })

    await fault({})
    expect((await ask(base, '', ['get', 'a'])).body).toEqual({ result: '1' })
    await fetch(base, { method: 'DELETE' })
    expect((await ask(base, '', ['get', 'a'])).body).toEqual({ result: null })
  })
})
