import { readFileSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { join } from 'node:path'
import { importJWK, SignJWT } from 'jose'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { functionsUrl, until } from '../support/local.ts'
import { type HostedProject, hostProject } from './fixtures/functions-host.ts'

const broken = `export default {\n  fetch: () => new Response('never'\n}\n`
const files = {
  '.env': 'MY_SECRET=from the project\n',
  'supabase/functions/broken/index.ts': broken,
  'supabase/functions/import-map/deno.json': '{ "imports": { "counter": "../../../functions/_shared/counter.ts" } }',
  'supabase/functions/import-map/index.ts': `import { counter } from 'counter'\nexport default { fetch: () => Response.json(counter) }\n`,
}

let host: HostedProject
const get = (path: string, init?: RequestInit) => fetch(host.url + path, init)
const read = (file: string) => {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}

describe('a project of functions', () => {
  beforeAll(async () => {
    host = await hostProject({ files })
  })
  afterAll(() => host.stop())

  it('serves a function that exports fetch, under its name and with the rest of the path', async () => {
    const answer = await get('/outside/greeting')

    expect(answer.status).toBe(200)
    expect(await answer.json()).toEqual({ greeting: 'hello' })
  })

  it('serves a function that calls Deno.serve, with its error handler', async () => {
    expect(await (await get('/legacy')).text()).toBe('served by Deno.serve')

    const failed = await get('/legacy?fail')

    expect(failed.status).toBe(418)
    expect(await failed.text()).toBe('caught: on purpose')
  })

  it.each(['/nope', '/', '/off', '/worker', '/__proto__'])(
    'answers 404 for %s, which is no function here',
    async (path) => {
      const answer = await get(path)

      expect(answer.status).toBe(404)
      expect(answer.headers.get('sb-error-code')).toBe('NOT_FOUND')
      expect(await answer.json()).toEqual({ code: 'NOT_FOUND', message: 'Requested function was not found' })
    },
  )

  it('answers 503 with file and line for a function that cannot be parsed, while the others serve', async () => {
    const answer = await get('/broken')

    expect(answer.status).toBe(503)
    const { code, message } = await answer.json()
    expect(code).toBe('BOOT_ERROR')
    expect(message).toMatch(/supabase\/functions\/broken\/index\.ts:3:\d+/)
    expect(message).not.toContain(host.project)
    expect((await get('/outside/greeting')).status).toBe(200)
  })

  it('answers 503 with message, file and line for a function that throws while it is imported', async () => {
    const { message } = await (await get('/throws')).json()

    expect(message).toMatch(/SETTINGS_URL is missing at supabase\/functions\/throws\/index\.ts:3:\d+/)
  })

  it('answers 500 without details when a handler throws, or answers nothing', async () => {
    for (const deed of ['throw', 'nothing']) {
      const answer = await get(`/probe?do=${deed}`)

      expect(answer.status).toBe(500)
      expect(await answer.json()).toEqual({
        code: 'WORKER_ERROR',
        message: 'Function exited due to an error (please check logs)',
      })
    }
    expect(host.output()).toContain('a secret detail')
  })

  it('survives rejections and exceptions that nobody catches', async () => {
    expect(await (await get('/probe?do=stray')).json()).toBe('answered')

    await until(() => host.output().includes('nobody caught this') && host.output().includes('nor this'))
    expect((await get('/outside/greeting')).status).toBe(200)
  })

  it('gives functions the variables of hosted and of the project, and none of the machine', async () => {
    const variables = await (await get('/probe?do=environment')).json()

    expect(variables).toMatchObject({
      MY_SECRET: 'from the project',
      SUPABASE_URL: host.stack.url,
      SUPABASE_ANON_KEY: host.stack.keys.publishable,
      SANDBOX_URL: `${host.stack.url}/sandbox`,
      SB_REGION: 'local',
    })
    expect(JSON.parse(variables.SUPABASE_SECRET_KEYS)).toEqual({ default: host.stack.keys.secret })
    expect(JSON.parse(variables.SUPABASE_JWKS).keys[0]).not.toHaveProperty('d')
    expect(Object.keys(variables)).not.toEqual(expect.arrayContaining(['ONLY_THIS_MACHINE']))
    expect(variables.PATH ?? variables.HOME).toBeUndefined()
  })

  it('passes the pieces of a request body on as they come', async () => {
    const { port } = new URL(host.url)
    const request = http.request({ host: '127.0.0.1', port, path: '/upload', method: 'POST' })
    const response = new Promise<http.IncomingMessage>((resolve) => request.once('response', resolve))
    request.write('first')
    const pieces = (await response).setEncoding('utf8')[Symbol.asyncIterator]()

    expect((await pieces.next()).value).toBe('first')
    request.end('second')

    expect((await pieces.next()).value).toBe('second')
  })

  it('cancels the response stream when the client goes away', async () => {
    const file = join(host.stack.data, 'stream')
    const leave = new AbortController()
    const answer = await get(`/stream?file=${file}`, { signal: leave.signal })
    await answer.body!.getReader().read()

    leave.abort()

    await until(() => read(file) === 'cancelled')
  })

  it('answers web pages as plain text, since hosted does', async () => {
    const answer = await get('/probe?do=html')

    expect(answer.headers.get('content-type')).toBe('text/plain')
    expect(await answer.text()).toBe('<h1>hi</h1>')
  })

  it('diff-functions-1: functions share one process, and with it the state of the modules they share', async () => {
    const first = await (await get('/probe?do=count')).json()

    expect(await (await get('/outside/count')).json()).toBe(first + 1)
  })

  it('diff-functions-2: a function may compute for longer than hosted would let it', async () => {
    const answer = await get('/probe?do=burn&ms=2200')

    expect(answer.status).toBe(200)
  })

  it('diff-functions-3: a deno.json beside a function is not read', async () => {
    const answer = await get('/import-map')

    expect(answer.status).toBe(503)
    expect((await answer.json()).message).toContain('"counter"')
  })

  it('diff-functions-4: a function may write to the disk', async () => {
    const file = join(host.stack.data, 'written')

    await get(`/probe?do=background&ms=0&file=${file}`)

    await until(() => read(file).includes('background finished'))
  })

  describe('verify_jwt', () => {
    const token = async (
      claims: object,
      { key = host.stack.keys.signingKey as never, kid = 'fixture', expires = '1h' } = {},
    ) =>
      new SignJWT({ role: 'authenticated', ...claims })
        .setProtectedHeader({ alg: 'ES256', kid })
        .setIssuer(`${host.stack.url}/auth/v1`)
        .setExpirationTime(expires)
        .sign(await importJWK(key, 'ES256'))
    const call = (authorization?: string, method = 'GET') =>
      get('/hello', { method, headers: authorization ? { authorization } : {} })

    it('lets a valid token of this project in', async () => {
      expect((await call(`Bearer ${await token({})}`)).status).toBe(200)
    })

    it('lets a preflight in', async () => {
      expect(await (await call(undefined, 'OPTIONS')).json()).toEqual({ path: '/hello', method: 'OPTIONS' })
    })

    it('refuses a call without a token, with another project’s, an expired one, or an API key', async () => {
      const stranger = (
        await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign', 'verify'])
      ).privateKey
      const foreign = await crypto.subtle.exportKey('jwk', stranger)
      const bad = [
        undefined,
        'Bearer sb_publishable_fixture',
        'Basic abc',
        `Bearer ${await token({}, { key: foreign as never })}`,
        `Bearer ${await token({}, { expires: '-1s' })}`,
        `Bearer ${btoa('{"alg":"none"}')}.${btoa('{"role":"authenticated","exp":9999999999}')}.`,
      ]
      for (const authorization of bad) {
        const answer = await call(authorization)

        expect(answer.status, authorization).toBe(401)
        expect((await answer.json()).code).toMatch(/^UNAUTHORIZED_/)
      }
    })
  })
})

describe('the life of the host', () => {
  afterEach(() => host.stop())

  it('ends with code 75 when a source file changes, and not for the data folder or an editor’s files', async () => {
    host = await hostProject()
    writeFileSync(join(host.stack.data, 'file.ts'), 'x')
    writeFileSync(join(host.project, 'functions/outside/.index.ts.swp'), 'x')
    // Longer than the host gathers changes for: nothing happens for those two.
    expect(await Promise.race([host.ended, new Promise((resolve) => setTimeout(resolve, 600, 'still serving'))])).toBe(
      'still serving',
    )

    writeFileSync(join(host.project, 'functions/outside/greeting.ts'), `export const greeting = 'changed'\n`)

    expect(await host.ended).toBe(75)
    expect(host.output()).toContain('functions/outside/greeting.ts changed')
  })

  it('finishes what is under way before it starts again', async () => {
    host = await hostProject()
    const file = join(host.stack.data, 'note')
    await get(`/probe?do=background&ms=700&file=${file}`)

    writeFileSync(join(host.project, '.env'), 'NEW=1\n')

    expect(await host.ended).toBe(75)
    expect(read(file)).toBe('background finished\n')
  })

  it('tells functions that it stops, lets background tasks finish, and ends with code 0', async () => {
    host = await hostProject()
    const file = join(host.stack.data, 'note')
    await get(`/probe?do=unload&file=${file}`)
    await get(`/probe?do=background&ms=300&file=${file}`)

    host.child.kill('SIGTERM')

    expect(await host.ended).toBe(0)
    expect(read(file)).toBe('termination\nbackground finished\n')
  })

  it('does not wait for ever for a stream that does not end', async () => {
    host = await hostProject()
    const answer = await get(`/stream?file=${join(host.stack.data, 'stream')}`)
    await answer.body!.getReader().read()
    const asked = Date.now()

    host.child.kill('SIGTERM')

    expect(await host.ended).toBe(0)
    expect(Date.now() - asked).toBeLessThan(5000)
  })

  it('ends when the pipe of its supervisor closes', async () => {
    host = await hostProject()

    host.child.stdin!.end()

    expect(await host.ended).toBe(0)
  })

  it('diff-functions-5: with --wall-clock all functions are killed together, after a last word', async () => {
    host = await hostProject({ wallClockSeconds: 1 })
    const file = join(host.stack.data, 'note')
    expect((await (await get('/probe?do=environment')).json()).WALL_CLOCK_SECONDS).toBe('1')
    await get(`/probe?do=unload&file=${file}`)

    expect(await host.ended).toBe('SIGKILL')
    expect(read(file)).toBe('wall_clock\n')
  })

  it('answers 504 when a function sends no response in time', async () => {
    host = await hostProject({ args: ['--response-seconds=1'] })

    const answer = await get('/probe?do=never')

    expect(answer.status).toBe(504)
    expect((await answer.json()).code).toBe('IDLE_TIMEOUT')
  })

  it('serves the worker alone when asked to, so that it can be killed alone', async () => {
    host = await hostProject({ args: ['worker'] })

    expect(await (await get('/worker')).json()).toEqual({ pid: host.child.pid })
    expect((await get('/outside/greeting')).status).toBe(404)
  })
})

describe('through the gateway', () => {
  it('diff-functions-6: no WebSocket is opened to a function', async () => {
    const headers = {
      connection: 'Upgrade',
      upgrade: 'websocket',
      'sec-websocket-version': '13',
      'sec-websocket-key': btoa('0123456789abcdef'),
    }
    const request = http.get(`${functionsUrl}/health/live`, { headers })

    const status = await new Promise((resolve) => {
      request.once('response', (response) => resolve(response.statusCode))
      request.once('upgrade', () => resolve(101))
    })

    expect(status).toBe(200)
  })

  it('answers 404 JSON for a function that does not exist', async () => {
    const answer = await fetch(`${functionsUrl}/no-such-function/at/all`)

    expect(answer.status).toBe(404)
    expect((await answer.json()).code).toBe('NOT_FOUND')
  })
})
