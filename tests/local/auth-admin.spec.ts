import { randomUUID } from 'node:crypto'
import { createClient } from '@supabase/supabase-js'
import { describe, expect, it } from 'vitest'
import WebSocket from 'ws'
import { linkIn, mailTo } from '../support/auth.ts'
import { admin, client, database, publishableKey, secretKey, signUp, superuser, url } from '../support/local.ts'

const address = () => `person-${randomUUID()}@example.com`
const password = 'correct horse battery staple'
const api = () => admin().auth.admin

describe('who may', () => {
  it('only a secret key opens the admin API', async () => {
    const person = await signUp()
    const asUser = createClient(url, publishableKey, {
      global: { headers: { Authorization: `Bearer ${person.token}` } },
      auth: { persistSession: false },
      realtime: { transport: WebSocket as never },
    })

    for (const stranger of [client(), asUser]) {
      const answers = [
        await stranger.auth.admin.listUsers(),
        await stranger.auth.admin.getUserById(person.id),
        await stranger.auth.admin.createUser({ email: address() }),
        await stranger.auth.admin.updateUserById(person.id, { role: 'service_role' }),
        await stranger.auth.admin.deleteUser(person.id),
        await stranger.auth.admin.generateLink({ type: 'magiclink', email: person.email }),
        await stranger.auth.admin.inviteUserByEmail(address()),
      ]
      for (const { error } of answers) expect(error).toMatchObject({ status: 403, code: 'not_admin' })
    }
    expect((await api().getUserById(person.id)).data.user!.id).toBe(person.id)
  })

  it('a user’s token beside the secret key is still only that user', async () => {
    const { token } = await signUp()

    const answer = await fetch(`${url}/auth/v1/admin/users`, {
      headers: { apikey: secretKey, authorization: `Bearer ${token}` },
    })

    expect(answer.status).toBe(403)
  })
})

describe('accounts', () => {
  it('are created confirmed, with metadata, and can sign in', async () => {
    const email = address()

    const { data, error } = await api().createUser({
      email,
      password,
      email_confirm: true,
      user_metadata: { name: 'Ada' },
      app_metadata: { plan: 'pro' },
    })

    expect(error).toBeNull()
    expect(data.user).toMatchObject({
      email,
      user_metadata: { name: 'Ada', email_verified: true },
      app_metadata: { plan: 'pro', provider: 'email', providers: ['email'] },
    })
    expect((await client().auth.signInWithPassword({ email, password })).error).toBeNull()
    expect(await database()`select from public.profiles where id = ${data.user!.id}`).toHaveLength(1)
  })

  it('keep the id and the password hash they are given', async () => {
    const [email, id] = [address(), randomUUID()]
    const [{ hash }] =
      (await superuser()`select extensions.crypt(${password}, extensions.gen_salt('bf')) as hash`) as never as [
        { hash: string },
      ]

    const { data } = await api().createUser({
      id,
      email,
      email_confirm: true,
      password_hash: hash.replace('$2a$', '$2b$'),
    })

    expect(data.user!.id).toBe(id)
    expect((await client().auth.signInWithPassword({ email, password })).error).toBeNull()
    expect((await api().createUser({ id, email: address() })).error).not.toBeNull()
  })

  it('that are not confirmed cannot sign in by password', async () => {
    const email = address()
    await api().createUser({ email, password })

    const { error } = await client().auth.signInWithPassword({ email, password })

    expect(error).toMatchObject({ status: 400, code: 'email_not_confirmed' })
  })

  it('are refused for a used address, no address, a bad id, a bad ban', async () => {
    const { email } = await signUp()

    expect((await api().createUser({ email })).error).toMatchObject({ status: 422, code: 'email_exists' })
    expect((await api().createUser({})).error).toMatchObject({ status: 400, code: 'validation_failed' })
    expect((await api().createUser({ email: address(), id: 'x' })).error).toMatchObject({ status: 400 })
    expect((await api().createUser({ email: address(), ban_duration: 'soon' })).error).toMatchObject({ status: 400 })
  })

  it('are updated in part: metadata merges, null removes, a new password ends every session', async () => {
    const person = await signUp({ data: { keep: 1, drop: 2 } })

    const { data, error } = await api().updateUserById(person.id, {
      email: `new-${person.email}`,
      password: 'another horse entirely',
      user_metadata: { drop: null, add: 3 },
      app_metadata: { plan: 'pro' },
    })

    expect(error).toBeNull()
    expect(data.user).toMatchObject({ email: `new-${person.email}`, app_metadata: { plan: 'pro', provider: 'email' } })
    expect(data.user!.user_metadata).toEqual({ keep: 1, add: 3, email_verified: true })
    expect((await person.client.auth.refreshSession()).error).not.toBeNull()
    expect((await api().updateUserById(randomUUID(), {})).error).toMatchObject({ status: 404, code: 'user_not_found' })
  })

  it('are listed newest first, in pages that name the total and the last', async () => {
    const made = [await signUp(), await signUp(), await signUp()]

    const { data } = await api().listUsers({ page: 1, perPage: 2 })
    const answer = await fetch(`${url}/auth/v1/admin/users?page=1&per_page=2`, { headers: { apikey: secretKey } })
    const links = answer.headers.get('link')!

    expect(data.users).toHaveLength(2)
    expect(Date.parse(data.users[0]!.created_at)).toBeGreaterThanOrEqual(Date.parse(data.users[1]!.created_at))
    expect(data).toMatchObject({ aud: 'authenticated', nextPage: 2 })
    expect(Number(answer.headers.get('x-total-count'))).toBeGreaterThanOrEqual(made.length)
    // supabase-js reads only the first digit of the last page.
    expect(links).toMatch(/page=2&per_page=2>; rel="next", <\S+page=\d+&per_page=2>; rel="last"$/)
    expect((await fetch(`${url}/auth/v1/admin/users?page=x`, { headers: { apikey: secretKey } })).status).toBe(400)
  })

  it('are deleted for good with all that is Auth’s', async () => {
    const person = await signUp()

    expect((await api().deleteUser(person.id)).error).toBeNull()

    expect((await api().getUserById(person.id)).error).toMatchObject({ status: 404, code: 'user_not_found' })
    const [left] = await superuser()`
      select (select count(*) from auth.identities where user_id = ${person.id})::int as identities,
        (select count(*) from auth.sessions where user_id = ${person.id})::int as sessions,
        (select count(*) from auth.refresh_tokens where user_id = ${person.id})::int as tokens`
    expect(left).toMatchObject({ identities: 0, sessions: 0 })
    expect((await person.client.auth.getUser()).error).toMatchObject({ status: 403, code: 'user_not_found' })
    expect((await client().auth.signInWithPassword(person)).error).toMatchObject({ code: 'invalid_credentials' })
  })

  it('are deleted softly: the row stays and says nothing of whose it was', async () => {
    const person = await signUp({ data: { name: 'Ada' } })

    expect((await api().deleteUser(person.id, true)).error).toBeNull()

    const [row] = await superuser()`select to_jsonb(u) as user from auth.users u where id = ${person.id}`
    expect(row!.user).toMatchObject({ raw_user_meta_data: {}, raw_app_meta_data: {}, encrypted_password: null })
    expect(JSON.stringify(row)).not.toContain(person.email)
    expect(row!.user.deleted_at).toBeTruthy()
    expect((await person.client.auth.refreshSession()).error).not.toBeNull()
    expect((await client().auth.signUp(person)).error).toBeNull()
  })
})

describe('links', () => {
  it.each(['magiclink', 'recovery'] as const)('a %s link and its code sign in, and no e-mail is sent', async (type) => {
    const { email } = await signUp()
    const redirectTo = 'http://localhost:5000/x'

    const { data, error } = await api().generateLink({ type, email, options: { redirectTo } })

    expect(error).toBeNull()
    expect(data.properties).toMatchObject({ verification_type: type, redirect_to: redirectTo })
    const { hashed_token, email_otp, action_link } = data.properties!
    expect(new URL(action_link).searchParams.get('token')).toBe(hashed_token)
    expect((await client().auth.verifyOtp({ email, token: email_otp, type })).error).toBeNull()
    const inbox = await (await fetch(`${url}/sandbox/inbox?to=${encodeURIComponent(email)}`)).json()
    expect(inbox.messages).toEqual([])
  })

  it('a magic link for an unknown address becomes a sign-up', async () => {
    const email = address()

    const { data } = await api().generateLink({ type: 'magiclink', email })

    expect(data.properties!.verification_type).toBe('signup')
    const answer = await fetch(data.properties!.action_link, { redirect: 'manual' })
    expect(answer.headers.get('location')).toContain('access_token=')
    expect((await api().generateLink({ type: 'recovery', email: address() })).error).toMatchObject({ status: 404 })
  })

  it('the two links of a change of address confirm it together', async () => {
    const { email } = await signUp()
    const newEmail = address()

    const current = await api().generateLink({ type: 'email_change_current', email, newEmail })
    const next = await api().generateLink({ type: 'email_change_new', email, newEmail })
    await client().auth.verifyOtp({ token_hash: current.data.properties!.hashed_token, type: 'email_change' })
    const { data } = await client().auth.verifyOtp({
      token_hash: next.data.properties!.hashed_token,
      type: 'email_change',
    })

    expect(data.user).toMatchObject({ email: newEmail })
  })

  it('an invitation is an e-mail that signs its reader in', async () => {
    const email = address()

    const { data, error } = await api().inviteUserByEmail(email, { data: { team: 'x' } })

    expect(error).toBeNull()
    expect(data.user).toMatchObject({ email, user_metadata: { team: 'x' } })
    expect(data.user!.invited_at).toBeTruthy()
    const answer = await fetch(linkIn(await mailTo(url, email, 'invite')), { redirect: 'manual' })
    expect(answer.headers.get('location')).toContain('type=invite')
    expect((await api().inviteUserByEmail(email)).error).toMatchObject({ status: 422, code: 'email_exists' })
  })
})

it('an admin signs somebody out by their token', async () => {
  const person = await signUp()

  expect((await api().signOut(person.token)).error).toBeNull()

  expect((await person.client.auth.refreshSession()).error).not.toBeNull()
})
