import { randomUUID } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { browse, fragment, signInThrough, ways } from '../support/auth.ts'
import { admin, client, database, signUp, url } from '../support/local.ts'

const address = () => `person-${randomUUID()}@example.com`
const authorize = (query: Record<string, string>) =>
  fetch(`${url}/auth/v1/authorize?${new URLSearchParams(query)}`, { redirect: 'manual' })
const errorOf = (target: URL) => Object.fromEntries(target.searchParams)

/** Goes to the provider and stops where it sends the browser back to us. */
async function callbackOf(email: string, query: Record<string, string> = {}): Promise<string> {
  const begin = await authorize({
    provider: 'github',
    login_hint: email,
    redirect_to: 'http://localhost:3000/w',
    ...query,
  })
  const provider = await fetch(begin.headers.get('location')!, { redirect: 'manual' })
  return provider.headers.get('location')!
}

describe('identities', () => {
  it('a verified address joins the account that has it, keeping its password', async () => {
    const person = await signUp()

    const target = await signInThrough(client(), url, 'google', person.email)

    const { data } = await client().auth.getUser(fragment(target).access_token)
    expect(data.user!.id).toBe(person.id)
    expect(data.user!.app_metadata).toMatchObject({ providers: ['email', 'google'] })
    expect((await client().auth.signInWithPassword(person)).error).toBeNull()
  })

  it.each(['google', 'discord', 'github', 'apple'] as const)(
    'an address that %s has not verified never opens the account of its owner',
    async (way) => {
      const owner = await signUp()

      const target = await signInThrough(client(), url, way, owner.email, { sandbox: 'unverified' })

      expect(errorOf(target)).toMatchObject({ error: 'access_denied', error_code: 'provider_email_needs_verification' })
      const identities = await database()`select provider from auth.identities where user_id = ${owner.id}`
      expect(identities.map(({ provider }) => provider)).toEqual(['email'])
    },
  )

  it('one person through five providers is one account', async () => {
    const email = address()
    const ids = new Set<string>()

    for (const way of ways) {
      const { access_token } = fragment(await signInThrough(client(), url, way, email))
      const { data } = await client().auth.getUser(access_token)
      ids.add(data.user!.id)
    }

    expect(ids.size).toBe(1)
    const identities = await database()`select provider from auth.identities where user_id = ${[...ids][0]!}`
    expect(identities.map(({ provider }) => provider).sort()).toEqual([...ways].sort())
  })

  it('two sign-ins of somebody new at the same time make one account', async () => {
    const email = address()

    const targets = await Promise.all([1, 2, 3].map(() => signInThrough(client(), url, 'github', email)))

    expect(targets.every((target) => fragment(target).access_token)).toBe(true)
    expect(await database()`select from auth.users where email = ${email}`).toHaveLength(1)
  })

  it('somebody new through five providers at the same time is one account', async () => {
    const email = address()

    const targets = await Promise.all(ways.map((way) => signInThrough(client(), url, way, email)))

    expect(targets.map((target) => Boolean(fragment(target).access_token))).toEqual(ways.map(() => true))
    expect(await database()`select from auth.users where email = ${email}`).toHaveLength(1)
  })

  it('somebody banned is turned away at the end', async () => {
    const person = await signUp()
    await signInThrough(client(), url, 'github', person.email)
    await admin().auth.admin.updateUserById(person.id, { ban_duration: '1h' })

    const target = await signInThrough(client(), url, 'github', person.email)

    expect(errorOf(target)).toMatchObject({ error: 'access_denied', error_code: 'user_banned' })
  })

  it('what a provider says of somebody is kept as text only', async () => {
    const email = address()
    const name = `<img src=x onerror=alert(1)>'; drop table auth.users; --`

    const { access_token } = fragment(await signInThrough(client(), url, 'google', email, { name }))

    const { data } = await client().auth.getUser(access_token)
    expect(data.user!.user_metadata).toMatchObject({ full_name: name, email, email_verified: true })
  })

  it('Apple’s form brings the name that no token carries', async () => {
    const email = address()

    const { access_token } = fragment(await signInThrough(client(), url, 'apple', email, { name: 'Ada Lovelace' }))

    expect((await client().auth.getUser(access_token)).data.user!.user_metadata).toMatchObject({
      full_name: 'Ada Lovelace',
    })
  })
})

describe('state', () => {
  it('works once: of two callbacks with the same code one signs in', async () => {
    const callback = await callbackOf(address())

    const targets = await Promise.all([1, 2].map(() => browse(url, callback)))

    expect(targets.filter((target) => fragment(target).access_token)).toHaveLength(1)
    const other = targets.find((target) => !fragment(target).access_token)!
    expect(errorOf(other)).toMatchObject({ error: 'invalid_request', error_code: 'bad_oauth_state' })
  })

  it('expires after five minutes', async () => {
    const callback = new URL(await callbackOf(address()))
    const state = callback.searchParams.get('state')!
    await database()`update auth.flow_state set created_at = now() - interval '6 minutes' where id = ${state}`

    const target = await browse(url, callback.href)

    expect(target.origin).toBe('http://localhost:3000')
    expect(errorOf(target)).toMatchObject({
      error_code: 'bad_oauth_state',
      error_description: 'OAuth state has expired',
    })
  })

  it.each(['', randomUUID(), 'nonsense', `' or 1=1 --`])(
    'that was never issued ("%s") leads to the site with an error',
    async (state) => {
      const target = await browse(url, `${url}/auth/v1/callback?${new URLSearchParams({ state, code: 'x' })}`)

      expect(`${target.origin}${target.pathname}`).toBe('http://localhost:3000/')
      expect(errorOf(target).error).toBe('invalid_request')
      expect(target.href).not.toContain('access_token')
    },
  )

  it('of an e-mail flow is none', async () => {
    const { id } = await signUp()
    const [flow] = await database()`
      insert into auth.flow_state (id, user_id, authentication_method, provider_type, code_challenge, auth_code)
      values (gen_random_uuid(), ${id}, 'magiclink', 'magiclink', 'x', 'y') returning id`

    const target = await browse(url, `${url}/auth/v1/callback?state=${flow!.id}&code=x`)

    expect(errorOf(target)).toMatchObject({ error_code: 'bad_oauth_state' })
  })
})

describe('errors', () => {
  it('of a person who declines are told to the page that began', async () => {
    const target = await signInThrough(client(), url, 'github', address(), { sandbox: 'denied' })

    expect(`${target.origin}${target.pathname}`).toBe('http://localhost:3000/welcome')
    expect(errorOf(target)).toMatchObject({ error: 'access_denied' })
    expect(errorOf(target).error_description).toBeTruthy()
    expect(fragment(target).error).toBe('access_denied')
  })

  it('of a provider that does not know the code, or names no address, are told too', async () => {
    const callback = new URL(await callbackOf(address()))
    callback.searchParams.set('code', 'made-up')
    const unknown = await browse(url, callback.href)
    const nameless = await signInThrough(client(), url, 'x', address(), { sandbox: 'no-email' })

    expect(errorOf(unknown)).toMatchObject({
      error: 'server_error',
      error_description: 'Unable to exchange external code: made',
    })
    expect(errorOf(nameless)).toMatchObject({ error_description: 'Error getting user email from external provider' })
  })

  it('an unknown provider or one that is off is refused before anything begins', async () => {
    for (const provider of ['facebook', 'nobody', '', '__proto__', 'constructor']) {
      const answer = await authorize({ provider })
      expect([answer.status, (await answer.json()).error_code], provider).toEqual([400, 'validation_failed'])
    }
  })

  it('a page that is not allowed never sees a token', async () => {
    const target = await signInThrough(client(), url, 'github', address(), {}, 'https://evil.example/steal')

    expect(target.origin).toBe('http://localhost:3000')
  })

  it('the browser cannot bend what we ask of a provider', async () => {
    const answer = await authorize({
      provider: 'github',
      redirect_uri: 'https://evil.example/',
      client_id: 'evil',
      state: 'evil',
      response_type: 'token',
      response_mode: 'fragment',
      code_challenge: 'x'.repeat(43),
      code_challenge_method: 's256',
      prompt: 'login',
    })

    const asked = new URL(answer.headers.get('location')!).searchParams
    expect(Object.fromEntries(asked)).toMatchObject({
      redirect_uri: `${url}/auth/v1/callback`,
      client_id: 'sandbox',
      response_type: 'code',
      prompt: 'login',
      state: expect.stringMatching(/^[\da-f-]{36}$/),
    })
    // Our client's challenge is for us; the provider would hold us to it.
    for (const ours of ['code_challenge', 'response_mode', 'redirect_to', 'provider'])
      expect(asked.has(ours)).toBe(false)
  })
})
