import { createHmac } from 'node:crypto'
import http from 'node:http'
import { connect, createServer } from 'node:net'
import { exportJWK, generateKeyPair, importJWK, SignJWT } from 'jose'
import { describe, expect, it } from 'vitest'
import { projectStack } from '../support/project.ts'

const api = projectStack('tests/local/fixtures/data-api')
type Headers = Record<string, string>

const at = (path: string, headers: Headers = {}, init: RequestInit = {}) =>
  fetch(`${api.url}${path}`, { ...init, headers })
const rest = (headers: Headers) => at('/rest/v1/many?select=id&limit=1', headers)
const withKey = (headers: Headers = {}) => ({ apikey: api.stack.keys.publishable, ...headers })
const base64url = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')

/** One way into each service that needs a key. */
const GUARDED = [
  '/rest/v1/many',
  '/rest/v1/rpc/who',
  '/auth/v1/user',
  '/auth/v1/admin/users',
  '/storage/v1/bucket',
  '/storage/v1/object/private/x',
  '/realtime/v1/api/broadcast',
]

const UPGRADE = {
  connection: 'Upgrade, close',
  upgrade: 'websocket',
  'sec-websocket-version': '13',
  'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
}

/** Sends bytes as they are, and gives all that comes back. */
function speak(text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let heard = ''
    const socket = connect(api.stack.ports.platform, '127.0.0.1', () => socket.write(text))
    socket.on('data', (chunk) => {
      heard += chunk
    })
    socket.on('close', () => resolve(heard))
    socket.on('error', reject)
  })
}

/** GET where there is something to get; otherwise the one method of the route. */
const method = (path: string) => (path.endsWith('broadcast') ? 'POST' : 'GET')

describe('keys', () => {
  it.each(GUARDED)('%s without a key is 401', async (path) => {
    const response = await at(path, {}, { method: method(path) })

    expect(response.status).toBe(401)
    expect(await response.json()).toMatchObject({ message: 'No API key found in request' })
  })

  it.each(GUARDED)('%s with a wrong key is 401, with a right token beside it as well', async (path) => {
    const wrong = [{ apikey: 'sb_publishable_wrong' }, { apikey: 'sb_secret_wrong' }, { apikey: 'x.y.z' }]
    const authorization = `Bearer ${await api.token()}`

    for (const headers of [...wrong, { ...wrong[0]!, authorization }]) {
      const response = await at(path, headers, { method: method(path) })
      expect(response.status).toBe(401)
      expect(await response.json()).toMatchObject({ message: 'Invalid API key' })
    }
  })

  it('a token alone does not open the Data API', async () => {
    expect((await rest({ authorization: `Bearer ${await api.token()}` })).status).toBe(401)
  })

  it('a key may stand in the address', async () => {
    const response = await at(`/rest/v1/many?select=id&limit=1&apikey=${api.stack.keys.publishable}`)

    expect(await response.json()).toEqual([{ id: 2 }])
  })

  it.each(['/rest/v1/many', '/auth/v1/admin/users', '/storage/v1/bucket'])(
    '%s with the secret key from a browser is 401',
    async (path) => {
      const response = await at(path, {
        apikey: api.stack.keys.secret,
        'user-agent': 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/130.0 Safari/537.36',
      })

      expect(response.status).toBe(401)
      expect(await response.json()).toMatchObject({ message: 'Forbidden use of secret API key in browser' })
    },
  )

  it('the publishable key from a browser passes', async () => {
    expect((await rest(withKey({ 'user-agent': 'Mozilla/5.0 (X11)' }))).status).toBe(200)
  })

  it('diff-gateway-1 a legacy key, a JWT of anon or service_role, is no key here', async () => {
    const legacy = await api.token({ role: 'service_role', sub: undefined })

    expect((await rest({ apikey: legacy, authorization: `Bearer ${legacy}` })).status).toBe(401)
  })

  it('diff-gateway-2 a burst of requests is not limited', async () => {
    const responses = await Promise.all(Array.from({ length: 300 }, () => rest(withKey())))

    expect(new Set(responses.map(({ status }) => status))).toEqual(new Set([200]))
  })

  it('another key as bearer is refused', async () => {
    expect((await rest(withKey({ authorization: 'Bearer sb_secret_wrong' }))).status).toBe(401)
    expect((await rest(withKey({ authorization: `Bearer ${api.stack.keys.secret}` }))).status).toBe(401)
  })
})

describe('an Authorization header without a token', () => {
  const who = async (headers: Headers) =>
    (
      await (
        await at('/rest/v1/rpc/who', { ...headers, 'content-type': 'application/json' }, { method: 'POST', body: '{}' })
      ).json()
    ).role

  it.each(['Basic dXNlcjpwYXNz', 'Negotiate x', 'Token x', 'Bearerx y'])(
    '"%s" makes a visitor of any key',
    async (authorization) => {
      expect(await who({ apikey: api.stack.keys.secret })).toBe('service_role')

      expect(await who({ apikey: api.stack.keys.secret, authorization })).toBe('anon')
      expect(await who({ apikey: api.stack.keys.publishable, authorization })).toBe('anon')
    },
  )

  it('with an empty one it is refused', async () => {
    const response = await rest(withKey({ authorization: 'Bearer' }))

    expect([response.status, (await response.json()).code]).toEqual([401, 'PGRST301'])
  })

  it('opens neither Storage nor accounts', async () => {
    for (const apikey of [api.stack.keys.publishable, api.stack.keys.secret]) {
      const headers = { apikey, authorization: 'Basic dXNlcjpwYXNz' }
      const bucket = await at('/storage/v1/bucket', headers)
      expect([bucket.status, (await bucket.json()).statusCode]).toEqual([400, '403'])
      for (const path of ['/auth/v1/user', '/auth/v1/admin/users']) {
        expect([path, (await at(path, headers)).ok]).toEqual([path, false])
      }
    }
  })
})

describe('tokens', () => {
  const refusal = async (token: string) => {
    const response = await rest(withKey({ authorization: `Bearer ${token}` }))
    return [response.status, (await response.json()).code, response.headers.get('www-authenticate') !== null]
  }
  const bent = async (change: (payload: Record<string, unknown>) => void) => {
    const [header, payload, signature] = (await api.token()).split('.')
    const claims = JSON.parse(Buffer.from(payload!, 'base64url').toString())
    change(claims)
    return `${header}.${base64url(claims)}.${signature}`
  }

  it('a good one passes, and every one after it', async () => {
    const authorization = `Bearer ${await api.token()}`

    expect((await rest(withKey({ authorization }))).status).toBe(200)
    expect((await rest(withKey({ authorization }))).status).toBe(200)
  })

  it.each(['service_role', 'postgres', 'supabase_admin'])(
    'a role changed to %s after signing is refused',
    async (role) => {
      const token = await bent((claims) => {
        claims.role = role
      })

      expect(await refusal(token)).toEqual([401, 'PGRST301', true])
    },
  )

  it.each(['postgres', 'supabase_admin', 'rest', 'pg_read_all_data', '', 'anon; reset role'])(
    'a token signed for the role "%s" is refused',
    async (role) => {
      expect(await refusal(await api.token({ role }))).toEqual([401, 'PGRST303', true])
    },
  )

  it('one without role or expiry is refused', async () => {
    expect((await refusal(await api.token({ role: undefined })))[0]).toBe(401)
    expect((await refusal(await api.token({ exp: undefined })))[0]).toBe(401)
    expect((await refusal(await api.token({ exp: 'never' })))[0]).toBe(401)
  })

  it('an expired one is PGRST303, within 30 s of clock difference it passes', async () => {
    const now = Math.floor(Date.now() / 1000)

    expect(await refusal(await api.token({ exp: now - 60 }))).toEqual([401, 'PGRST303', true])
    expect((await rest(withKey({ authorization: `Bearer ${await api.token({ exp: now - 5 })}` }))).status).toBe(200)
  })

  it('one that is remembered ends at its expiry all the same', async () => {
    const authorization = `Bearer ${await api.token({ exp: Math.floor(Date.now() / 1000) - 28 })}`
    expect((await rest(withKey({ authorization }))).status).toBe(200)

    await expect
      .poll(async () => (await rest(withKey({ authorization }))).status, { timeout: 8_000, interval: 200 })
      .toBe(401)
  })

  it('one that begins later is refused', async () => {
    expect((await refusal(await api.token({ nbf: Math.floor(Date.now() / 1000) + 600 })))[0]).toBe(401)
  })

  it('those of another key, of another stack and with another kid are refused', async () => {
    const { privateKey, publicKey } = await generateKeyPair('ES256')
    const claims = { role: 'service_role', exp: Math.floor(Date.now() / 1000) + 600 }
    const kid = api.stack.keys.signingKey.kid
    const foreign = await new SignJWT(claims).setProtectedHeader({ alg: 'ES256', kid }).sign(privateKey)
    const own = await new SignJWT(claims)
      .setProtectedHeader({ alg: 'ES256', kid, jwk: (await exportJWK(publicKey)) as never })
      .sign(privateKey)

    for (const token of [foreign, own]) expect((await refusal(token))[1]).toBe('PGRST301')
    expect((await refusal(await api.token({}, { header: { kid: 'other' } })))[1]).toBe('PGRST301')
  })

  it('no other algorithm is accepted, whatever it is signed with', async () => {
    const claims = { role: 'service_role', exp: Math.floor(Date.now() / 1000) + 600 }
    const {
      keys,
      keys: { signingKey },
    } = api.stack
    const hs256 = (secret: string | Buffer) => {
      const input = `${base64url({ alg: 'HS256', typ: 'JWT', kid: signingKey.kid })}.${base64url(claims)}`
      return `${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`
    }
    const pem = JSON.stringify({ kty: signingKey.kty, crv: signingKey.crv, x: signingKey.x, y: signingKey.y })

    for (const token of [
      hs256(keys.jwtSecret),
      hs256(Buffer.from(keys.jwtSecret, 'base64url')),
      hs256(pem),
      hs256('super-secret-jwt-token-with-at-least-32-characters-long'),
      `${base64url({ alg: 'none' })}.${base64url(claims)}.`,
      `${base64url({ alg: 'none' })}.${base64url(claims)}.x`,
    ]) {
      expect((await refusal(token))[0]).toBe(401)
    }
  })

  it.each(['x', 'a.b', 'a.b.c', 'a.b.c.d', '..', `${'a'.repeat(20_000)}.b.c`])('"%s" is malformed', async (token) => {
    expect((await refusal(token)).slice(0, 2)).toEqual([401, 'PGRST301'])
  })

  it('claims that are no object are refused', async () => {
    const key = await importJWK(api.stack.keys.signingKey, 'ES256')
    const { CompactSign } = await import('jose')
    const token = await new CompactSign(new TextEncoder().encode('"text"'))
      .setProtectedHeader({ alg: 'ES256', kid: api.stack.keys.signingKey.kid })
      .sign(key)

    expect((await refusal(token)).slice(0, 2)).toEqual([401, 'PGRST301'])
  })
})

describe('routes', () => {
  it.each([
    '/',
    '/_system/info',
    '/_system/config',
    '/_system/introspect',
    '/rest/v1/../../_system/info',
    '/restful',
    '/pg',
    '/index.html',
  ])('%s is 404', async (path) => {
    const response = await at(path, { apikey: api.stack.keys.secret })

    expect(response.status).toBe(404)
    expect(await response.text()).not.toContain('postgres')
  })

  it('an answer never holds a password or key of the stack', async () => {
    const { passwords } = api.stack.database
    const secrets = [
      ...Object.values(passwords),
      api.stack.keys.jwtSecret,
      api.stack.keys.secret,
      api.stack.keys.signingKey.d!,
    ]
    for (const path of [
      '/rest/v1/',
      '/rest/v1/nowhere',
      '/auth/v1/settings',
      '/auth/v1/.well-known/jwks.json',
      '/storage/v1/bucket',
    ]) {
      const text = await (await at(path, { apikey: api.stack.keys.secret })).text()
      for (const secret of secrets) expect(text).not.toContain(secret)
    }
  })

  it('the public keys need no key and verify a token', async () => {
    const { keys } = await (await at('/auth/v1/.well-known/jwks.json')).json()

    expect(keys).toHaveLength(1)
    expect(keys[0]).toMatchObject({ kty: 'EC', crv: 'P-256', alg: 'ES256', kid: api.stack.keys.signingKey.kid })
    expect(keys[0].d).toBeUndefined()
  })

  it('a request without a usable host is 400, and the next one is served', async () => {
    for (const host of ['bad host', '[::1', 'a/b', '']) {
      const answer = await speak(`GET /rest/v1/many HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)
      expect(answer).toMatch(/^HTTP\/1\.1 4\d\d /)
    }
    expect((await rest(withKey())).status).toBe(200)
  })

  it.each([
    ['/rest/v1/many', {}],
    ['/auth/v1/.well-known/jwks.json', {}],
    ['/storage/v1/object/public/pictures/x', {}],
    ['/realtime/v1/websocket?vsn=1.0.0', UPGRADE],
    ['/functions/v1/echo', {}],
    ['/functions/v1/worker', {}],
    ['/sandbox/inbox', {}],
    ['/sandbox', {}],
    ['/nowhere', {}],
  ] as [string, Headers][])('%s is 403 under any name but those of this machine', async (path, headers) => {
    const { port } = new URL(api.url)
    const wanted = { apikey: api.stack.keys.publishable, connection: 'close', ...headers }
    const lines = Object.entries(wanted).map(([name, value]) => `${name}: ${value}\r\n`)
    for (const host of [
      'rebound.example',
      `rebound.example:${port}`,
      `127.0.0.1.rebound.example:${port}`,
      `localhost.rebound.example:${port}`,
      `0.0.0.0:${port}`,
      '[::ffff:a00:1]',
    ]) {
      for (const method of ['GET', 'OPTIONS']) {
        const answer = await speak(`${method} ${path} HTTP/1.1\r\nHost: ${host}\r\n${lines.join('')}\r\n`)
        expect([host, answer.split('\r\n')[0]]).toEqual([host, 'HTTP/1.1 403 Forbidden'])
        expect(answer).toMatch(/\{"message":"[^"]+"/)
      }
    }
  })

  it('the names of this machine are answered, with any port and in any case', async () => {
    const { port } = new URL(api.url)
    for (const host of [
      `127.0.0.1:${port}`,
      `localhost:${port}`,
      'LOCALHOST',
      '127.0.0.1',
      `[::1]:${port}`,
      '[::1]:1',
    ]) {
      const answer = await speak(
        `GET /rest/v1/many?limit=1 HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\napikey: ${api.stack.keys.publishable}\r\n\r\n`,
      )
      expect([host, answer.split('\r\n')[0]]).toEqual([host, 'HTTP/1.1 200 OK'])
    }
  })

  it('the port listens on loopback alone', async () => {
    const server = createServer()
    const free = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false))
      server.listen(api.stack.ports.platform, '127.0.0.2', () => resolve(true))
    })
    server.close()

    expect(free).toBe(true)
  })

  it('a channel of Realtime is reached through the same address', async () => {
    const client = api.client(await api.token())
    const status = await new Promise((resolve) => client.channel('room').subscribe(resolve))

    expect(status).toBe('SUBSCRIBED')
    await client.removeAllChannels()
  })
})

describe('browsers', () => {
  const origin = 'https://app.example'

  it.each([
    '/rest/v1/many',
    '/auth/v1/token?grant_type=password',
    '/storage/v1/object/list/private',
    '/realtime/v1/api/broadcast',
  ])('a preflight to %s allows the headers it asks for', async (path) => {
    const response = await at(
      path,
      {
        origin,
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'apikey,authorization,content-type,x-client-info,prefer',
      },
      { method: 'OPTIONS' },
    )

    expect(response.status).toBe(200)
    expect(response.headers.get('access-control-allow-origin')).toBe('*')
    expect(response.headers.get('access-control-allow-headers')).toContain('x-client-info')
    expect(response.headers.get('access-control-allow-methods')).toContain('PATCH')
  })

  it('answers and refusals can be read by any page', async () => {
    for (const [path, headers] of [
      ['/rest/v1/many?limit=1', withKey()],
      ['/rest/v1/many', {}],
      ['/rest/v1/nowhere', withKey()],
      ['/auth/v1/user', withKey()],
      ['/auth/v1/user', {}],
      ['/storage/v1/object/public/none/x', {}],
    ] as [string, Headers][]) {
      const response = await at(path, { origin, ...headers })
      expect(response.headers.get('access-control-allow-origin')).toBe('*')
      expect(response.headers.get('access-control-expose-headers')).toContain('Content-Range')
    }
  })

  it('a function answers for itself', async () => {
    const response = await at('/functions/v1/echo', { origin })

    expect(response.headers.get('access-control-allow-origin')).toBe('https://only.example')
  })
})

describe('functions', () => {
  it('a function sees method, path, query, headers and body, and the host that was asked', async () => {
    const response = await at(
      '/functions/v1/echo/a/b?x=1&y=%20',
      { 'x-probe': 'yes' },
      { method: 'PUT', body: 'twelve bytes' },
    )

    expect(await response.json()).toMatchObject({
      method: 'PUT',
      path: '/echo/a/b?x=1&y=%20',
      bytes: 12,
      headers: { 'x-probe': 'yes', 'x-forwarded-host': new URL(api.url).host },
    })
  })

  it('a function is told the address of the caller, not the one that the caller claims', async () => {
    const response = await at('/functions/v1/echo', { 'x-forwarded-for': '203.0.113.9' })

    expect((await response.json()).headers['x-forwarded-for']).toBe('127.0.0.1')
  })

  it('an upload of unknown length and of 20 MB arrives whole', async () => {
    const response = await at('/functions/v1/echo', {}, {
      method: 'POST',
      body: new Blob([new Uint8Array(20 * 1024 * 1024)]).stream(),
      duplex: 'half',
    } as RequestInit)

    expect((await response.json()).bytes).toBe(20 * 1024 * 1024)
  })

  it('a stream arrives piece by piece, and ends in the function when the reader leaves', async () => {
    const count = async () => (await (await at('/functions/v1/echo/cancelled')).json()).cancelled
    const before = await count()
    const gone = new AbortController()
    const response = await at('/functions/v1/echo/stream', {}, { signal: gone.signal })
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader()

    const pieces = [await reader.read(), await reader.read(), await reader.read()].map(({ value }) => value)
    gone.abort()
    await reader.closed.catch(() => {})

    expect(pieces).toEqual(['data: 0\n\n', 'data: 1\n\n', 'data: 2\n\n'])
    await expect.poll(count, { timeout: 5_000 }).toBe(before + 1)
  })

  it('a compressed answer is passed on as it is', async () => {
    const packed = await new Promise<{ encoding: unknown; start: number[] }>((resolve, reject) => {
      http
        .get(`${api.url}/functions/v1/echo/gzip`, (answer) => {
          answer.once('data', (chunk) => {
            resolve({ encoding: answer.headers['content-encoding'], start: [chunk[0], chunk[1]] })
            answer.destroy()
          })
        })
        .on('error', reject)
    })

    expect(packed).toEqual({ encoding: 'gzip', start: [0x1f, 0x8b] })
    expect(await (await at('/functions/v1/echo/gzip')).text()).toBe('packed '.repeat(500))
  })

  it('a function hears of no encoding that the caller did not offer', async () => {
    const heard = await new Promise<string>((resolve, reject) => {
      // node:http sends no Accept-Encoding of its own, as curl.
      http
        .get(`${api.url}/functions/v1/echo`, (answer) => {
          let text = ''
          answer.setEncoding('utf8').on('data', (chunk) => {
            text += chunk
          })
          answer.on('end', () => resolve(text))
        })
        .on('error', reject)
    })

    expect(JSON.parse(heard).headers['accept-encoding']).toBe('identity')
  })

  it('an answer that breaks off looks broken', async () => {
    const response = await at('/functions/v1/echo/cut')

    await expect(response.text()).rejects.toThrow()
  })

  it('an answer without a body keeps its headers', async () => {
    const response = await at('/functions/v1/echo/status')

    expect([response.status, response.headers.get('x-said')]).toEqual([204, 'no content'])
  })
})

describe('the database goes away', () => {
  it('requests under way are answered or refused, none with the rights of another, and then all goes on', async () => {
    const sql = api.sql('supabase_admin')
    const client = api.client()
    const answers = Array.from({ length: 200 }, async (_, i) => {
      await new Promise((resolve) => setTimeout(resolve, i * 3))
      return await client.rpc('who')
    })
    const killing = setInterval(
      () => sql`select pg_terminate_backend(pid) from pg_stat_activity where usename = 'rest'`.catch(() => {}),
      20,
    )
    const results = await Promise.all(answers)
    clearInterval(killing)

    for (const { data, error, status } of results) {
      if (error) expect([status, error.code]).toEqual([503, 'PGRST001'])
      else expect(data).toMatchObject({ role: 'anon' })
    }
    await expect.poll(async () => (await client.rpc('who')).status, { timeout: 10_000 }).toBe(200)
  })
})
