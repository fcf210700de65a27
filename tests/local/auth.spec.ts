import { randomUUID } from 'node:crypto'
import { decodeJwt } from 'jose'
import { describe, expect, it } from 'vitest'
import { mailTo } from '../support/auth.ts'
import {
  admin,
  client,
  database,
  publishableKey,
  secretKey,
  session,
  signUp,
  superuser,
  until,
  url,
} from '../support/local.ts'

const address = () => `person-${randomUUID()}@example.com`
const password = 'correct horse battery staple'

const call = (path: string, { headers = {}, ...init }: RequestInit & { headers?: Record<string, string> } = {}) =>
  fetch(`${url}/auth/v1${path}`, { ...init, headers: { apikey: publishableKey, ...headers } })
const post = (path: string, body: unknown, headers: Record<string, string> = {}) =>
  call(path, { method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body), headers })
const refresh = async (token: string) => {
  const answer = await post('/token?grant_type=refresh_token', { refresh_token: token })
  return { status: answer.status, body: await answer.json() }
}
const refreshTokenOf = async (person: { client: ReturnType<typeof client> }) =>
  (await person.client.auth.getSession()).data.session!.refresh_token

describe('signing up', () => {
  it('gives a token with the claims of hosted, and metadata that the database keeps as objects', async () => {
    const person = await signUp({ data: { nickname: 'Ada', tags: ['x'] } })

    expect(decodeJwt(person.token)).toMatchObject({
      iss: `${url}/auth/v1`,
      sub: person.id,
      aud: 'authenticated',
      role: 'authenticated',
      email: person.email,
      phone: '',
      app_metadata: { provider: 'email', providers: ['email'], roles: [] },
      user_metadata: { nickname: 'Ada', tags: ['x'] },
      aal: 'aal1',
      amr: [{ method: 'password', timestamp: expect.any(Number) }],
      session_id: expect.stringMatching(/^[\da-f-]{36}$/),
      is_anonymous: false,
    })
    const [row] = await database()`
      select jsonb_typeof(raw_user_meta_data) as data, jsonb_typeof(raw_app_meta_data) as app,
        raw_user_meta_data ->> 'nickname' as nickname, encrypted_password like '$2a$10$%' as bcrypt
      from auth.users where id = ${person.id}`
    expect(row).toEqual({ data: 'object', app: 'object', nickname: 'Ada', bcrypt: true })
  })

  it('keeps one account per address, however it is written and however many ask at once', async () => {
    const email = address()

    const answers = await Promise.all(
      [email, email.toUpperCase(), email, email, email].map((as) => client().auth.signUp({ email: as, password })),
    )

    expect(answers.filter(({ error }) => !error)).toHaveLength(1)
    for (const { error } of answers.filter(({ error }) => error)) {
      expect(error).toMatchObject({ status: 422, code: 'user_already_exists' })
    }
    const [row] = await database()`select count(*)::int as n from auth.users where lower(email) = ${email}`
    expect(row!.n).toBe(1)
  })

  it('leaves nothing behind when a trigger refuses the person, and says so in JSON', async () => {
    const email = `refused-${randomUUID()}@example.com`
    const sql = superuser()
    const name = `refuse_${randomUUID().replaceAll('-', '')}`
    await sql.unsafe(`
      create function private.${name}() returns trigger language plpgsql as
        $$ begin if new.email = '${email}' then raise exception 'no'; end if; return new; end $$;
      create trigger zz_${name} after insert on auth.users for each row execute function private.${name}()`)
    try {
      const { error } = await client().auth.signUp({ email, password })

      // The client takes every 5xx for a fault of the network and keeps the message alone.
      expect(error).toMatchObject({ status: 500, message: 'Database error saving new user' })
      const raw = await post('/signup', { email, password })
      expect(await raw.json()).toMatchObject({ code: 500, error_code: 'unexpected_failure' })
      expect(await sql`select from auth.users where email = ${email}`).toHaveLength(0)
    } finally {
      await sql.unsafe(`drop function private.${name}() cascade`)
    }
  })

  it('refuses weak and overlong passwords and addresses that are none', async () => {
    const weak = await client().auth.signUp({ email: address(), password: 'short' })
    expect(weak.error).toMatchObject({ status: 422, code: 'weak_password', reasons: ['length'] })
    const long = await client().auth.signUp({ email: address(), password: 'ü'.repeat(37) })
    expect(long.error).toMatchObject({ status: 400, code: 'validation_failed' })
    for (const email of [
      'nobody',
      'a@b@c.example',
      'a b@example.com',
      'a@example.com\r\nbcc: b@example.com',
      '<b>@x.example',
    ]) {
      const { error } = await client().auth.signUp({ email, password })
      expect(error, email).toMatchObject({ status: 400, code: 'validation_failed' })
    }
  })

  it('is not possible anonymously unless the project allows it', async () => {
    expect((await client().auth.signInAnonymously()).error).toMatchObject({
      status: 422,
      code: 'anonymous_provider_disabled',
    })
  })
})

describe('tokens', () => {
  it('are verified by the published key, whose id names this stack alone', async () => {
    const { keys } = await (await fetch(`${url}/auth/v1/.well-known/jwks.json`)).json()

    expect(keys).toHaveLength(1)
    expect(keys[0]).toMatchObject({ kty: 'EC', crv: 'P-256', alg: 'ES256', use: 'sig' })
    expect(keys[0].d).toBeUndefined()
    expect(keys[0].kid).toMatch(/^[\w-]{43}$/)
  })

  it('carry app_metadata that changed since, from the next refresh on', async () => {
    const person = await signUp()
    await database()`update auth.users set raw_app_meta_data = raw_app_meta_data || '{"plan": "pro"}' where id = ${person.id}`

    const { data } = await person.client.auth.refreshSession()

    expect(decodeJwt(data.session!.access_token)).toMatchObject({ app_metadata: { plan: 'pro' } })
  })

  it('that were changed, expired, or signed by somebody else open nothing', async () => {
    const { token } = await signUp()
    const [header, payload, signature] = token.split('.') as [string, string, string]
    const forged = Buffer.from(JSON.stringify({ ...decodeJwt(token), role: 'service_role' })).toString('base64url')
    const none = Buffer.from('{"alg":"none"}').toString('base64url')

    for (const bearer of [`${header}.${forged}.${signature}`, `${none}.${payload}.`, `${token}x`, 'nonsense']) {
      const user = await call('/user', { headers: { authorization: `Bearer ${bearer}` } })
      expect([user.status, (await user.json()).error_code]).toEqual([403, 'bad_jwt'])
      const list = await call('/admin/users', { headers: { authorization: `Bearer ${bearer}` } })
      expect(list.status).toBe(403)
    }
    expect((await call('/user', { headers: { authorization: 'Basic x' } })).status).toBe(401)
    expect((await call('/user')).status).toBe(403)
  })
})

describe('refreshing', () => {
  it('answers clients that lost the answer, or ask five times at once, with the same next token', async () => {
    const token = await refreshTokenOf(await signUp())

    const answers = await Promise.all([1, 2, 3, 4, 5].map(() => refresh(token)))

    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200])
    expect(new Set(answers.map(({ body }) => body.refresh_token)).size).toBe(1)
  })

  it('ends the whole session when a token of long ago comes back', async () => {
    const person = await signUp()
    const first = await refreshTokenOf(person)
    const second = (await refresh(first)).body.refresh_token
    const third = (await refresh(second)).body.refresh_token
    await database()`update auth.refresh_tokens set updated_at = now() - interval '11 seconds' where token = ${first}`

    const stolen = await refresh(first)

    expect([stolen.status, stolen.body.error_code]).toEqual([400, 'refresh_token_already_used'])
    for (const token of [first, second, third]) {
      expect((await refresh(token)).body.error_code).toBe('refresh_token_already_used')
    }
  })

  it('refuses tokens that are unknown or missing', async () => {
    expect(await refresh('abcdefghijkl')).toMatchObject({
      status: 400,
      body: { error_code: 'refresh_token_not_found' },
    })
    expect(await refresh(`'; drop table auth.users; --`)).toMatchObject({ status: 400 })
    expect((await post('/token?grant_type=refresh_token', {})).status).toBe(400)
    expect((await post('/token?grant_type=telepathy', {})).status).toBe(400)
  })
})

describe('passwords', () => {
  it('a changed password ends every other session at once and keeps this one', async () => {
    const person = await signUp()
    const elsewhere = client()
    const { data } = await elsewhere.auth.signInWithPassword({ email: person.email, password: person.password })

    expect((await person.client.auth.updateUser({ password: 'another horse entirely' })).error).toBeNull()

    expect((await refresh(data.session!.refresh_token)).status).toBe(400)
    expect((await elsewhere.auth.getUser(data.session!.access_token)).error).not.toBeNull()
    expect((await person.client.auth.refreshSession()).error).toBeNull()
  })

  it('must differ from the present one', async () => {
    const person = await signUp()

    const { error } = await person.client.auth.updateUser({ password: person.password })

    expect(error).toMatchObject({ status: 422, code: 'same_password' })
  })

  it('do not tell whether an address has an account', async () => {
    const { email } = await signUp()

    const wrong = await post('/token?grant_type=password', { email, password: 'wrong password' })
    const unknown = await post('/token?grant_type=password', { email: address(), password: 'wrong password' })

    expect([wrong.status, await wrong.text()]).toEqual([unknown.status, await unknown.text()])
    expect((await client().auth.resetPasswordForEmail(address())).error).toBeNull()
  })

  it('made by SQL with crypt() sign in', async () => {
    const email = address()
    await superuser()`
      insert into auth.users (id, aud, role, email, encrypted_password, email_confirmed_at, raw_app_meta_data, raw_user_meta_data)
      values (gen_random_uuid(), 'authenticated', 'authenticated', ${email},
        extensions.crypt(${password}, extensions.gen_salt('bf')), now(), '{}', '{}')`

    expect((await client().auth.signInWithPassword({ email, password })).error).toBeNull()
  })
})

describe('bans', () => {
  it('refuse every way to a session until they end', async () => {
    const person = await signUp()
    const token = await refreshTokenOf(person)
    await client().auth.signInWithOtp({ email: person.email })
    const { otp } = await mailTo(url, person.email, 'magiclink')
    await admin().auth.admin.updateUserById(person.id, { ban_duration: '24h' })

    const byPassword = await client().auth.signInWithPassword(person)
    const byCode = await client().auth.verifyOtp({ email: person.email, token: otp, type: 'email' })
    const byRefresh = await refresh(token)

    expect(byPassword.error).toMatchObject({ status: 400, code: 'user_banned' })
    expect(byCode.error).toMatchObject({ status: 403, code: 'user_banned' })
    expect([byRefresh.status, byRefresh.body.error_code]).toEqual([400, 'user_banned'])

    await admin().auth.admin.updateUserById(person.id, { ban_duration: 'none' })
    expect((await client().auth.signInWithPassword(person)).error).toBeNull()
  })
})

describe('signing out', () => {
  it('ends this session, the others, or all', async () => {
    const person = await signUp()
    const sessions = await Promise.all(
      [1, 2].map(async () => (await client().auth.signInWithPassword(person)).data.session!),
    )
    const alive = async () =>
      (await database()`select id from auth.sessions where user_id = ${person.id}`).map(({ id }) => id)
    const end = (token: string, scope: string) =>
      call(`/logout?scope=${scope}`, { method: 'POST', headers: { authorization: `Bearer ${token}` } })

    expect(await alive()).toHaveLength(3)
    expect((await end(sessions[0]!.access_token, 'local')).status).toBe(204)
    expect(await alive()).toHaveLength(2)
    expect((await end(sessions[1]!.access_token, 'others')).status).toBe(204)
    expect(await alive()).toEqual([decodeJwt(sessions[1]!.access_token).session_id])
    expect((await end(sessions[1]!.access_token, 'sideways')).status).toBe(400)
    expect((await end(sessions[1]!.access_token, 'global')).status).toBe(204)
    expect(await alive()).toEqual([])
    expect((await end(sessions[1]!.access_token, 'global')).status).toBe(403)
  })

  it('deleting somebody by SQL ends their sessions', async () => {
    const person = await signUp()
    const token = await refreshTokenOf(person)

    await superuser()`delete from auth.users where id = ${person.id}`

    expect((await person.client.auth.getUser()).error).toMatchObject({ status: 403, code: 'user_not_found' })
    expect((await refresh(token)).status).toBe(400)
  })
})

describe('races', () => {
  it('a password that is changed during a sign-in by the old one gives no session', async () => {
    const person = await signUp()
    const changer = session('supabase_admin')
    const begun = await changer.reserve()
    try {
      await begun`begin`
      await begun`update auth.users set encrypted_password = extensions.crypt('new', extensions.gen_salt('bf')) where id = ${person.id}`
      const signingIn = client().auth.signInWithPassword(person)
      await until(async () => {
        const [row] = await superuser()`
          select count(*)::int as n from pg_stat_activity where application_name = 'auth' and wait_event_type = 'Lock'`
        return row!.n > 0
      })
      await begun`commit`

      expect((await signingIn).error).toMatchObject({ status: 400, code: 'invalid_credentials' })
    } finally {
      begun.release()
    }
  })
})

describe('bad input', () => {
  const nul = 'a\u0000b'
  const surrogate = '{"email":"lone@example.com","password":"correct horse battery","data":{"x":"\\ud800"}}'

  it.each([
    ['malformed JSON', '{"email":', 400],
    ['an array', '[1,2]', 400],
    ['nothing', '', 400],
    ['wrong types', '{"email":{"$ne":null},"password":["x"]}', 400],
    ['metadata that is no object', '{"email":"a@example.com","password":"correct horse battery","data":[1]}', 400],
    ['NUL in metadata', JSON.stringify({ email: 'nul@example.com', password, data: { x: nul } }), 400],
    ['NUL in a name of metadata', JSON.stringify({ email: 'nul@example.com', password, data: { [nul]: 1 } }), 400],
    ['NUL in the password', JSON.stringify({ email: 'nul@example.com', password: `${nul}${password}` }), 400],
    ['an unpaired surrogate', surrogate, 400],
    ['absurd nesting', `${'{"data":'.repeat(200)}1${'}'.repeat(200)}`, 400],
    ['2 MB', JSON.stringify({ email: 'big@example.com', password, data: { x: 'x'.repeat(2 * 1024 * 1024) } }), 413],
  ])('%s is refused with a code and leaves no trace', async (_, body, status) => {
    const answer = await post('/signup', body)

    expect(answer.status).toBe(status)
    expect(await answer.json()).toMatchObject({ error_code: expect.any(String), msg: expect.any(String) })
    const emails = ['nul@example.com', 'lone@example.com', 'big@example.com', 'a@example.com']
    expect(await database()`select from auth.users where email = any (${emails})`).toHaveLength(0)
  })

  it('HTML and SQL in text fields are only text', async () => {
    const text = `<script>alert(1)</script>'; drop table auth.users; -- \u2028 🦜`
    const person = await signUp({ data: { name: text, [text]: text } })

    const { data } = await person.client.auth.getUser()

    expect(data.user!.user_metadata).toMatchObject({ name: text, [text]: text })
    const hostile = await post('/token?grant_type=password', { email: text, password: text })
    expect(hostile.status).toBe(400)
    const filtered = await admin().auth.admin.listUsers()
    expect(filtered.error).toBeNull()
  })

  it('nobody makes themselves more than they are by signing up or updating', async () => {
    const email = address()
    const body = {
      email,
      password,
      role: 'service_role',
      app_metadata: { roles: ['admin'] },
      is_super_admin: true,
      id: randomUUID(),
    }
    const made = await (await post('/signup', body)).json()
    const headers = { authorization: `Bearer ${made.access_token}` }
    const raised = await call('/user', {
      method: 'PUT',
      headers,
      body: JSON.stringify({ app_metadata: { roles: ['admin'] } }),
    })

    expect(made.user).toMatchObject({
      role: 'authenticated',
      app_metadata: { provider: 'email', providers: ['email'] },
    })
    expect(made.user.id).not.toBe(body.id)
    expect([raised.status, (await raised.json()).error_code]).toEqual([403, 'not_admin'])
  })

  it.each(['::::', '1.2.3', '999.1.1.1', `'; drop table auth.users; --`])(
    'an address of origin such as %s is not kept',
    async (from) => {
      const answer = await post('/signup', { email: address(), password }, { 'x-forwarded-for': from })

      expect(answer.status).toBe(200)
    },
  )

  it('unknown routes and methods are answered in JSON', async () => {
    const unknown = await call('/nowhere')
    expect([unknown.status, (await unknown.json()).error_code]).toEqual([404, 'not_found'])
    const wrong = await call('/signup', { method: 'DELETE' })
    expect([wrong.status, (await wrong.json()).error_code]).toEqual([405, 'method_not_allowed'])
  })

  it('a request without one of the project’s keys is refused', async () => {
    for (const apikey of [null, 'sb_publishable_wrong', 'x']) {
      const headers: Record<string, string> = apikey ? { apikey } : {}
      const answer = await fetch(`${url}/auth/v1/settings`, { headers })
      expect(answer.status).toBe(401)
    }
    const byKey = await fetch(`${url}/auth/v1/settings`, { headers: { apikey: secretKey } })
    expect((await byKey.json()).external).toMatchObject({ email: true, google: true, phone: false })
  })
})
