import { deepEqual, equal, match, ok, throws } from 'node:assert/strict'
import { MissingVariable, readEnv } from '../../functions/_shared/env.ts'
import { createService } from '../../functions/_shared/http.ts'
import { createLog, sentryReporter } from '../../functions/_shared/log.ts'
import { wallClock } from '../../functions/_shared/wall-clock.ts'

const variables: Record<string, string> = {
  SUPABASE_URL: 'http://127.0.0.1:1/',
  SUPABASE_DB_URL: 'postgresql://postgres:secret@127.0.0.1:1/postgres',
  SUPABASE_PUBLISHABLE_KEYS: '{"default":"sb_publishable_x"}',
  SUPABASE_SECRET_KEYS: '{"default":"sb_secret_x"}',
}
const env = (changes: Record<string, string | undefined> = {}) => {
  const all: Record<string, string | undefined> = { ...variables, ...changes }
  return readEnv((name) => all[name])
}

Deno.test('a missing variable is named at once', () => {
  for (const name of Object.keys(variables)) {
    throws(
      () => env({ [name]: undefined }),
      (error) => error instanceof MissingVariable && error.message.includes(name),
    )
  }
  throws(() => env({ SUPABASE_SECRET_KEYS: 'no json' }), /SUPABASE_SECRET_KEYS/)
  throws(() => env({ LOG_LEVEL: 'loud' }), /LOG_LEVEL/)
  throws(() => env({ WALL_CLOCK_SECONDS: 'long' }), /WALL_CLOCK_SECONDS/)
})

Deno.test('a variable that only some need is asked for when it is needed', () => {
  throws(() => env().workerSecret, /WORKER_SECRET/)
  equal(env({ WORKER_SECRET: 'w' }).workerSecret, 'w')
})

Deno.test('a provider is configured when its key is there, and where it is may be changed', () => {
  const names = { base_url_env: 'X_URL', api_key_env: 'X_KEY', default_base_url: 'https://x.test/v1' }
  equal(env().provider(names), null)
  deepEqual(env({ X_KEY: 'k' }).provider(names), { baseURL: 'https://x.test/v1', apiKey: 'k' })
  deepEqual(env({ X_KEY: 'k', X_URL: 'http://y' }).provider(names), { baseURL: 'http://y', apiKey: 'k' })
  equal(env({ X_KEY: 'k' }).provider({ ...names, default_base_url: null }), null)
})

Deno.test('a project has named keys, a legacy one, or both', () => {
  const legacy = { SUPABASE_ANON_KEY: 'eyJ.a.b' }
  deepEqual(env(legacy).keys.publishable, { legacy: 'eyJ.a.b', default: 'sb_publishable_x' })
  const { keys } = env({ ...legacy, SUPABASE_PUBLISHABLE_KEYS: undefined })
  deepEqual(keys.publishable, { legacy: 'eyJ.a.b' })
})

Deno.test('only pages of a listed origin may read answers', async () => {
  const app = createService(env({ CORS_ORIGINS: 'https://a.test', LOG_LEVEL: 'error' }), 'x').get('/', (c) =>
    c.text('ok'),
  )
  const allowed = async (origin: string, method = 'GET') =>
    (await app.request('/x', { method, headers: { origin } })).headers.get('access-control-allow-origin')
  equal(await allowed('https://a.test'), 'https://a.test')
  equal(await allowed('https://a.test', 'OPTIONS'), 'https://a.test')
  equal(await allowed('https://a.test.evil.test'), null)
  equal(await allowed('https://evil.test', 'OPTIONS'), null)
})

Deno.test('origins of pages are any, or a list', () => {
  equal(env().corsOrigins, '*')
  deepEqual(env({ CORS_ORIGINS: 'https://a.test/, https://b.test' }).corsOrigins, ['https://a.test', 'https://b.test'])
})

Deno.test('a log line carries no content, no secret and no address, and keeps to its level', () => {
  const lines: string[] = []
  const log = createLog({ level: 'info', write: (line) => lines.push(line) })
  log.debug('hidden')
  log.info('seen', {
    user_id: '1',
    content: 'dear diary',
    note: 'by ann@example.com with Bearer abc and sb_secret_123456',
  })
  const quoted = Object.assign(new Error('Key (email)=(ann@example.com) exists'), {
    code: '23505',
    name: 'PostgresError',
  })
  log.error('failed', {}, quoted)
  equal(lines.length, 2)
  for (const line of lines) ok(!/diary|ann@|abc|123456/.test(line), line)
  const [seen, failed] = lines.map((line) => JSON.parse(line))
  deepEqual([seen.level, seen.event, seen.user_id], ['info', 'seen', '1'])
  deepEqual([failed.error.name, failed.error.code], ['PostgresError', '23505'])
})

Deno.test('nothing of a message reaches the log, however it is written', () => {
  const lines: string[] = []
  const log = createLog({ level: 'info', write: (line) => lines.push(line) })
  const frame = '    at her diary, page 3'
  log.error('x', {}, new Error(`invalid input: "Dear diary\n${frame}\n${frame}"`))
  log.error('x', {}, Object.assign(new Error('y'), { name: 'Dear diary', code: 'I met somebody at the diary' }))
  log.error('x', {}, { name: 'her diary', code: 'sk-abcdefghijkl' })
  log.error('x', {}, new TypeError(`${'.'.repeat(280)} postgresql://postgres:her-diary@db.test/postgres`))
  log.error(
    'x',
    {},
    new TypeError('error sending request for url (https://x.test/v1?key=her-diary-1&token=her-diary-2)'),
  )
  equal(lines.length, 5)
  for (const line of lines) ok(!/diary|sk-abc/.test(line), line)
  ok(JSON.parse(lines[0]!).error.at.length > 0)
})

Deno.test('a secret key of either kind is refused to a browser', async () => {
  const legacy = 'eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.x'
  const app = createService(env({ SUPABASE_SERVICE_ROLE_KEY: legacy, LOG_LEVEL: 'error' }), 'x').get('/', (c) =>
    c.text('ok'),
  )
  for (const key of ['sb_secret_x', legacy]) {
    for (const headers of [{ apikey: key }, { authorization: `Bearer ${key}` }]) {
      const ask = (more: HeadersInit) => app.request('/x', { headers: { ...headers, ...more } as HeadersInit })
      equal((await ask({ 'user-agent': 'Mozilla/5.0' })).status, 401)
      equal((await ask({ 'sec-fetch-site': 'same-origin' })).status, 401)
      equal((await ask({})).status, 200)
    }
  }
})

Deno.test('errors go to the tracker whose DSN is set, redacted', async () => {
  const received: string[] = []
  const server = Deno.serve({ port: 0, hostname: '127.0.0.1', onListen() {} }, async (request) => {
    received.push(`${new URL(request.url).pathname} ${request.headers.get('x-sentry-auth')} ${await request.text()}`)
    return new Response()
  })
  const work: Promise<unknown>[] = []
  const report = sentryReporter(`http://key@127.0.0.1:${server.addr.port}/prefix/42`, '1.0.0', (sent) =>
    work.push(sent),
  )
  const log = createLog({ level: 'info', write() {}, report })

  log.error('failed', { user_id: '1', text: 'dear diary' }, new TypeError('x is undefined'))
  log.warn('not reported')
  await Promise.all(work)
  await server.shutdown()

  equal(received.length, 1)
  match(received[0]!, /^\/prefix\/api\/42\/envelope\/ Sentry .*sentry_key=key/)
  match(received[0]!, /"type":"TypeError","value":"x is undefined"/)
  ok(!received[0]!.includes('diary'))
})

Deno.test('work is handed on before the wall clock, and not for ever when the platform gives more', () => {
  let now = 0
  const clock = wallClock(150, () => now)
  clock.touch()
  equal(clock.remaining(), 140_000)
  now = 145_000
  equal(clock.remaining(), 0)
  now = 153_000
  equal(clock.remaining(), 140_000)
  equal(wallClock(0).remaining(), Number.POSITIVE_INFINITY)
})
