import { randomUUID } from 'node:crypto'
import { expect, it } from 'vitest'
import { fragment, signInThrough } from '../support/auth.ts'
import { admin, client, database, publishableKey, signUp, url } from '../support/local.ts'

const address = () => `person-${randomUUID()}@example.com`
const password = 'correct horse battery staple'
const post = async (path: string, body: unknown, headers: Record<string, string> = {}) => {
  const init = { method: 'POST', headers: { apikey: publishableKey, ...headers }, body: JSON.stringify(body) }
  const answer = await fetch(`${url}/auth/v1${path}`, init)
  return { status: answer.status, body: await answer.json() }
}
const refresh = (token: string) => post('/token?grant_type=refresh_token', { refresh_token: token })

it('diff-auth-1 forty wrong passwords and codes lock nobody out', async () => {
  const person = await signUp()
  const wrong = (n: number) =>
    n % 2
      ? post('/token?grant_type=password', { email: person.email, password: `wrong password ${n}` })
      : post('/verify', { email: person.email, token: String(100_000 + n), type: 'recovery' })

  const answers = await Promise.all(Array.from({ length: 40 }, (_, n) => wrong(n)))

  expect(new Set(answers.map(({ body }) => body.error_code))).toEqual(new Set(['invalid_credentials', 'otp_expired']))
  expect((await client().auth.signInWithPassword(person)).error).toBeNull()
})

it('diff-auth-2 a second factor cannot be enrolled', async () => {
  const { client: person } = await signUp()

  const { error } = await person.auth.mfa.enroll({ factorType: 'totp' })

  expect(error).toMatchObject({ status: 422, code: 'mfa_totp_enroll_not_enabled' })
})

it('diff-auth-3 phone numbers sign nobody in', async () => {
  const phone = '+15555550100'

  expect((await client().auth.signUp({ phone, password })).error).toMatchObject({ code: 'phone_provider_disabled' })
  expect((await client().auth.signInWithOtp({ phone })).error).toMatchObject({ code: 'phone_provider_disabled' })
  expect((await client().auth.verifyOtp({ phone, token: '123456', type: 'sms' })).error).toMatchObject({
    code: 'phone_provider_disabled',
  })
})

it('diff-auth-4 single sign-on, id tokens and wallets sign nobody in', async () => {
  const sso = await client().auth.signInWithSSO({ domain: 'example.com' })
  const idToken = await client().auth.signInWithIdToken({ provider: 'google', token: 'x.y.z' })
  const wallet = await post('/token?grant_type=web3', { chain: 'solana' })

  expect(sso.error).toMatchObject({ status: 404, code: 'saml_provider_disabled' })
  expect(idToken.error).toMatchObject({ status: 400, code: 'provider_disabled' })
  expect([wallet.status, wallet.body.error_code]).toEqual([400, 'provider_disabled'])
})

it('diff-auth-5 an unverified address joins no account, though confirmations are off', async () => {
  const owner = await signUp()

  const target = await signInThrough(client(), url, 'discord', owner.email, { sandbox: 'unverified' })

  expect(fragment(target)).toMatchObject({ error_code: 'provider_email_needs_verification' })
})

it('diff-auth-6 when an old refresh token comes back, the newest one is void at once', async () => {
  const person = await signUp()
  const first = (await person.client.auth.getSession()).data.session!.refresh_token
  const second = (await refresh(first)).body.refresh_token
  const third = (await refresh(second)).body.refresh_token
  await database()`update auth.refresh_tokens set updated_at = now() - interval '11 seconds' where token = ${first}`

  await refresh(first)

  expect((await refresh(third)).body.error_code).toBe('refresh_token_already_used')
})

it('diff-auth-9 no entry is written to the audit log or to the one-time tokens', async () => {
  await signUp()
  await client().auth.signInWithOtp({ email: address() })

  const [row] = await database()`
    select (select count(*) from auth.audit_log_entries)::int as entries,
      (select count(*) from auth.one_time_tokens)::int as tokens`
  expect(row).toEqual({ entries: 0, tokens: 0 })
})

it('diff-auth-10 a new address is taken as confirmed', async () => {
  const { data } = await client().auth.signUp({ email: address(), password })

  expect(data.session).not.toBeNull()
  expect(data.user!.email_confirmed_at).toBeTruthy()
})

it('diff-auth-12 signing up for an unconfirmed account makes the new password its only one', async () => {
  const email = address()
  await admin().auth.admin.createUser({ email, password })

  const { data } = await client().auth.signUp({ email, password: 'another horse entirely' })

  expect(data.session).not.toBeNull()
  expect((await client().auth.signInWithPassword({ email, password })).error).toMatchObject({
    code: 'invalid_credentials',
  })
  const renewed = await client().auth.signInWithPassword({ email, password: 'another horse entirely' })
  expect(renewed.error).toBeNull()
})
