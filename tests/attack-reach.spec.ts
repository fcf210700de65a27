import { connect } from 'node:net'
import { describe, expect, it } from 'vitest'
import { publishableKey, secretKey, signUp, url } from './support/local.ts'

describe('tables that the API does not expose', () => {
  it.each([
    'app_roles',
    'app_roles!app_roles_user_id_fkey',
    'app_roles!app_roles_granted_by_fkey',
    'users',
    'users!profiles_id_fkey',
    'watch_leases',
    'owners',
    'reserved_usernames',
    'idempotency_keys',
    'outbox',
  ])('%s is not embedded, and nothing tells that it is there', async (table) => {
    const { token } = await signUp()

    const response = await fetch(`${url}/rest/v1/profiles?select=id,${table}(*)`, {
      headers: { apikey: publishableKey, authorization: `Bearer ${token}` },
    })
    const body = await response.json()

    expect([response.status, body.code]).toEqual([400, 'PGRST200'])
    expect(JSON.stringify(body)).not.toMatch(/private|auth\.|_fkey using/)
  })
})

describe('the description of the API', () => {
  it.each(['/', '', '//', '/profiles/', '/rpc/me/', '/rpc/', '/profiles//', '//profiles'])(
    'is not given to a visitor or user under %s',
    async (path) => {
      const { token } = await signUp()

      for (const bearer of [publishableKey, token]) {
        const headers = { apikey: publishableKey, authorization: `Bearer ${bearer}` }
        const response = await fetch(`${url}/rest/v1${path}`, { headers })

        expect([403, 404]).toContain(response.status)
        expect(await response.text()).not.toContain('swagger')
      }
    },
  )
})

/** One request written by hand: `fetch` corrects what is wrong with a method or a host. */
function handWritten(start: string, headers: Record<string, string>): Promise<string> {
  const lines = [
    start,
    ...Object.entries({ connection: 'close', ...headers }).map(([name, value]) => `${name}: ${value}`),
  ]
  return new Promise((resolve, reject) => {
    const socket = connect(Number(new URL(url).port), '127.0.0.1', () => socket.write(`${lines.join('\r\n')}\r\n\r\n`))
    let answer = ''
    socket.on('data', (piece) => {
      answer += piece
    })
    socket.on('close', () => resolve(answer))
    socket.on('error', reject)
  })
}

describe('requests that no client writes', () => {
  const host = new URL(url).host

  it.each(['PROPFIND', 'PURGE', 'TRACE', 'get', 'X'])('%s is no method of the Data API', async (method) => {
    const answer = await handWritten(`${method} /rest/v1/profiles?limit=1 HTTP/1.1`, { host, apikey: publishableKey })

    expect(answer).toMatch(/^HTTP\/1\.1 405 /)
    expect(answer).toContain('"PGRST117"')
  })

  it('a host that is none is a bad request', async () => {
    const answer = await handWritten('GET /rest/v1/profiles HTTP/1.1', { host: '[', apikey: publishableKey })

    expect(answer).toMatch(/^HTTP\/1\.1 400 /)
  })
})

describe('a secret key', () => {
  const browser = { 'user-agent': 'Mozilla/5.0 (X11; Linux x86_64)' }

  it.each([
    ['beside the publishable key', { apikey: publishableKey }],
    ['alone', {}],
  ])('opens nothing to a browser as bearer %s', async (_how, apikey: Record<string, string>) => {
    for (const path of ['/auth/v1/admin/users', '/storage/v1/bucket', '/rest/v1/jobs']) {
      const headers = { authorization: `Bearer ${secretKey}`, ...browser, ...apikey }
      const response = await fetch(`${url}${path}`, { headers })

      expect([path, response.ok]).toEqual([path, false])
    }
  })
})

it('a list of Storage is not asked for in megabytes', async () => {
  const { token } = await signUp()

  const response = await fetch(`${url}/storage/v1/object/list/avatars`, {
    method: 'POST',
    headers: { apikey: publishableKey, authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ prefix: 'x'.repeat(2 * 1024 * 1024) }),
  })

  expect((await response.json()).statusCode).toBe('413')
})
