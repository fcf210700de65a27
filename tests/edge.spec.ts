import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { exportJWK, generateKeyPair, importJWK, SignJWT } from 'jose'
import { beforeAll, describe, expect, it } from 'vitest'
import { attach, marker, readAll, send, startTalk, type Talk } from './support/chat.ts'
import { database, functionsUrl, publishableKey, secretKey, signUp, stack, until, url } from './support/local.ts'

let talk: Talk
beforeAll(async () => {
  talk = await startTalk()
})

const bearer = (token: string) => ({ authorization: `Bearer ${token}` })
const json = { 'content-type': 'application/json' }

/** Every route that takes a user's token, with a request that would do. */
const userRoutes = () =>
  [
    ['POST', '/chat/messages', JSON.stringify({ conversation_id: talk.conversationId, content: 'Hello?' })],
    ['GET', `/chat/generations/${randomUUID()}/stream`, undefined],
    ['POST', `/chat/generations/${randomUUID()}/cancel`, undefined],
    ['DELETE', '/account', undefined],
    ['POST', '/characters/import?age=30', JSON.stringify({ name: 'Mira', first_mes: 'Hello.' })],
    ['GET', `/characters/${randomUUID()}/export`, undefined],
    ['POST', `/characters/${randomUUID()}/lorebook`, JSON.stringify({ spec: 'lorebook_v3', data: {} })],
    ['GET', `/characters/${randomUUID()}/lorebook`, undefined],
  ] as const

const bodyRoutes = [
  ['/chat/messages', () => bearer(talk.person.token)],
  ['/health/echo', () => ({})],
] as const

async function problemOf(response: Response) {
  expect(response.headers.get('content-type')).toBe('application/problem+json')
  const body = await response.json()
  expect(body).toMatchObject({
    type: expect.any(String),
    title: expect.any(String),
    status: response.status,
    detail: expect.any(String),
    code: expect.stringMatching(/^[a-z_]+$/),
  })
  return body
}

/** What a request may leave behind: rows of the conversation. */
const traces = async () =>
  (await database()`select count(*)::int as n from public.messages where conversation_id = ${talk.conversationId}`)[0]!
    .n

describe('a token that is wrong', () => {
  const sign = async (
    claims: object,
    { key = stack.keys.signingKey as object, kid = stack.keys.signingKey.kid } = {},
  ) => {
    const now = Math.floor(Date.now() / 1000)
    return await new SignJWT({
      iss: `${url}/auth/v1`,
      aud: 'authenticated',
      role: 'authenticated',
      sub: talk.person.id,
      iat: now,
      exp: now + 600,
      ...claims,
    })
      .setProtectedHeader({ alg: 'ES256', kid })
      .sign((await importJWK(key as never, 'ES256')) as never)
  }
  const parts = (token: string) => token.split('.') as [string, string, string]
  const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const now = Math.floor(Date.now() / 1000)

  const wrong: Record<string, [token: () => Promise<string> | string, code?: string]> = {
    expired: [() => sign({ iat: now - 7200, exp: now - 3600 }), 'token_expired'],
    'without an end': [() => sign({ exp: undefined })],
    'of another project': [() => sign({ iss: 'https://other.supabase.co/auth/v1' })],
    'for another audience': [() => sign({ aud: 'somebody' })],
    'of role anon': [() => sign({ role: 'anon' })],
    'of role service_role': [() => sign({ role: 'service_role' })],
    'without a subject': [() => sign({ sub: undefined })],
    'with a subject that is no user id': [() => sign({ sub: "' or true --" })],
    'signed with a foreign key under the known name': [
      async () =>
        sign({}, { key: await exportJWK((await generateKeyPair('ES256', { extractable: true })).privateKey) }),
    ],
    'signed with a foreign key under its own name': [
      async () =>
        sign(
          {},
          {
            key: await exportJWK((await generateKeyPair('ES256', { extractable: true })).privateKey),
            kid: randomUUID(),
          },
        ),
    ],
    'with its role changed afterwards': [
      () => {
        const [header, payload, signature] = parts(talk.person.token)
        const claims = JSON.parse(Buffer.from(payload, 'base64url').toString())
        return [header, encode({ ...claims, role: 'service_role' }), signature].join('.')
      },
    ],
    'unsigned (alg none)': [() => `${encode({ alg: 'none', typ: 'JWT' })}.${parts(talk.person.token)[1]}.`],
    'signed with the public key as a secret (HS256)': [
      async () => {
        const { d: _, ...publicKey } = stack.keys.signingKey
        return new SignJWT({ role: 'authenticated', sub: talk.person.id, aud: 'authenticated', exp: now + 600 })
          .setProtectedHeader({ alg: 'HS256', kid: stack.keys.signingKey.kid })
          .setIssuer(`${url}/auth/v1`)
          .sign(new TextEncoder().encode(JSON.stringify(publicKey)))
      },
    ],
    'not a token at all': [() => 'abc'],
    'a publishable key': [() => publishableKey, 'sign_in_required'],
    'a secret key': [() => secretKey],
  }

  it.each(Object.entries(wrong))('is refused on every route: %s', async (_, [make, code = 'token_invalid']) => {
    const token = await make()
    const before = await traces()

    for (const [method, path, body] of userRoutes()) {
      const response = await fetch(`${functionsUrl}${path}`, { method, headers: { ...bearer(token), ...json }, body })
      expect([path, response.status]).toEqual([path, 401])
      expect(response.headers.get('www-authenticate')).toBe('Bearer')
      expect(await problemOf(response)).toMatchObject({ code })
    }

    expect(await traces()).toBe(before)
  })

  it('a missing one asks to sign in', async () => {
    for (const [method, path, body] of userRoutes()) {
      const response = await fetch(`${functionsUrl}${path}`, { method, headers: json, body })
      expect(response.status).toBe(401)
      expect(await problemOf(response)).toMatchObject({ code: 'sign_in_required' })
    }
  })
})

describe('a key that is wrong', () => {
  it('is refused, also where none is needed', async () => {
    const response = await fetch(`${functionsUrl}/health`, { headers: { apikey: 'sb_publishable_wrong' } })

    expect(response.status).toBe(401)
  })

  it.each<Record<string, string>>([
    { 'user-agent': 'Mozilla/5.0 (X11; Linux x86_64)' },
    { 'sec-fetch-site': 'cross-site' },
  ])('because it is secret and comes from a browser is refused (%o)', async (browser) => {
    for (const key of [{ apikey: secretKey }, bearer(secretKey)]) {
      const response = await fetch(`${functionsUrl}/health`, { headers: { ...browser, ...key } })
      expect(response.status).toBe(401)
    }
  })

  it('beside a good token is not overlooked', async () => {
    const response = await send(talk, { headers: { apikey: 'nonsense' } })

    expect(response.status).toBe(401)
  })
})

describe('a body that is wrong', () => {
  it.each(bodyRoutes)('because it is no JSON gets 400, and leaves no trace (%s)', async (path, headers) => {
    for (const body of ['{"content": ', '', 'null garbage', Buffer.from([0x7b, 0xff, 0x7d])]) {
      const response = await fetch(`${functionsUrl}${path}`, {
        method: 'POST',
        headers: { ...headers(), ...json },
        body,
      })
      expect(response.status).toBe(400)
      expect(await problemOf(response)).toMatchObject({ code: 'body_unreadable' })
    }
  })

  it.each(bodyRoutes)('because it is not said to be JSON gets 415 (%s)', async (path, headers) => {
    const response = await fetch(`${functionsUrl}${path}`, { method: 'POST', headers: headers(), body: '{}' })

    expect(response.status).toBe(415)
    expect(await problemOf(response)).toMatchObject({ code: 'content_type_unsupported' })
  })

  it.each(bodyRoutes)('because it has 2 MB gets 413, also when its length is not told (%s)', async (path, headers) => {
    const body = JSON.stringify({ content: 'a'.repeat(2 * 1024 * 1024) })
    const streamed = new ReadableStream({
      start(controller) {
        for (let at = 0; at < body.length; at += 65536) controller.enqueue(Buffer.from(body.slice(at, at + 65536)))
        controller.close()
      },
    })

    for (const sent of [body, streamed]) {
      const response = await fetch(`${functionsUrl}${path}`, {
        method: 'POST',
        headers: { ...headers(), ...json },
        body: sent,
        duplex: 'half',
      } as RequestInit)
      expect(response.status).toBe(413)
      expect(await problemOf(response)).toMatchObject({ code: 'body_too_large' })
    }
  })

  it.each(bodyRoutes)('because it is JSON of another kind gets 422 (%s)', async (path, headers) => {
    for (const body of ['null', '[]', '"text"', '1']) {
      const response = await fetch(`${functionsUrl}${path}`, {
        method: 'POST',
        headers: { ...headers(), ...json },
        body,
      })
      expect(response.status).toBe(422)
      expect(await problemOf(response)).toMatchObject({ code: 'request_invalid', errors: [{ pointer: '#' }] })
    }
  })

  const fields: [name: string, body: Record<string, unknown>, pointer: string, code: string][] = [
    ['a field of another type', { content: 5 }, '#/content', 'invalid_type'],
    ['a missing field', { content: undefined }, '#/content', 'invalid_type'],
    ['an unknown field', { temperature: 2 }, '#/temperature', 'unknown_field'],
    ['an unknown field whose name needs escaping', { 'a/b~c "d"': 1 }, '#/a~1b~0c%20%22d%22', 'unknown_field'],
    ['an id that is none', { conversation_id: '1 or 1=1' }, '#/conversation_id', 'invalid_format'],
    ['text that is only space', { content: ' \n ' }, '#/content', 'text_blank'],
    ['empty text', { content: '' }, '#/content', 'too_small'],
    ['text that is too long', { content: 'a'.repeat(32_001) }, '#/content', 'too_big'],
    ['NUL in text', { content: 'a\u0000b' }, '#/content', 'text_not_storable'],
    ['half of a surrogate pair in text', { content: 'a\ud800b' }, '#/content', 'text_not_storable'],
    ['a value that is not offered', { run: 'sometime' }, '#/run', 'invalid_value'],
    ['NUL in a key', { idempotency_key: 'a\u0000' }, '#/idempotency_key', 'text_not_storable'],
  ]

  it.each(fields)('S-17 gets 422 that names the field: %s', async (_, change, pointer, code) => {
    const before = await traces()

    const response = await send(talk, { body: change })

    expect(response.status).toBe(422)
    const { errors } = await problemOf(response)
    expect(errors).toContainEqual({ pointer, code, detail: expect.any(String) })
    expect(await traces()).toBe(before)
  })

  it('S-17 gets one entry for each mistake', async () => {
    const response = await send(talk, { body: { conversation_id: 'x', content: 1, stream: 'yes', extra: true } })

    const { errors } = await problemOf(response)
    expect(errors.map(({ pointer }: { pointer: string }) => pointer).sort()).toEqual([
      '#/content',
      '#/conversation_id',
      '#/extra',
      '#/stream',
    ])
  })

  it('names different idempotency keys in header and body and is refused', async () => {
    const response = await send(talk, { headers: { 'idempotency-key': 'one' }, body: { idempotency_key: 'other' } })

    expect(response.status).toBe(422)
  })

  it.each([['a Last-Event-ID that is none', { 'last-event-id': '1; drop' }]])(
    'is not the only thing that is checked: %s',
    async (_, headers) => {
      const response = await fetch(`${functionsUrl}/chat/generations/${randomUUID()}/stream`, {
        headers: { ...bearer(talk.person.token), ...headers },
      })

      expect(response.status).toBe(422)
    },
  )

  it('stores SQL and HTML as the text that they are', async () => {
    const own = await startTalk({ person: talk.person, model: 'sandbox/echo' })
    const content = `'; drop table messages; -- <script>alert(1)</script> {{7*7}} \${x} %s \u{1f600}`

    const response = await send(own, { content, body: { stream: false } })

    const body = await response.json()
    expect(body.user_message.content).toBe(content)
    expect(body.assistant_message.content).toBe(content)
  })
})

describe('what belongs to others', () => {
  it('looks absent, exactly as what does not exist', async () => {
    const stranger = await signUp()
    const all = await readAll(await send(talk))
    const generation = all[0]!.data.generation_id
    const cancel = (id: string) =>
      fetch(`${functionsUrl}/chat/generations/${id}/cancel`, { method: 'POST', headers: bearer(stranger.token) })
    const message = (conversationId: string) =>
      send({ ...talk, person: stranger, conversationId }, { content: 'Let me in.' })

    const pairs = [
      [await attach(stranger, generation), await attach(stranger, randomUUID())],
      [await cancel(generation), await cancel(randomUUID())],
      [await message(talk.conversationId), await message(randomUUID())],
    ]

    for (const [theirs, nothing] of pairs) {
      expect(theirs!.status).toBe(404)
      expect(await problemOf(theirs!)).toEqual(await problemOf(nothing!))
    }
  })
})

describe('every answer', () => {
  it('V-29 carries security headers and the request id that was sent, or a new one', async () => {
    const own = `test-${randomUUID()}`

    const [given, made, absurd] = await Promise.all([
      fetch(`${functionsUrl}/health/live`, { headers: { 'x-request-id': own } }),
      fetch(`${functionsUrl}/health/nothing-here`),
      fetch(`${functionsUrl}/health/live`, { headers: { 'x-request-id': 'a b<script>' } }),
    ])

    expect(given.headers.get('x-request-id')).toBe(own)
    expect(made.status).toBe(404)
    for (const response of [made, absurd]) expect(response.headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/)
    for (const { headers } of [given, made]) {
      expect(headers.get('x-content-type-options')).toBe('nosniff')
      expect(headers.get('content-security-policy')).toContain("default-src 'none'")
      expect(headers.get('strict-transport-security')).toContain('max-age=')
      expect(headers.get('referrer-policy')).toBe('no-referrer')
      expect(headers.get('cache-control')).toBe('no-store')
    }
  })

  it('V-29 may be read by the pages of configured origins, and preflights say what may be sent', async () => {
    const preflight = await fetch(`${functionsUrl}/chat/messages`, {
      method: 'OPTIONS',
      headers: {
        origin: 'https://app.example.com',
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'authorization, content-type, idempotency-key, apikey, x-client-info',
      },
    })
    const refused = await fetch(`${functionsUrl}/chat/messages`, {
      method: 'POST',
      headers: { origin: 'https://app.example.com' },
    })

    expect(preflight.status).toBe(204)
    expect(preflight.headers.get('access-control-allow-origin')).toBe('*')
    const allowed = preflight.headers.get('access-control-allow-headers')!.toLowerCase()
    for (const name of [
      'authorization',
      'apikey',
      'content-type',
      'idempotency-key',
      'last-event-id',
      'x-client-info',
    ]) {
      expect(allowed).toContain(name)
    }
    // A page must be able to read why it was refused.
    expect(refused.headers.get('access-control-allow-origin')).toBe('*')
    expect(refused.headers.get('access-control-expose-headers')!.toLowerCase()).toContain('x-request-id')
  })

  it('V-29 is compressed for clients that want it, except event streams', async () => {
    const own = await startTalk({ person: talk.person })
    const { request } = await import('node:http')
    const raw = await new Promise<{ headers: Record<string, unknown>; body: Buffer }>((resolve, reject) => {
      const asked = request(
        `${functionsUrl}/chat/messages`,
        {
          method: 'POST',
          headers: { ...bearer(own.person.token), ...json, 'accept-encoding': 'gzip' },
        },
        (response) => {
          const pieces: Buffer[] = []
          response.on('data', (piece) => pieces.push(piece))
          response.on('end', () => resolve({ headers: response.headers, body: Buffer.concat(pieces) }))
        },
      )
      asked.on('error', reject)
      asked.end(JSON.stringify({ conversation_id: own.conversationId, content: 'a'.repeat(4000), stream: false }))
    })
    const stream = await send(own, { headers: { 'accept-encoding': 'gzip' } })

    expect(raw.headers['content-encoding']).toBe('gzip')
    expect(JSON.parse(gunzipSync(raw.body).toString()).user_message.content).toHaveLength(4000)
    expect(stream.headers.get('content-encoding')).toBeNull()
    await stream.body!.cancel()
  })

  it('is a problem document for a route or a method that does not exist', async () => {
    for (const [method, path] of [
      ['GET', '/chat/nothing'],
      ['PUT', '/chat/messages'],
      ['POST', '/account'],
    ] as const) {
      const response = await fetch(`${functionsUrl}${path}`, { method, headers: bearer(talk.person.token) })
      expect(response.status).toBe(404)
      expect(await problemOf(response)).toMatchObject({ code: 'route_not_found' })
    }
  })
})

describe('the log', () => {
  it('V-29 S-22 has one line of JSON per request, with ids, and never content, tokens or addresses', async () => {
    const own = await startTalk()
    const secret = marker()
    const requestId = `test-${randomUUID()}`
    await readAll(await send(own, { content: secret, headers: { 'x-request-id': requestId } }))
    await send(own, { content: secret, body: { [secret]: secret }, headers: { 'x-request-id': `${requestId}-bad` } })

    const log = () => readFileSync(`${stack.data}/logs/functions.log`, 'utf8')
    const lines = await until(() => {
      const found = log()
        .split('\n')
        .filter((line) => line.includes(requestId))
      return found.some((line) => line.includes('generation_ran')) ? found : null
    })

    const events = lines.map((line) => JSON.parse(line.slice(line.indexOf('{'))))
    const requests = events.filter(({ event }) => event === 'request')
    expect(requests.map(({ status }) => status).sort()).toEqual([200, 422])
    expect(requests[0]).toMatchObject({
      level: 'info',
      function: 'chat',
      method: 'POST',
      route: '/chat/messages',
      user_id: own.person.id,
      ms: expect.any(Number),
    })
    for (const hidden of [secret, own.person.token, own.person.email, secretKey, stack.keys.localSecret]) {
      expect(log()).not.toContain(hidden)
    }
  })
})

describe('the hot path to the database', () => {
  it('acts as service_role in every transaction, and reaches tables through service functions alone', async () => {
    const { superuser } = await import('./support/local.ts')
    const sql = superuser()
    await sql`create table if not exists private.seen_roles (acting text, login text)`
    await sql`grant insert on private.seen_roles to public`
    await sql`
      create or replace function private.note_role() returns trigger language plpgsql security invoker as $$
      begin
        insert into private.seen_roles values (current_setting('role'), session_user);
        return null;
      end $$`
    await sql`create or replace trigger note_role after insert on public.generation_chunks
      for each statement execute function private.note_role()`
    try {
      const own = await startTalk()
      await readAll(await send(own))

      const roles = await sql`select distinct acting from private.seen_roles`
      expect(roles.map(({ acting }) => acting)).toEqual(['service_role'])
    } finally {
      await sql`drop trigger note_role on public.generation_chunks`
      await sql`drop function private.note_role()`
      await sql`drop table private.seen_roles`
    }
    const source = readFileSync('functions/_shared/database.ts', 'utf8')
    expect(source.match(/\.unsafe\(|sql`/g)).toHaveLength(1)
    expect(source).toMatch(/set local role service_role; .*select to_jsonb\(service\./)
  })
})
