import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { decodeJwt } from 'jose'
import { describe, expect, it } from 'vitest'
import { browse, fragment, linkIn, mailTo, signInThrough } from '../support/auth.ts'
import { projectStack } from '../support/project.ts'

const project = projectStack('tests/local/fixtures/auth')
const address = () => `person-${randomUUID()}@example.com`
const password = 'correct horse 4 staples'
const inbox = async (email: string) =>
  (await (await fetch(`${project.url}/sandbox/inbox?to=${encodeURIComponent(email)}`)).json()).messages

/** Somebody who has signed up and confirmed. */
async function confirmed(data: Record<string, unknown> = {}) {
  const email = address()
  await project.client().auth.signUp({ email, password, options: { data } })
  const person = project.client()
  const { otp } = await mailTo(project.url, email, 'signup')
  const verified = await person.auth.verifyOtp({ email, token: otp, type: 'signup' })
  return { email, person, verified, id: verified.data.user?.id ?? '' }
}

describe('confirmations', () => {
  it('a new address gives no session before its e-mail is answered, by code or by link', async () => {
    const email = address()
    const { data } = await project.client().auth.signUp({ email, password })
    expect(data.session).toBeNull()
    const early = await project.client().auth.signInWithPassword({ email, password })
    expect(early.error).toMatchObject({ status: 400, code: 'email_not_confirmed' })

    const answer = await fetch(linkIn(await mailTo(project.url, email, 'signup')), { redirect: 'manual' })

    expect(fragment(new URL(answer.headers.get('location')!))).toMatchObject({ type: 'signup' })
    const { data: late } = await project.client().auth.signInWithPassword({ email, password })
    expect(late.user!.identities![0]!.identity_data).toMatchObject({ email_verified: true })
  })

  it('signing up again does not tell that an address is known, and sends its owner nothing', async () => {
    const { email } = await confirmed()

    const { data, error } = await project.client().auth.signUp({ email, password: 'guessing 4 fun' })

    expect(error).toBeNull()
    expect(data.session).toBeNull()
    expect(data.user).toMatchObject({ email, identities: [] })
    expect(await inbox(email)).toHaveLength(1)
    expect((await project.client().auth.signInWithPassword({ email, password })).error).toBeNull()
  })

  it('a second e-mail within max_frequency is refused, a later one is sent', async () => {
    const email = address()
    await project.client().auth.signUp({ email, password })
    const early = await project.client().auth.resend({ type: 'signup', email })
    expect(early.error).toMatchObject({ status: 429, code: 'over_email_send_rate_limit' })
    await project.sql()`update auth.users set confirmation_sent_at = now() - interval '61 seconds' where email = ${email}`

    expect((await project.client().auth.resend({ type: 'signup', email })).error).toBeNull()

    expect(await inbox(email)).toHaveLength(2)
    expect((await project.client().auth.resend({ type: 'signup', email: address() })).error).toBeNull()
  })

  it('a new address replaces the old one when its own mailbox confirms, without double_confirm_changes', async () => {
    const { email, person } = await confirmed()
    const next = address()

    await person.auth.updateUser({ email: next })
    const { otp } = await mailTo(project.url, next)
    const { data } = await project.client().auth.verifyOtp({ email: next, token: otp, type: 'email_change' })

    expect(data.user!.email).toBe(next)
    expect(await inbox(email)).toHaveLength(1)
  })
})

describe('when the inbox does not answer', () => {
  it('the request fails after five seconds, and nothing is kept of what needed the e-mail', async () => {
    const email = address()
    const { sandbox } = JSON.parse(readFileSync(join(project.stack.data, 'children.json'), 'utf8'))
    process.kill(sandbox, 'SIGSTOP')
    try {
      const { error } = await project.client().auth.signUp({ email, password })

      expect(error).toMatchObject({ status: 500, message: 'Error sending confirmation email' })
      expect(await project.sql()`select from auth.users where email = ${email}`).toHaveLength(0)
    } finally {
      process.kill(sandbox, 'SIGCONT')
    }
    expect((await project.client().auth.signUp({ email, password })).error).toBeNull()
  })
})

describe('anonymous people', () => {
  it('get a session and keep their account when they give an address', async () => {
    const person = project.client()

    const { data, error } = await person.auth.signInAnonymously({ options: { data: { x: 1 } } })
    expect(error).toBeNull()
    expect(decodeJwt(data.session!.access_token)).toMatchObject({
      is_anonymous: true,
      role: 'authenticated',
      email: '',
    })
    const email = address()
    await person.auth.updateUser({ email })
    const { otp } = await mailTo(project.url, email)
    const { data: known } = await project.client().auth.verifyOtp({ email, token: otp, type: 'email_change' })

    expect(known.user).toMatchObject({
      id: data.user!.id,
      email,
      is_anonymous: false,
      app_metadata: { provider: 'email' },
    })
    expect((await person.auth.updateUser({ password: 'new horse 5' })).error).toBeNull()
  })

  it('set no password without an address', async () => {
    const person = project.client()
    await person.auth.signInAnonymously()

    expect((await person.auth.updateUser({ password })).error).toMatchObject({ status: 422, code: 'validation_failed' })
  })
})

describe('passwords', () => {
  it('have the characters that are asked for', async () => {
    const { error } = await project.client().auth.signUp({ email: address(), password: 'only letters here' })

    expect(error).toMatchObject({ status: 422, code: 'weak_password', reasons: ['characters'] })
  })

  it('change in a session of yesterday only with the code of another e-mail', async () => {
    const { email, person, id } = await confirmed()
    await project.sql()`update auth.sessions set created_at = now() - interval '25 hours' where user_id = ${id}`

    const without = await person.auth.updateUser({ password: 'new horse 5' })
    expect(without.error).toMatchObject({ status: 400, code: 'reauthentication_needed' })
    expect((await person.auth.reauthenticate()).error).toBeNull()
    const { otp } = await mailTo(project.url, email, 'reauthentication')
    const wrong = await person.auth.updateUser({
      password: 'new horse 5',
      nonce: otp === '111111' ? '222222' : '111111',
    })
    expect(wrong.error).toMatchObject({ status: 422, code: 'reauthentication_not_valid' })

    expect((await person.auth.updateUser({ password: 'new horse 5', nonce: otp })).error).toBeNull()
  })
})

describe('the access token hook', () => {
  it('runs as supabase_auth_admin at every mint, with the event of hosted, and adds claims', async () => {
    const { person, verified, id } = await confirmed()
    await person.auth.refreshSession()

    expect(decodeJwt(verified.data.session!.access_token)).toMatchObject({ level: 7 })
    const events = await project.sql()`
      select event, run_as from public.events where hook = 'token' and event ->> 'user_id' = ${id} order by id`
    expect(events.map(({ event }) => event.authentication_method)).toEqual(['otp', 'token_refresh'])
    expect(events[0]).toMatchObject({
      run_as: 'supabase_auth_admin',
      event: { user_id: id, claims: { sub: id, role: 'authenticated', session_id: expect.any(String), aal: 'aal1' } },
    })
  })

  it.each([
    ['raise', 500, 'Error running hook URI: pg-functions://postgres/public/token_hook'],
    ['slow', 500, 'Error running hook URI: pg-functions://postgres/public/token_hook'],
    ['drop', 500, expect.stringContaining('session_id')],
    ['nothing', 500, expect.stringContaining('claims')],
    ['refuse', 403, 'not today'],
  ])('that answers with %s lets nobody in and leaves no session', async (hook, status, message) => {
    const { verified } = await confirmed({ hook })

    expect(verified.error).toMatchObject({ status, message })
    const [row] = await project.sql('supabase_admin')`
      select count(*)::int as sessions from auth.sessions s join auth.users u on u.id = s.user_id
      where u.raw_user_meta_data ->> 'hook' = ${hook}`
    expect(row!.sessions).toBe(0)
  })

  it('that is configured and missing lets nobody in, and works again when it is back', async () => {
    const { email } = await confirmed()
    const sql = project.sql()

    await sql`alter function public.token_hook rename to token_hook_gone`
    const without = await project.client().auth.signInWithPassword({ email, password })
    await sql`alter function public.token_hook_gone rename to token_hook`

    expect(without.error).toMatchObject({ status: 500, message: expect.stringContaining('Error running hook URI') })
    expect((await project.client().auth.signInWithPassword({ email, password })).error).toBeNull()
  })
})

it('diff-auth-7 only two hooks are called, and only when they are functions of the database', async () => {
  const { verified } = await confirmed()

  // The hook that sends e-mails is configured at an address that nobody listens at, and the inbox has the message.
  expect(verified.error).toBeNull()
  expect(decodeJwt(verified.data.session!.access_token)).toMatchObject({ level: 7 })
})

it('diff-auth-8 templates are not read: every e-mail has the same plain text', async () => {
  const email = address()

  await project.client().auth.signUp({ email, password })

  const mail = await mailTo(project.url, email, 'signup')
  expect(mail).toMatchObject({ subject: 'Confirm Your Signup' })
  expect(mail.html).not.toContain('Our own words')
})

it('diff-auth-11 Google and Apple are looked for at their configured url', async () => {
  const email = address()

  const target = await signInThrough(project.client(), project.url, 'google', email)

  expect(decodeJwt(fragment(target).access_token!)).toMatchObject({
    email,
    user_metadata: { iss: `${project.url}/sandbox/oidc/google` },
  })
})

it('the hook before a user is created refuses people, however they come', async () => {
  const email = `a-${randomUUID()}@blocked.example`

  const byPassword = await project.client().auth.signUp({ email, password })
  const byCode = await project.client().auth.signInWithOtp({ email })
  const byProvider = await signInThrough(project.client(), project.url, 'github', email)

  expect(byPassword.error).toMatchObject({ status: 422, message: 'no such people here' })
  expect(byCode.error).toMatchObject({ status: 422, message: 'no such people here' })
  expect(byProvider.searchParams.get('error_description')).toBe('no such people here')
  expect(await project.sql()`select from auth.users where email = ${email}`).toHaveLength(0)
})

describe('providers, with confirmations on', () => {
  it('an address that the provider has not verified gives no session but an e-mail to confirm it', async () => {
    const email = address()

    const target = await signInThrough(project.client(), project.url, 'discord', email, { sandbox: 'unverified' })

    expect(Object.fromEntries(target.searchParams)).toMatchObject({
      error: 'access_denied',
      error_code: 'provider_email_needs_verification',
    })
    const { otp } = await mailTo(project.url, email, 'signup')
    expect((await project.client().auth.verifyOtp({ email, token: otp, type: 'signup' })).error).toBeNull()
    const again = await signInThrough(project.client(), project.url, 'discord', email, { sandbox: 'unverified' })
    expect(fragment(again).access_token).toBeTruthy()
  })

  it('a verified address takes an unconfirmed account over, and whoever made it is locked out', async () => {
    const email = address()
    await project.client().auth.signUp({ email, password, options: { data: { planted: true } } })

    const target = await signInThrough(project.client(), project.url, 'github', email)

    const { access_token } = fragment(target)
    const { data } = await project.client().auth.getUser(access_token)
    expect(data.user!.identities!.map(({ provider }) => provider)).toEqual(['github'])
    expect(data.user!.user_metadata).not.toHaveProperty('planted')
    const planted = await project.client().auth.signInWithPassword({ email, password })
    expect(planted.error).toMatchObject({ code: 'invalid_credentials' })
  })

  it('somebody without an address signs in where the project takes that', async () => {
    const target = await signInThrough(project.client(), project.url, 'x', address(), { sandbox: 'no-email' })

    expect(decodeJwt(fragment(target).access_token!)).toMatchObject({ email: '', app_metadata: { provider: 'x' } })
  })

  it('a provider that cannot be reached is an error, not a crash', async () => {
    const answer = await fetch(`${project.url}/auth/v1/authorize?provider=apple`, { redirect: 'manual' })

    expect(answer.status).toBe(500)
    expect(await answer.json()).toMatchObject({ error_code: 'unexpected_failure' })
  })

  it('somebody signed in adds a provider, and takes the first one away', async () => {
    const { person, id } = await confirmed()
    const other = address()
    const { data } = await person.auth.linkIdentity({
      provider: 'github',
      options: {
        skipBrowserRedirect: true,
        queryParams: { login_hint: other },
        redirectTo: 'http://localhost:3000/',
      },
    })

    const target = await browse(project.url, data.url!)

    expect(decodeJwt(fragment(target).access_token!).sub).toBe(id)
    const { data: linked } = await person.auth.getUserIdentities()
    expect(linked!.identities.map(({ provider }) => provider)).toEqual(['email', 'github'])
    const byEmail = linked!.identities.find(({ provider }) => provider === 'email')!
    expect((await person.auth.unlinkIdentity(byEmail)).error).toBeNull()
    const left = (await person.auth.getUserIdentities()).data!.identities
    expect(left.map(({ provider }) => provider)).toEqual(['github'])
    expect((await person.auth.unlinkIdentity(left[0]!)).error).toMatchObject({ code: 'single_identity_not_deletable' })
    expect((await person.auth.getUser()).data.user!.email).toBe(other)
  })
})
