import { createHash, randomUUID } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { fragment, linkIn, mailTo } from '../support/auth.ts'
import { client, database, publishableKey, signUp, url } from '../support/local.ts'

const address = () => `person-${randomUUID()}@example.com`
const site = 'http://localhost:3000'
const headers = { apikey: publishableKey, 'content-type': 'application/json' }
const post = (path: string, body: unknown, more: Record<string, string> = {}) =>
  fetch(`${url}/auth/v1${path}`, { method: 'POST', headers: { ...headers, ...more }, body: JSON.stringify(body) })
const follow = async (link: string) => new URL((await fetch(link, { redirect: 'manual' })).headers.get('location')!)

/** A verifier and the challenge made of it, as RFC 7636 wants them. */
function challenge() {
  const verifier = `${randomUUID()}${randomUUID()}`
  const code_challenge = createHash('sha256').update(verifier).digest('base64url')
  return { verifier, body: { code_challenge, code_challenge_method: 's256' } }
}
const exchange = (code: string, verifier: string) =>
  post('/token?grant_type=pkce', { auth_code: code, code_verifier: verifier })

describe('codes and links', () => {
  it('a link works once, and then says so at the page it returns to', async () => {
    const email = address()
    await client().auth.signInWithOtp({ email })
    const link = linkIn(await mailTo(url, email))

    expect(fragment(await follow(link))).toMatchObject({ type: 'magiclink', token_type: 'bearer', expires_in: '3600' })
    const again = await follow(link)

    expect(again.origin).toBe(site)
    expect(fragment(again)).toMatchObject({ error: 'access_denied', error_code: 'otp_expired' })
  })

  it('the hash of a link signs in through verifyOtp, once, whoever asks first', async () => {
    const email = address()
    await client().auth.signInWithOtp({ email })
    const { token_hash } = await mailTo(url, email)

    const answers = await Promise.all([1, 2, 3].map(() => client().auth.verifyOtp({ token_hash, type: 'email' })))

    expect(answers.filter(({ error }) => !error)).toHaveLength(1)
    for (const { error } of answers.filter(({ error }) => error)) {
      expect(error).toMatchObject({ status: 403, code: 'otp_expired' })
    }
  })

  it('a code is refused when it is wrong, of another address, of another type, or an hour old', async () => {
    const person = await signUp()
    await client().auth.resetPasswordForEmail(person.email)
    const { otp } = await mailTo(url, person.email, 'recovery')
    const wrong = otp === '123456' ? '654321' : '123456'
    const verify = (email: string, token: string, type: 'recovery' | 'email_change' | 'signup') =>
      client().auth.verifyOtp({ email, token, type })

    const refused = [
      await verify(person.email, wrong, 'recovery'),
      await verify(address(), otp, 'recovery'),
      await verify(person.email, otp, 'email_change'),
      await verify(person.email, otp, 'signup'),
    ]
    await database()`update auth.users set recovery_sent_at = now() - interval '3601 seconds' where id = ${person.id}`
    refused.push(await verify(person.email, otp, 'recovery'))

    for (const { error } of refused) expect(error).toMatchObject({ status: 403, code: 'otp_expired' })
    const odd = await post('/verify', { type: 'sideways', email: person.email, token: otp })
    expect(odd.status).toBe(400)
  })

  it('shouldCreateUser: false makes no account and says so', async () => {
    const email = address()

    const { error } = await client().auth.signInWithOtp({ email, options: { shouldCreateUser: false } })

    expect(error).toMatchObject({ status: 422, code: 'otp_disabled' })
    expect(await database()`select from auth.users where email = ${email}`).toHaveLength(0)
  })

  it('a second e-mail within a second is refused, as hosted refuses it within a minute', async () => {
    const { email } = await signUp()

    const both = [await client().auth.resetPasswordForEmail(email), await client().auth.resetPasswordForEmail(email)]

    expect(both[1]!.error).toMatchObject({ status: 429, code: 'over_email_send_rate_limit' })
  })
})

describe('redirects', () => {
  it.each([
    ['http://localhost:8080/deep/path?x=1', true],
    ['parlor://signed-in', true],
    ['http://127.0.0.1:5173/', true],
    ['https://evil.example/', false],
    ['http://localhost.evil.example/', false],
    ['http://localhost:3000@evil.example/', false],
    ['javascript:alert(1)', false],
    ['//evil.example', false],
    ['https://2130706433/', false],
  ])('to %s: allowed %s', async (redirectTo, allowed) => {
    const email = address()
    await client().auth.signInWithOtp({ email, options: { emailRedirectTo: redirectTo } })

    const link = new URL(linkIn(await mailTo(url, email)))
    expect(link.searchParams.get('redirect_to')).toBe(allowed ? redirectTo : site)

    // Whoever changes the address in the link gains nothing.
    link.searchParams.set('redirect_to', redirectTo)
    const target = await follow(link.href)
    expect(target.href.startsWith(allowed ? redirectTo : site)).toBe(true)
  })
})

describe('PKCE links', () => {
  it('end in a code that only the verifier redeems, once', async () => {
    const email = address()
    const { verifier, body } = challenge()
    await post('/otp', { email, create_user: true, ...body })

    const target = await follow(linkIn(await mailTo(url, email)))
    const code = target.searchParams.get('code')!

    expect(target.hash).toBe('')
    expect((await (await exchange(code, 'x'.repeat(43))).json()).error_code).toBe('bad_code_verifier')
    const both = await Promise.all([exchange(code, verifier), exchange(code, verifier)])
    expect(both.map(({ status }) => status).sort()).toEqual([200, 404])
  })

  it('of an e-mail with a code can be answered by typing the code too', async () => {
    const email = address()
    await post('/otp', { email, ...challenge().body })
    const { otp, token_hash } = await mailTo(url, email)

    expect(token_hash).toMatch(/^pkce_/)
    expect((await client().auth.verifyOtp({ email, token: otp, type: 'email' })).error).toBeNull()
  })

  it('expire after five minutes, and a broken challenge is refused', async () => {
    const { email, id } = await signUp()
    const { verifier, body } = challenge()
    await post('/recover', { email, ...body })
    const target = await follow(linkIn(await mailTo(url, email, 'recovery')))
    await database()`update auth.flow_state set created_at = now() - interval '6 minutes' where user_id = ${id}`

    const late = await exchange(target.searchParams.get('code')!, verifier)

    expect([late.status, (await late.json()).error_code]).toEqual([422, 'flow_state_expired'])
    for (const broken of [
      { code_challenge: 'short', code_challenge_method: 's256' },
      { code_challenge: 'x'.repeat(43) },
    ]) {
      expect((await post('/otp', { email: address(), ...broken })).status).toBe(400)
    }
  })
})

describe('changing the address', () => {
  it('takes the word of both mailboxes', async () => {
    const person = await signUp()
    const next = address()

    const { data } = await person.client.auth.updateUser({ email: next })
    expect(data.user).toMatchObject({ email: person.email, new_email: next })
    const [present, coming] = await Promise.all([mailTo(url, person.email, 'email_change'), mailTo(url, next)])

    const first = await client().auth.verifyOtp({ email: next, token: coming.otp, type: 'email_change' })
    expect(first.data.session).toBeNull()
    expect((await person.client.auth.getUser()).data.user!.email).toBe(person.email)
    const second = await client().auth.verifyOtp({ token_hash: present.token_hash, type: 'email_change' })

    expect(second.error).toBeNull()
    expect(second.data.user).toMatchObject({ email: next })
    expect(second.data.user!.identities![0]!.identity_data).toMatchObject({ email: next, email_verified: true })
    expect((await client().auth.signInWithPassword({ email: next, password: person.password })).error).toBeNull()
    expect((await client().auth.signInWithPassword(person)).error).not.toBeNull()
  })

  it('refuses an address that somebody else has, at once and at the end', async () => {
    const [person, owner] = [await signUp(), await signUp()]
    const taken = await person.client.auth.updateUser({ email: owner.email })
    expect(taken.error).toMatchObject({ status: 422, code: 'email_exists' })

    const next = address()
    await person.client.auth.updateUser({ email: next })
    const mails = await Promise.all([mailTo(url, person.email, 'email_change'), mailTo(url, next)])
    await signUp({ email: next })
    await client().auth.verifyOtp({ token_hash: mails[0].token_hash, type: 'email_change' })
    const last = await client().auth.verifyOtp({ token_hash: mails[1].token_hash, type: 'email_change' })

    expect(last.error).toMatchObject({ status: 422, code: 'email_exists' })
    expect((await person.client.auth.getUser()).data.user!.email).toBe(person.email)
  })
})
