import { execFile } from 'node:child_process'
import { createHash, randomUUID } from 'node:crypto'
import http from 'node:http'
import { promisify } from 'node:util'
import { createRemoteJWKSet, jwtVerify } from 'jose'
import { beforeAll, describe, expect, it } from 'vitest'
import { until, url } from '../support/local.ts'
import { denoExecutable } from './fixtures/functions-host.ts'

const model = `${url}/sandbox/openai`
const json = { 'content-type': 'application/json', authorization: 'Bearer sandbox' }
const post = (path: string, body: unknown, init: RequestInit = {}) =>
  fetch(model + path, { method: 'POST', headers: json, body: JSON.stringify(body), ...init })

describe('the sandbox model, by the openai SDK under Deno', () => {
  interface Seen {
    text: string
    deltas: string[]
    finish: string | null
    usage: Record<string, number> | null
    emptyChoices: number
    error: { name: string; status?: number; code?: string | null; retryAfter?: string } | null
  }
  // biome-ignore lint/suspicious/noExplicitAny: what the script prints is the SDK's business.
  let seen: any
  let whole: Seen
  const mark = randomUUID()
  beforeAll(async () => {
    const args = ['run', '-A', '--quiet', 'tests/local/fixtures/openai-sdk.ts', `${model}/v1`, mark]
    const { stdout } = await promisify(execFile)(denoExecutable(), args, { maxBuffer: 1 << 26 })
    seen = JSON.parse(stdout)
    whole = seen.whole
  })

  it('diff-sandbox-1: answers in character and always the same, word by word, and ends with usage', () => {
    expect(whole.text).toContain('Mara Vell')
    expect(whole.text).toContain(`“Is it raining — 今日? ${mark}”`)
    expect(whole.text.match(/[.?!”]/g)!.length).toBeGreaterThan(3)
    expect(whole.deltas.length).toBeGreaterThan(20)
    expect(whole).toMatchObject({ finish: 'stop', error: null })
    expect(seen.again.text).toBe(whole.text)
    expect(whole.usage!.completion_tokens).toBeGreaterThan(20)
    expect(whole.usage!.total_tokens).toBe(whole.usage!.prompt_tokens! + whole.usage!.completion_tokens!)
  })

  it('answers without streaming with the same words', () => {
    expect(seen.plain.choices[0]).toMatchObject({
      finish_reason: 'stop',
      message: { role: 'assistant', content: whole.text },
    })
    expect(seen.plain.usage).toEqual(whole.usage)
  })

  it('says how much of a prompt it has seen before', async () => {
    const long = `${randomUUID()} ${'A lighthouse by the sea. '.repeat(220)}`
    const ask = async (...contents: string[]) => {
      const messages = contents.map((content) => ({ role: 'user', content }))
      const response = await post('/v1/chat/completions', { model: 'cached', messages })
      return (await response.json()).usage.prompt_tokens_details.cached_tokens
    }

    expect(await ask(long, 'One?')).toBe(0)
    expect(await ask(long, 'Two?')).toBe(1280)
    expect(await ask('Short.')).toBe(0)
    expect(await ask('Short.')).toBe(0)
  })

  it('goes on from an assistant message at the end', () => {
    expect(whole.text.slice(0, 40) + seen.prefilled.text).toBe(whole.text)
  })

  it('keeps to max_tokens and stop', () => {
    expect(seen.limited).toMatchObject({ finish: 'length' })
    expect(whole.text.startsWith(seen.limited.text)).toBe(true)
    expect(seen.limited.usage.completion_tokens).toBeLessThanOrEqual(10)
    expect(seen.stopped.finish).toBe('stop')
    expect(seen.stopped.text).toBe(whole.text.slice(0, whole.text.indexOf(', you say')))
  })

  it.each([
    ['rate-limit-7', { name: 'RateLimitError', status: 429, code: 'rate_limit_exceeded', retryAfter: '7' }],
    ['error-500', { name: 'InternalServerError', status: 500 }],
    ['error-html-500', { name: 'InternalServerError', status: 500 }],
    ['insufficient-quota', { name: 'RateLimitError', status: 429, code: 'insufficient_quota' }],
    ['context-10', { name: 'BadRequestError', status: 400, code: 'context_length_exceeded' }],
    ['misspelt', { name: 'NotFoundError', status: 404, code: 'model_not_found' }],
  ])('%s fails before the first token', (fault, error) => {
    expect(seen[fault].error).toMatchObject(error)
    expect(seen[fault].text).toBe('')
  })

  it.each([
    ['cut', null],
    ['cut-socket', { name: 'TypeError' }],
    ['error-in-stream', { name: 'APIError', code: 'provider_error' }],
  ])('%s fails in the middle of the answer', (fault, error) => {
    expect(seen[fault].deltas.length).toBeGreaterThan(2)
    expect(seen[fault].finish).toBeNull()
    expect(seen[fault].usage).toBeNull()
    if (error) expect(seen[fault].error).toMatchObject(error)
    else expect(seen[fault].error).toBeNull()
  })

  it('leaves out the usage, alone and with another fault', () => {
    for (const fault of ['no-usage', 'slow-1+no-usage'])
      expect(seen[fault]).toMatchObject({ text: whole.text, finish: 'stop', usage: null })
  })

  it('puts the error into a 200 when asked to', () => {
    expect(seen.errorIn200).toMatchObject({ error: { code: 502 } })
  })

  it('answers in one piece although a stream was asked for', () => {
    expect(seen.notStreaming.choices[0].message.content).toBe(whole.text)
  })

  it('sends a chunk without choices in the middle', () => {
    expect(seen['empty-choices']).toMatchObject({ text: whole.text, emptyChoices: 1 })
  })

  it('sends text that finds careless consumers', () => {
    const { text, deltas } = seen.hostile as Seen
    for (const part of ['\0', '<script>', "'; drop table", 'data: [DONE]', '\u202e', '😀']) expect(text).toContain(part)
    expect(deltas).toContain('pair split: \ud83d')
  })

  it('repeats what was said when asked to', () => {
    expect(seen.echo.text).toBe(`Is it raining — 今日? ${mark}`)
  })

  it('lists its models', () => {
    expect(seen.models).toContain('sandbox/stall')
    expect(seen.model).toMatchObject({ id: 'sandbox/cut', object: 'model' })
  })

  it('embeds into unit vectors of the asked width, near each other for texts that share words', () => {
    const [cat, otherCat, stocks] = seen.embeddings.floats as number[][]
    const dot = (a: number[], b: number[]) => a.reduce((sum, value, index) => sum + value * b[index]!, 0)

    expect(cat).toHaveLength(64)
    expect(dot(cat!, cat!)).toBeCloseTo(1, 5)
    expect(dot(cat!, otherCat!)).toBeGreaterThan(dot(cat!, stocks!) + 0.2)
    expect(seen.embeddings.base64[0]).toEqual(cat)
    expect(seen.embeddings.usual).toBe(1536)
  })

  it('flags the words of its list', () => {
    const [nice, threat] = seen.moderations

    expect(nice.flagged).toBe(false)
    expect(threat).toMatchObject({ flagged: true, categories: { 'harassment/threatening': true, violence: false } })
  })
})

describe('the sandbox model on the wire', () => {
  const ask = (fault: string, mark: string, more: object = {}) => ({
    model: fault,
    stream: true,
    messages: [{ role: 'user', content: mark }],
    ...more,
  })
  const logged = async (mark: string) => (await (await fetch(`${model}/log?contains=${mark}`)).json()).requests[0]

  it('cuts characters of several bytes across writes', async () => {
    const parts: Buffer[] = []
    const request = http.request(`${model}/v1/chat/completions`, { method: 'POST', headers: json })
    request.end(JSON.stringify(ask('sandbox/echo', '日本語 日本語 日本語')))
    const response = await new Promise<http.IncomingMessage>((resolve) => request.once('response', resolve))
    for await (const part of response) parts.push(part)

    const split = parts.filter((part) => new TextDecoder().decode(part).includes('\ufffd'))
    expect(split.length).toBeGreaterThan(1)
    expect(Buffer.concat(parts).toString()).toContain('日本語')
    expect(Buffer.concat(parts).toString()).not.toContain('\ufffd')
  })

  it('waits in the middle of an answer until it is released', async () => {
    const mark = randomUUID()
    const answer = await post('/v1/chat/completions', ask('sandbox/stall', mark))
    const text = answer.text()
    await until(async () => (await logged(mark))?.state === 'stalled')
    expect((await logged(mark)).deltas).toBeGreaterThan(2)

    const { released } = await (await post('/release', { contains: mark })).json()

    expect(released).toBe(1)
    expect(await text).toContain('data: [DONE]')
    expect(await logged(mark)).toMatchObject({ state: 'done', closed_early: false })
  })

  it('waits before the headers until it is released', async () => {
    const mark = randomUUID()
    const answer = post('/v1/chat/completions', ask('sandbox/stall-before', mark))
    const { id } = await until(async () => {
      const entry = await logged(mark)
      return entry?.state === 'stalled' ? entry : null
    })

    await post('/release', { id })

    expect(await (await answer).text()).toContain('data: [DONE]')
  })

  it.each(['sandbox/stall', 'sandbox/slow-50', 'sandbox/stall-before'])(
    'records that the client of %s went away',
    async (fault) => {
      const mark = randomUUID()
      const leave = new AbortController()
      const answer = post('/v1/chat/completions', ask(fault, mark), { signal: leave.signal }).catch(() => {})
      await until(async () => ['stalled', 'streaming'].includes((await logged(mark))?.state))

      leave.abort()

      await answer
      await until(async () => (await logged(mark)).closed_early)
      expect((await logged(mark)).state).toBe('closed-early')
    },
  )

  it('keeps what it was asked, without the key', async () => {
    const mark = randomUUID()
    await (await post('/v1/chat/completions', ask('any', mark, { temperature: 0.5 }))).text()

    const entry = await logged(mark)

    expect(entry).toMatchObject({
      model: 'any',
      state: 'done',
      body: { temperature: 0.5 },
      headers: { authorization: 'Bearer …' },
    })
  })

  it.each([
    ['no key', 401, {}, ask('any', 'x')],
    ['no model', 400, json, { messages: [{ role: 'user', content: 'x' }] }],
    ['no messages', 400, json, { model: 'any' }],
    ['no object', 400, json, 'text'],
  ])('refuses a request with %s', async (_, status, headers, body) => {
    const answer = await fetch(`${model}/v1/chat/completions`, {
      method: 'POST',
      headers: headers as HeadersInit,
      body: JSON.stringify(body),
    })

    expect(answer.status).toBe(status)
    expect((await answer.json()).error.message).toBeTruthy()
  })
})

describe('the inbox', () => {
  const inbox = `${url}/sandbox/inbox`
  const send = (message: object) => fetch(inbox, { method: 'POST', headers: json, body: JSON.stringify(message) })

  it('keeps e-mails, newest first, by address', async () => {
    const to = `Person-${randomUUID()}@example.com`
    await send({ to, subject: 'first', text: 'one', otp: '123456' })
    await send({ to: to.toLowerCase(), subject: 'second', text: 'two' })

    const { messages } = await (await fetch(`${inbox}?to=${to}`)).json()

    expect(messages.map((message: { subject: string }) => message.subject)).toEqual(['second', 'first'])
    expect(messages[1]).toMatchObject({ otp: '123456', to })
  })

  it('forgets the e-mails of an address when asked to', async () => {
    const to = `${randomUUID()}@example.com`
    await send({ to, subject: 'gone' })

    expect((await fetch(`${inbox}?to=${to}`, { method: 'DELETE' })).status).toBe(204)

    expect(await (await fetch(`${inbox}?to=${to}`)).json()).toEqual({ messages: [] })
  })

  it('shows a browser a page on which no e-mail can run a script', async () => {
    const to = `${randomUUID()}@example.com`
    await send({ to, subject: '<script>alert(1)</script>', html: '<b>hi</b>"><script>alert(2)</script>' })

    const page = await (await fetch(`${inbox}?to=${to}`, { headers: { accept: 'text/html' } })).text()

    expect(page).toContain('&lt;script&gt;alert(1)')
    expect(page).not.toContain('<script>')
    expect(page).toContain('srcdoc="&lt;b&gt;hi')
  })

  it('refuses what is no e-mail', async () => {
    expect((await send({ subject: 'to nobody' })).status).toBe(422)
  })

  it('is not readable for web pages of other origins', async () => {
    const answer = await fetch(inbox, { headers: { origin: 'https://evil.example' } })

    expect(answer.headers.get('access-control-allow-origin')).toBeNull()
  })
})

describe('a sign-in provider', () => {
  const base = (provider: string) => `${url}/sandbox/oidc/${provider}`
  const callback = `${url}/auth/v1/callback`
  const paths: Record<string, [authorize: string, token: string]> = {
    google: ['/authorize', '/token'],
    apple: ['/authorize', '/token'],
    github: ['/login/oauth/authorize', '/login/oauth/access_token'],
    discord: ['/api/oauth2/authorize', '/api/oauth2/token'],
    x: ['/i/oauth2/authorize', '/2/oauth2/token'],
  }
  const verifier = randomUUID() + randomUUID()
  const challenge = createHash('sha256').update(verifier).digest('base64url')

  const authorize = (provider: string, query: Record<string, string> = {}) => {
    const all = {
      client_id: 'sandbox',
      redirect_uri: callback,
      response_type: 'code',
      state: 'a state',
      code_challenge: challenge,
      code_challenge_method: 'S256',
      ...query,
    }
    return fetch(`${base(provider)}${paths[provider]![0]}?${new URLSearchParams(all)}`, { redirect: 'manual' })
  }
  const answerOf = (response: Response) => new URL(response.headers.get('location')!).searchParams
  const codeFor = async (provider: string, query: Record<string, string> = {}) =>
    answerOf(await authorize(provider, { login_hint: 'ada.l@example.com', ...query })).get('code')!
  const exchange = (provider: string, code: string, more: Record<string, string> = {}, headers: HeadersInit = {}) => {
    const form = {
      grant_type: 'authorization_code',
      code,
      redirect_uri: callback,
      code_verifier: verifier,
      client_id: 'sandbox',
      client_secret: 'sandbox',
    }
    return fetch(base(provider) + paths[provider]![1], {
      method: 'POST',
      headers: { accept: 'application/json', ...headers },
      body: new URLSearchParams({ ...form, ...more }),
    })
  }
  const signIn = async (provider: string, query: Record<string, string> = {}) =>
    (await exchange(provider, await codeFor(provider, query))).json()
  const read = async (provider: string, path: string, token: string) =>
    (await fetch(base(provider) + path, { headers: { authorization: `Bearer ${token}` } })).json()

  it('sends the person that login_hint names back with a code and the state', async () => {
    const response = await authorize('google', { login_hint: 'ada@example.com' })

    expect(response.status).toBe(302)
    expect(response.headers.get('location')).toMatch(`${callback}?`)
    expect(answerOf(response).get('state')).toBe('a state')
    expect(answerOf(response).get('code')).toBeTruthy()
  })

  it('shows a page when nobody is named', async () => {
    const response = await authorize('google', { state: '"><script>' })

    expect(response.status).toBe(200)
    const page = await response.text()
    expect(page).toContain('name="as"')
    expect(page).not.toContain('"><script>')
  })

  it.each(['google', 'apple'])(
    '%s proves the person by an id token that its keys and discovery verify',
    async (provider) => {
      const answer = await signIn(provider, { nonce: 'once', name: 'Ada Lovelace' })
      const found = await (await fetch(`${base(provider)}/.well-known/openid-configuration`)).json()

      const { payload, protectedHeader } = await jwtVerify(
        answer.id_token,
        createRemoteJWKSet(new URL(found.jwks_uri)),
        {
          issuer: found.issuer,
          audience: 'sandbox',
        },
      )

      expect(found.issuer).toBe(base(provider))
      expect(protectedHeader.alg).toBe('RS256')
      expect(payload).toMatchObject({
        email: 'ada.l@example.com',
        email_verified: provider === 'apple' ? 'true' : true,
        nonce: 'once',
      })
      expect(
        (await jwtVerify((await signIn(provider)).id_token, createRemoteJWKSet(new URL(found.jwks_uri)))).payload.sub,
      ).toBe(payload.sub)
    },
  )

  it('github tells the person by user and e-mails', async () => {
    const { access_token, token_type } = await signIn('github')

    expect(token_type).toBe('bearer')
    const user = await read('github', '/api/v3/user', access_token)
    expect(user).toMatchObject({ login: 'adal', email: null, id: expect.any(Number) })
    const emails = await read('github', '/api/v3/user/emails', access_token)
    expect(emails).toContainEqual({ email: 'ada.l@example.com', primary: true, verified: true, visibility: 'private' })
  })

  it('github answers form-encoded unless asked for JSON, and its errors with status 200', async () => {
    const form = await exchange('github', await codeFor('github'), {}, { accept: '*/*' })
    expect(new URLSearchParams(await form.text()).get('access_token')).toBeTruthy()

    const refused = await exchange('github', 'no such code')

    expect(refused.status).toBe(200)
    expect(await refused.json()).toMatchObject({ error: 'bad_verification_code' })
  })

  it('discord tells the person by users/@me', async () => {
    const { access_token } = await signIn('discord', { sandbox: 'unverified' })

    expect(await read('discord', '/api/users/@me', access_token)).toMatchObject({
      email: 'ada.l@example.com',
      verified: false,
      id: expect.stringMatching(/^\d+$/),
    })
  })

  it('x wants PKCE, takes the client by Basic, and shows a confirmed address only when asked', async () => {
    const without = await authorize('x', { code_challenge: '', login_hint: 'a@example.com' })
    expect(answerOf(without).get('error')).toBe('invalid_request')
    const basic = { authorization: `Basic ${btoa('sandbox:sandbox')}` }
    const answer = await exchange('x', await codeFor('x'), { client_id: '', client_secret: '' }, basic)
    const { access_token } = await answer.json()

    expect((await read('x', '/2/users/me', access_token)).data).not.toHaveProperty('confirmed_email')
    expect((await read('x', '/2/users/me?user.fields=confirmed_email', access_token)).data.confirmed_email).toBe(
      'ada.l@example.com',
    )
  })

  it('apple posts its answer by a form, with the name beside the code', async () => {
    const query = { scope: 'email name', login_hint: 'ada@example.com', name: 'Ada Lovelace' }
    expect(answerOf(await authorize('apple', query)).get('error')).toBe('invalid_request')

    const page = await (await authorize('apple', { ...query, response_mode: 'form_post' })).text()

    expect(page).toContain(`<form method="post" action="${callback}">`)
    expect(page).toMatch(/name="code" value="[\w-]+"/)
    expect(page).toContain('&quot;firstName&quot;:&quot;Ada&quot;')
  })

  it.each([
    ['google', 'access_denied'],
    ['apple', 'user_cancelled_authorize'],
  ])('%s says that the person declined', async (provider, error) => {
    const answer = answerOf(await authorize(provider, { sandbox: 'denied' }))

    expect(answer.get('error')).toBe(error)
    expect(answer.get('state')).toBe('a state')
  })

  it.each([
    ['a code a second time', {}, true],
    ['a wrong verifier', { code_verifier: 'x'.repeat(43) }, false],
    ['another redirect_uri', { redirect_uri: `${callback}/other` }, false],
    ['a wrong secret', { client_secret: 'wrong' }, false],
    ['another grant type', { grant_type: 'password' }, false],
  ])('refuses %s', async (_, more, twice) => {
    const code = await codeFor('google')
    if (twice) expect((await exchange('google', code)).status).toBe(200)

    const refused = await exchange('google', code, more)

    expect([400, 401]).toContain(refused.status)
    expect(await refused.json()).toHaveProperty('error')
  })

  it('burns a code that was tried with a wrong verifier', async () => {
    const code = await codeFor('google')
    await exchange('google', code, { code_verifier: 'wrong' })

    expect(await (await exchange('google', code)).json()).toMatchObject({ error: 'invalid_grant' })
  })

  it('does not redeem the code of another provider', async () => {
    expect((await exchange('discord', await codeFor('google'))).status).toBe(400)
  })

  it.each([
    ['redirect_uri', 'https://evil.example/callback'],
    ['client_id', 'somebody else'],
  ])('never sends anybody on for the %s %s', async (name, value) => {
    const response = await authorize('google', {
      login_hint: 'ada@example.com',
      [name]: value,
    })

    expect([400, 401]).toContain(response.status)
    expect(response.headers.get('location')).toBeNull()
  })

  it('fails at the token when asked to, and answers nothing without a token', async () => {
    expect((await exchange('google', await codeFor('google', { sandbox: 'token-error' }))).status).toBe(400)
    expect((await fetch(`${base('discord')}/api/users/@me`)).status).toBe(401)
    expect((await fetch(`${base('myspace')}/authorize`)).status).toBe(404)
  })
})
