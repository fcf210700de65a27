import { randomUUID } from 'node:crypto'
import { createClient, type Session, type SupabaseClient } from '@supabase/supabase-js'
import { decodeJwt } from 'jose'
import { describe, expect, it } from 'vitest'
import WebSocket from 'ws'
import { fragment, linkIn, mailTo, signInThrough, ways } from './support/auth.ts'
import { client, database, publishableKey, signUp, url } from './support/local.ts'

const address = () => `person-${randomUUID()}@example.com`
const password = 'correct horse battery staple'

/** A client that keeps PKCE verifiers, as a browser does. */
function pkceClient(): SupabaseClient {
  const kept = new Map<string, string>()
  const storage = {
    getItem: (key: string) => kept.get(key) ?? null,
    setItem: (key: string, value: string) => void kept.set(key, value),
    removeItem: (key: string) => void kept.delete(key),
  }
  const auth = { flowType: 'pkce' as const, storage, autoRefreshToken: false, detectSessionInUrl: false }
  return createClient(url, publishableKey, { auth, realtime: { transport: WebSocket as never } })
}

/** The session that the fragment of an address carries. */
async function adopt(target: URL): Promise<Session> {
  const { access_token, refresh_token } = fragment(target)
  const { data, error } = await client().auth.setSession({
    access_token: access_token!,
    refresh_token: refresh_token!,
  })
  if (error) throw error
  return data.session!
}

const hoursAgo = (hours: number) => new Date(Date.now() - hours * 3_600_000).toISOString()

describe('e-mail and password', () => {
  it('S-01 L-01 M-01 somebody registers, signs in, refreshes and signs out', async () => {
    const email = address()
    const person = client()

    const registered = await person.auth.signUp({ email, password, options: { data: { nickname: 'Ada' } } })
    expect(registered.error).toBeNull()
    expect(registered.data.user).toMatchObject({ email, user_metadata: { nickname: 'Ada' }, is_anonymous: false })
    await person.auth.signOut()

    const signedIn = await person.auth.signInWithPassword({ email, password })
    expect(signedIn.error).toBeNull()
    const refreshed = await person.auth.refreshSession()
    expect(refreshed.data.session!.refresh_token).not.toBe(signedIn.data.session!.refresh_token)
    expect((await person.auth.getUser()).data.user!.email).toBe(email)
    expect((await person.from('profiles').select('id').eq('id', registered.data.user!.id)).data).toHaveLength(1)

    const { access_token: token, refresh_token } = refreshed.data.session!
    expect((await person.auth.signOut()).error).toBeNull()
    expect((await client().auth.getUser(token)).error).toMatchObject({ name: 'AuthSessionMissingError' })
    expect((await client().auth.refreshSession({ refresh_token })).error).toMatchObject({ status: 400 })
  })

  it('S-01 L-01 M-01 a forgotten password is reset by the code of the e-mail in one call, and the old one is void', async () => {
    const { email, client: person } = await signUp()
    await person.auth.signOut()

    expect((await client().auth.resetPasswordForEmail(email)).error).toBeNull()
    const { otp } = await mailTo(url, email, 'recovery')
    const verified = await person.auth.verifyOtp({ email, token: otp, type: 'recovery' })
    expect(verified.error).toBeNull()
    expect((await person.auth.updateUser({ password: 'another horse entirely' })).error).toBeNull()

    const old = await client().auth.signInWithPassword({ email, password })
    expect(old.error).toMatchObject({ status: 400, code: 'invalid_credentials' })
    const renewed = await client().auth.signInWithPassword({ email, password: 'another horse entirely' })
    expect(renewed.error).toBeNull()
    const again = await client().auth.verifyOtp({ email, token: otp, type: 'recovery' })
    expect(again.error).toMatchObject({ status: 403, code: 'otp_expired' })
  })

  it('L-01 a code from an e-mail signs in, and verifies the address of somebody new', async () => {
    const email = address()
    const person = client()

    expect((await person.auth.signInWithOtp({ email })).error).toBeNull()
    const { otp } = await mailTo(url, email)
    const { data, error } = await person.auth.verifyOtp({ email, token: otp, type: 'email' })

    expect(error).toBeNull()
    expect(data.user).toMatchObject({ email, user_metadata: { email_verified: true } })
    expect(data.user!.email_confirmed_at).toBeTruthy()
    expect((await person.rpc('me')).error).toBeNull()
  })

  it('L-01 the link of an e-mail signs in and returns to the allowed page that was asked for', async () => {
    const email = address()
    const emailRedirectTo = 'http://localhost:4000/after?step=2'

    await client().auth.signInWithOtp({ email, options: { emailRedirectTo } })
    const link = linkIn(await mailTo(url, email))
    const answer = await fetch(link, { redirect: 'manual' })

    expect(answer.status).toBe(303)
    const target = new URL(answer.headers.get('location')!)
    expect(`${target.origin}${target.pathname}${target.search}`).toBe(emailRedirectTo)
    expect((await adopt(target)).user.email).toBe(email)
  })
})

describe('sessions', () => {
  it('V-27 an access token names its issuer and lives for one hour', async () => {
    const { token } = await signUp()

    const claims = decodeJwt(token)

    expect(claims).toMatchObject({ iss: `${url}/auth/v1`, aud: 'authenticated', role: 'authenticated', aal: 'aal1' })
    expect(claims.exp! - claims.iat!).toBe(3600)
    const { data, error } = await client().auth.getClaims(token)
    expect(error).toBeNull()
    expect(data!.header.alg).toBe('ES256')
  })

  it('V-27 a session ends after 7 days without use', async () => {
    const { id, client: person } = await signUp()
    const refreshToken = (await person.auth.getSession()).data.session!.refresh_token
    const used = (hours: number) => database()`
      with s as (update auth.sessions set refreshed_at = ${hoursAgo(hours)}::text::timestamptz at time zone 'utc' where user_id = ${id})
      update auth.refresh_tokens set updated_at = ${hoursAgo(hours)}::text::timestamptz where user_id = ${id}`

    await used(167)
    const within = await person.auth.refreshSession({ refresh_token: refreshToken })
    expect(within.error).toBeNull()
    await used(169)
    const late = await person.auth.refreshSession({ refresh_token: within.data.session!.refresh_token })

    expect(late.error).toMatchObject({ status: 400, code: 'session_expired' })
  })

  it('V-27 a session ends after 30 days, however much it is used', async () => {
    const { id, client: person } = await signUp()
    const begun = (hours: number) => database()`
      update auth.sessions set created_at = ${hoursAgo(hours)}::text::timestamptz where user_id = ${id}`

    await begun(719)
    expect((await person.auth.refreshSession()).error).toBeNull()
    await begun(721)

    expect((await person.auth.refreshSession()).error).toMatchObject({ status: 400, code: 'session_expired' })
  })
})

describe('providers', () => {
  it.each(ways)('V-28 K-02 %s signs somebody in, with the tokens in the fragment', async (way) => {
    const email = address()

    const target = await signInThrough(client(), url, way, email)

    expect(`${target.origin}${target.pathname}`).toBe('http://localhost:3000/welcome')
    const session = await adopt(target)
    expect(session.user).toMatchObject({ email, app_metadata: { provider: way, providers: [way] } })
    expect(session.user.identities!.map(({ provider }) => provider)).toEqual([way])
    expect(fragment(target).provider_token).toBeTruthy()
    const again = await adopt(await signInThrough(client(), url, way, email))
    expect(again.user.id).toBe(session.user.id)
  })

  it.each(ways)('V-28 K-02 %s signs somebody in by PKCE, with a code that is exchanged once', async (way) => {
    const email = address()
    const person = pkceClient()

    const target = await signInThrough(person, url, way, email)

    expect(target.hash).toBe('')
    const code = target.searchParams.get('code')!
    const { data, error } = await person.auth.exchangeCodeForSession(code)
    expect(error).toBeNull()
    expect(data.user!.email).toBe(email)
    expect(data.session!.provider_token).toBeTruthy()
    const { data: profiles } = await person.from('profiles').select('id').eq('id', data.user!.id)
    expect(profiles).toHaveLength(1)
    const replay = await fetch(`${url}/auth/v1/token?grant_type=pkce`, {
      method: 'POST',
      headers: { apikey: publishableKey, 'content-type': 'application/json' },
      body: JSON.stringify({ auth_code: code, code_verifier: 'x'.repeat(43) }),
    })
    expect(replay.status).toBe(404)
  })
})
