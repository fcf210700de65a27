import { randomUUID } from 'node:crypto'
import OpenAI, {
  AuthenticationError,
  BadRequestError,
  ConflictError,
  InternalServerError,
  NotFoundError,
  PermissionDeniedError,
  RateLimitError,
} from 'openai'
import { beforeAll, describe, expect, it } from 'vitest'
import { marker, modelRequests, startTalk } from './support/chat.ts'
import { database, functionsUrl, type Person, publishableKey, signUp, until } from './support/local.ts'

const sql = database()
const baseURL = `${functionsUrl}/openai/v1`

/** The vendor's client as anybody would set it up; retries are off where the failure is what is looked at. */
const clientWith = (apiKey: string, options: ConstructorParameters<typeof OpenAI>[0] = {}) =>
  new OpenAI({ apiKey, baseURL, maxRetries: 0, organization: null, project: null, ...options })

const createKey = async (person: Person, scopes = ['chat', 'models', 'embeddings'], expires_in_days?: number) => {
  const { data, error } = await person.client.rpc('create_api_key', {
    name: 'Test',
    scopes,
    ...(expires_in_days && { expires_in_days }),
  })
  if (error) throw error
  return data as unknown as { id: string; key: string }
}

/** What a call threw. */
const failure = (call: PromiseLike<unknown>) =>
  call.then(
    (value) => {
      throw new Error(`It did not fail, but gave ${JSON.stringify(value)}.`)
    },
    (error) => error,
  )

const ask = (content: string): OpenAI.ChatCompletionMessageParam[] => [{ role: 'user', content }]
const model = 'gpt-4o-mini'

/** Makes a model of one's own whose routes go to these names of the sandbox; returns its id. */
async function modelOver(...routes: string[]): Promise<string> {
  const id = `test-${randomUUID()}`
  await sql`insert into public.ai_models (id, display_name, context_window, max_output) values (${id}, ${id}, 8000, 2000)`
  for (const [index, name] of routes.entries()) {
    await sql`insert into private.ai_routes (model, provider, provider_model, position)
      values (${id}, 'openrouter', ${name}, ${index + 1})`
  }
  return id
}

const completionOf = async (id: string) => {
  const [row] =
    await sql`select kind, outcome, code, user_id from private.completions where id = ${id.replace('chatcmpl-', '')}`
  return row!
}

let person: Person
let client: OpenAI
beforeAll(async () => {
  person = await signUp()
  client = clientWith((await createKey(person)).key)
})

describe('chat completions by the vendor’s client', () => {
  it('B-26 M-06 answers with a personal key, and nothing else about the client changed', async () => {
    const said = marker()

    const completion = await client.chat.completions.create({
      model,
      messages: [{ role: 'developer', content: 'You are Nemo.' }, ...ask(said)],
    })

    expect(completion).toMatchObject({
      id: expect.stringMatching(/^chatcmpl-[0-9a-f-]{36}$/),
      object: 'chat.completion',
      model,
      choices: [{ index: 0, finish_reason: 'stop', message: { role: 'assistant', refusal: null } }],
    })
    expect(completion.choices[0]!.message.content).toContain(said)
    expect(completion.choices[0]!.message.content).toContain('Nemo')
    const { prompt_tokens, completion_tokens, total_tokens } = completion.usage!
    expect(total_tokens).toBe(prompt_tokens + completion_tokens)
    expect(completion_tokens).toBeGreaterThan(10)
    expect(Math.abs(completion.created - Date.now() / 1000)).toBeLessThan(60)
    expect(await completionOf(completion.id)).toEqual({
      kind: 'openai',
      outcome: 'completed',
      code: null,
      user_id: person.id,
    })
  })

  it('M-06 answers with the token of a session as well', async () => {
    const completion = await clientWith(person.token).chat.completions.create({ model, messages: ask('Hi') })

    expect((await completionOf(completion.id)).user_id).toBe(person.id)
  })

  it('streams chunks whose text is the answer, and usage where it is asked for', async () => {
    const said = marker()
    const request = { model, messages: ask(said) }
    const whole = await client.chat.completions.create(request)

    const stream = await client.chat.completions.create({
      ...request,
      stream: true,
      stream_options: { include_usage: true },
    })
    const chunks: OpenAI.ChatCompletionChunk[] = []
    for await (const chunk of stream) chunks.push(chunk)

    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1)
    expect(chunks.every(({ object }) => object === 'chat.completion.chunk')).toBe(true)
    expect(chunks[0]!.choices[0]).toMatchObject({ delta: { role: 'assistant', content: '' }, finish_reason: null })
    const text = chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('')
    expect(text).toBe(whole.choices[0]!.message.content)
    expect(chunks.length).toBeGreaterThan(5)
    const [end, last] = chunks.slice(-2)
    expect(end!.choices[0]).toMatchObject({ delta: {}, finish_reason: 'stop' })
    expect(last).toMatchObject({ choices: [], usage: whole.usage })
    expect(chunks.slice(0, -1).every(({ usage }) => usage === null)).toBe(true)
    expect((await completionOf(end!.id)).outcome).toBe('completed')
  })

  it('says nothing of usage in a stream that was not asked for it', async () => {
    const stream = await client.chat.completions.create({ model, messages: ask('Hi'), stream: true })

    for await (const chunk of stream) {
      expect('usage' in chunk).toBe(false)
      expect(chunk.choices).toHaveLength(1)
    }
  })

  it('works with the client’s streaming helper', async () => {
    const said = marker()
    const deltas: string[] = []

    const runner = client.chat.completions.stream({
      model,
      messages: ask(said),
      stream_options: { include_usage: true },
    })
    runner.on('content', (delta) => deltas.push(delta))
    const completion = await runner.finalChatCompletion()

    expect(completion.choices[0]!.message.content).toBe(deltas.join(''))
    expect(deltas.join('')).toContain(said)
    expect(completion.choices[0]!.finish_reason).toBe('stop')
    expect((await runner.totalUsage()).completion_tokens).toBeGreaterThan(0)
  })

  it('passes on what the client wishes, where the route takes it', async () => {
    const said = marker()
    const wishes = { temperature: 0.3, top_p: 0.5, seed: 7, stop: ['you say'], presence_penalty: 0.5 }

    const completion = await client.chat.completions.create({
      model,
      messages: ask(said),
      max_completion_tokens: 50,
      user: 'not to be told',
      metadata: { nor: 'this' },
      response_format: { type: 'text' },
      ...wishes,
    })

    expect(completion.choices[0]!.message.content).toMatch(/, $/)
    const [request] = await modelRequests(said)
    expect(request!.body).toMatchObject({ ...wishes, max_completion_tokens: 50 })
    expect(Object.keys(request!.body)).not.toContain('user')
    expect(Object.keys(request!.body)).not.toContain('metadata')
  })

  it('ends for length when max_tokens are reached', async () => {
    const completion = await client.chat.completions.create({ model, messages: ask('Hi'), max_tokens: 5 })

    expect(completion.choices[0]!.finish_reason).toBe('length')
    expect(completion.usage!.completion_tokens).toBeLessThanOrEqual(5)
  })

  it.each([
    ['where the route takes one', model, 'json_schema'],
    ['in words where it does not', 'dolphin-mistral-24b-venice', undefined],
  ])('keeps to a form, %s', async (_, model, passed) => {
    const said = marker()
    const schema = { type: 'object', properties: { title: { type: 'string' } }, required: ['title'] }

    const completion = await client.chat.completions.create({
      model,
      messages: ask(said),
      response_format: { type: 'json_schema', json_schema: { name: 'card', schema } },
    })

    expect(JSON.parse(completion.choices[0]!.message.content!).title).toContain(said)
    const [request] = await modelRequests(said)
    expect((request!.body.response_format as { type?: string } | undefined)?.type).toBe(passed)
  })

  it('understands content in parts', async () => {
    const [one, two] = [marker(), marker()]
    const content = [one, two].map((text) => ({ type: 'text' as const, text }))

    await client.chat.completions.create({ model, messages: [{ role: 'user', content }] })

    const [request] = await modelRequests(two)
    expect(request!.body.messages).toEqual(ask(one + two))
  })
})

describe('an abort', () => {
  it('M-06 of a stream stops the provider, and what came is paid for', async () => {
    const said = marker()
    const slow = await modelOver('sandbox/slow-100')
    const stream = await client.chat.completions.create({ model: slow, messages: ask(said), stream: true })

    let id = ''
    let seen = 0
    for await (const chunk of stream) {
      id = chunk.id
      seen += 1
      if (seen === 4) stream.controller.abort()
    }

    await until(async () => (await modelRequests(said))[0]?.closed_early)
    const completion = await until(async () => {
      const row = await completionOf(id)
      return row.outcome ? row : null
    })
    expect(completion.outcome).toBe('cancelled')
    const [call] = await sql`
      select code, usage from private.model_calls where completion_id = ${id.replace('chatcmpl-', '')}`
    expect(call).toMatchObject({ code: 'cancelled', usage: { estimated: true } })
    expect(call!.usage.completion_tokens).toBeGreaterThan(0)
  })

  it('before the first word stops the provider as well', async () => {
    const said = marker()
    const slow = await modelOver('sandbox/delay-500+slow-100')
    const leave = new AbortController()

    const call = client.chat.completions.create(
      { model: slow, messages: ask(said), stream: true },
      { signal: leave.signal },
    )
    const failed = failure(call)
    await until(async () => (await modelRequests(said))[0])
    leave.abort()

    expect((await failed).constructor.name).toBe('APIUserAbortError')
    await until(async () => {
      const [row] = await sql`select outcome from private.completions where model_id = ${slow}`
      return row!.outcome === 'cancelled'
    })
    await until(async () => (await modelRequests(said))[0]!.closed_early)
  })
})

describe('a failure is of the class that the client expects', () => {
  const create = (options: object = {}, by = client) =>
    failure(by.chat.completions.create({ model, messages: ask('Hi'), ...options } as never))

  it.each([
    ['no key of ours', 'sk-nothing-of-ours', 'token_invalid'],
    ['one that never was', `pk_parlor_${'0'.repeat(64)}`, 'api_key_unknown'],
    ['the project’s key', publishableKey, 'sign_in_required'],
  ])('with %s: AuthenticationError', async (_, key, reason) => {
    const other = clientWith(key)
    for (const call of [() => other.models.list(), () => other.chat.completions.create({ model, messages: [] })]) {
      const error = await failure(call())

      expect(error).toBeInstanceOf(AuthenticationError)
      expect(error).toMatchObject({ status: 401, code: 'invalid_api_key', type: 'invalid_request_error' })
      expect(error.error.reason).toBe(reason)
      expect(error.requestID).toEqual(expect.any(String))
    }
  })

  it('with a token that outlives its account, also for what is only read: PermissionDeniedError', async () => {
    const [suspended, deleted] = [await signUp(), await signUp()]
    const { characterId } = await startTalk({ person: suspended })
    await sql`select admin.set_account_status(${suspended.id}, 'suspended')`
    await sql`select private.tombstone_user(${deleted.id})`

    for (const { models } of [clientWith(suspended.token), clientWith(deleted.token)]) {
      for (const call of [
        () => models.list(),
        () => models.retrieve(model),
        () => models.retrieve(`character:${characterId}`),
      ]) {
        const error = await failure(call())
        expect(error).toBeInstanceOf(PermissionDeniedError)
        expect(error.error.reason).toBe('account_not_active')
      }
    }
  })

  it('with a key that was revoked, has expired, or is somebody’s whose account is not active', async () => {
    const [revoked, expired] = [await createKey(person), await createKey(person, ['chat'], 1)]
    await person.client.rpc('revoke_api_key', { key_id: revoked.id })
    await sql`update public.api_keys set expires_at = now() - interval '1 second' where id = ${expired.id}`
    const [suspended, deleted] = [await signUp(), await signUp()]
    const [theirs, gone] = [await createKey(suspended), await createKey(deleted)]
    await sql`select admin.set_account_status(${suspended.id}, 'suspended')`
    await sql`select private.tombstone_user(${deleted.id})`

    for (const [{ key }, type, reason] of [
      [revoked, AuthenticationError, 'api_key_revoked'],
      [expired, AuthenticationError, 'api_key_expired'],
      [theirs, PermissionDeniedError, 'account_not_active'],
      [gone, AuthenticationError, 'api_key_unknown'],
    ] as const) {
      const error = await create({}, clientWith(key))
      expect(error).toBeInstanceOf(type)
      expect(error.error.reason).toBe(reason)
    }
  })

  it('with a key that does not open the route: PermissionDeniedError', async () => {
    const only = clientWith((await createKey(person, ['models'])).key)

    expect((await only.models.list()).data.length).toBeGreaterThan(0)
    for (const call of [
      () => only.chat.completions.create({ model, messages: ask('Hi') }),
      () => only.embeddings.create({ model: 'text-embedding-3-small', input: 'Hi' }),
    ]) {
      const error = await failure(call())
      expect(error).toBeInstanceOf(PermissionDeniedError)
      expect(error).toMatchObject({ code: 'api_key_scope_missing', type: 'permission_error' })
    }
  })

  it('with a key on a route that takes none', async () => {
    const { key } = await createKey(person)

    const response = await fetch(`${functionsUrl}/chat/complete`, {
      method: 'POST',
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
      body: JSON.stringify({ prompt: 'Hi' }),
    })

    expect([response.status, (await response.json()).code]).toEqual([401, 'token_invalid'])
  })

  it('for a model that there is not: NotFoundError', async () => {
    const error = await create({ model: 'gpt-9' })

    expect(error).toBeInstanceOf(NotFoundError)
    expect(error).toMatchObject({ code: 'model_not_found', param: 'model', type: 'invalid_request_error' })
    expect(await failure(client.models.retrieve('gpt-9'))).toBeInstanceOf(NotFoundError)
    // A route that there is not has the form of an error, too.
    const none = await failure(client.files.list())
    expect(none).toBeInstanceOf(NotFoundError)
    expect(none.code).toBe('route_not_found')
  })

  it.each([
    [{ messages: [] }, 'messages', 'too_small'],
    [{ messages: [{ role: 'tool', content: 'x', tool_call_id: '1' }] }, 'messages[0].role', 'invalid_value'],
    [
      { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }] },
      'messages[0].content',
      'invalid_union',
    ],
    [{ messages: [{ role: 'user', content: 'a\u0000b' }] }, 'messages[0].content', 'text_not_storable'],
    [{ temperature: 3 }, 'temperature', 'too_big'],
    [{ max_tokens: 0 }, 'max_tokens', 'too_small'],
    [{ n: 2 }, 'n', 'invalid_value'],
    [{ logprobs: true }, 'logprobs', 'invalid_value'],
    [{ tools: [{ type: 'function', function: { name: 'f' } }] }, 'tools', 'too_big'],
    [{ stop: ['1', '2', '3', '4', '5'] }, 'stop', 'invalid_union'],
    [{ response_format: { type: 'xml' } }, 'response_format.type', 'invalid_union'],
    [{ model: undefined }, 'model', 'invalid_type'],
  ])('for %j: BadRequestError', async (body, param, code) => {
    const error = await create(body)

    expect(error).toBeInstanceOf(BadRequestError)
    expect(error).toMatchObject({ status: 400, param, code, type: 'invalid_request_error' })
    expect(error.error.reason).toBe('request_invalid')
  })

  it('says how many texts stop at', async () => {
    const error = await create({ stop: ['1', '2', '3', '4', '5'] })

    expect(error.message).toContain('at most four')
  })

  it('for a body that cannot be read: 400 of the same form', async () => {
    const { key } = await createKey(person)
    const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' }

    const response = await fetch(`${baseURL}/chat/completions`, { method: 'POST', headers, body: '{"model": ' })

    expect(response.status).toBe(400)
    expect(response.headers.get('content-type')).toBe('application/json')
    expect(await response.json()).toEqual({
      error: {
        message: 'The body is not valid JSON.',
        type: 'invalid_request_error',
        param: null,
        code: 'body_unreadable',
        reason: 'body_unreadable',
      },
    })
  })

  it.each([true, false])(
    'for a provider that fails before the first word: InternalServerError (stream: %s)',
    async (stream) => {
      const failing = await modelOver('sandbox/error-500')

      const error = await create({ model: failing, stream })

      expect(error).toBeInstanceOf(InternalServerError)
      expect(error).toMatchObject({ status: 502, code: 'provider_unavailable', type: 'server_error' })
    },
  )

  it.each([
    ['requests_per_day', 0, 'rate_limit_exceeded', 'day_ends_at'],
    ['tokens_per_month', 10, 'insufficient_quota', 'month_ends_at'],
    ['micro_usd_per_month', 10, 'insufficient_quota', 'month_ends_at'],
  ])('M-12 for a plan that has not enough %s left: RateLimitError', async (limit, cap, code, until) => {
    const poor = await signUp()
    await sql`insert into private.plan_overrides ${sql({ user_id: poor.id, [limit]: cap })}`
    const said = marker()

    const error = await create({ messages: ask(said) }, clientWith(poor.token, { maxRetries: 2 }))

    expect(error).toBeInstanceOf(RateLimitError)
    expect(error).toMatchObject({ status: 429, code, type: 'rate_limit_error' })
    // Days, which the client would not wait: it is told not to ask again.
    const { data } = await poor.client.rpc('my_entitlements')
    const wait = (Date.parse((data as Record<string, string>)[until]!) - Date.now()) / 1000
    expect(Math.abs(Number(error.headers.get('retry-after')) - wait)).toBeLessThan(30)
    expect(error.headers.get('x-should-retry')).toBe(wait > 60 ? 'false' : null)
    expect(await modelRequests(said)).toEqual([])
  })

  it('for a prompt that is too long: BadRequestError with OpenAI’s code', async () => {
    const small = await modelOver('sandbox/context-10')

    const error = await create({ model: small, messages: ask('word '.repeat(100)) })

    expect(error).toBeInstanceOf(BadRequestError)
    expect(error.code).toBe('context_length_exceeded')
  })

  it('for a stream that breaks: an error after the words that came', async () => {
    const cut = await modelOver('sandbox/cut')
    const stream = await client.chat.completions.create({ model: cut, messages: ask('Hi'), stream: true })

    let text = ''
    const read = async () => {
      for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? ''
    }

    expect(await failure(read())).toMatchObject({ code: 'answer_interrupted' })
    expect(text).not.toBe('')
  })

  it('does not try again what trying again does not mend', async () => {
    const said = marker()
    const broke = await modelOver('sandbox/error-401')
    const patient = clientWith((await createKey(person)).key, { maxRetries: 2 })

    await create({ model: broke, messages: ask(said) }, patient)

    expect(await modelRequests(said)).toHaveLength(1)
  })
})

describe('an idempotency key', () => {
  const once = (key: string, content: string, options: object = {}) =>
    client.chat.completions.create({ model, messages: ask(content), ...options } as never, {
      headers: { 'Idempotency-Key': key },
    }) as Promise<OpenAI.ChatCompletion>

  it('makes the same request be answered and paid for once, streamed or not', async () => {
    const [key, said] = [randomUUID(), marker()]
    const first = await once(key, said)

    const again = await once(key, said)

    expect(again).toEqual(first)
    expect(await modelRequests(said)).toHaveLength(1)

    const [streamKey, streamed] = [randomUUID(), marker()]
    const texts: string[] = []
    for (const _ of [1, 2]) {
      const stream = client.chat.completions.stream(
        { model, messages: ask(streamed), stream_options: { include_usage: true } },
        { headers: { 'Idempotency-Key': streamKey } },
      )
      texts.push((await stream.finalContent())!)
      expect((await stream.totalUsage()).completion_tokens).toBeGreaterThan(0)
    }
    expect(texts[1]).toBe(texts[0])
    expect(await modelRequests(streamed)).toHaveLength(1)
  })

  it('refuses another request, and the same while it is under way', async () => {
    const [key, said] = [randomUUID(), marker()]
    const stalled = await modelOver('sandbox/stall-before')
    const leave = new AbortController()
    const running = client.chat.completions.create(
      { model: stalled, messages: ask(said) },
      { headers: { 'Idempotency-Key': key }, signal: leave.signal },
    )
    running.catch(() => {})
    await until(async () => (await modelRequests(said))[0]?.state === 'stalled')

    const same = await failure(once(key, said, { model: stalled }))
    const other = await failure(once(key, `${said} other`, { model: stalled }))
    leave.abort()

    expect(same).toBeInstanceOf(ConflictError)
    expect(same.code).toBe('request_in_progress')
    expect(other).toBeInstanceOf(ConflictError)
    expect(other).toMatchObject({ code: 'idempotency_key_reused' })
    expect(other.headers.get('x-should-retry')).toBe('false')
  })

  it('lets a request that failed be tried again', async () => {
    const [key, said] = [randomUUID(), marker()]
    const id = await modelOver('sandbox/error-500')
    await failure(once(key, said, { model: id }))
    await sql`update private.ai_routes set provider_model = 'sandbox-small' where model = ${id}`

    const completion = await once(key, said, { model: id })

    expect(completion.choices[0]!.message.content).toContain(said)
  })
})

describe('models', () => {
  it('M-07 lists those that the plan includes, and says more of each than OpenAI does', async () => {
    const free = await signUp()
    const pro = await signUp()
    await sql`select admin.set_plan(${pro.id}, 'pro')`
    const listOf = async (someone: Person) => {
      const ids: string[] = []
      for await (const { id } of clientWith(someone.token).models.list()) ids.push(id)
      return ids
    }

    const [some, more] = [await listOf(free), await listOf(pro)]

    expect(some).toContain(model)
    expect(some).not.toContain('claude-haiku-4-5')
    expect(more).toEqual(expect.arrayContaining([...some, 'claude-haiku-4-5']))
    expect(await failure(clientWith(free.token).models.retrieve('claude-haiku-4-5'))).toBeInstanceOf(NotFoundError)
    const { created, ...described } = await client.models.retrieve(model)
    expect(created).toBeGreaterThan(1_700_000_000)
    expect(described).toEqual({
      id: model,
      object: 'model',
      owned_by: 'parlor',
      name: 'GPT-4o mini',
      kind: 'chat',
      context_length: 128000,
      max_output: 16384,
    })
    expect((await client.models.retrieve('sandbox/echo')).id).toBe('sandbox/echo')
  })

  it('M-19 are remembered, and a change of theirs or of the plan holds for the next request', async () => {
    const someone = await signUp()
    const list = async () => (await clientWith(someone.token).models.list()).data.map(({ id }) => id)
    const id = await modelOver('sandbox-small')
    expect(await list()).toContain(id)

    await sql`update public.ai_models set tier = 1 where id = ${id}`
    expect(await list()).not.toContain(id)
    await sql`select admin.set_plan(${someone.id}, 'plus')`
    expect(await list()).toContain(id)
    await sql`update public.plans set max_model_tier = 0 where id = 'plus'`
    try {
      expect(await list()).not.toContain(id)
    } finally {
      await sql`update public.plans set max_model_tier = 1 where id = 'plus'`
    }
    await sql`update public.ai_models set is_enabled = false where id = ${id}`
    expect(await list()).not.toContain(id)
  })
})

describe('embeddings', () => {
  const small = 'text-embedding-3-small'

  it('V-23 turns texts into vectors in their order, as the client asks for them', async () => {
    const input = ['The rain has stopped.', 'The rain stopped.', 'Quarterly figures']

    const { data, usage, object } = await client.embeddings.create({ model: small, input })
    const plain = await client.embeddings.create({ model: small, input, encoding_format: 'float' })

    expect(object).toBe('list')
    expect(data.map(({ index }) => index)).toEqual([0, 1, 2])
    expect(data.map(({ embedding }) => embedding.length)).toEqual([1536, 1536, 1536])
    const [first, second, third] = data.map(({ embedding }) => embedding) as [number[], number[], number[]]
    const near = (a: number[], b: number[]) => a.reduce((sum, value, index) => sum + value * b[index]!, 0)
    expect(near(first, second)).toBeGreaterThan(near(first, third))
    // The first call came as base64, which is the client's default.
    expect(plain.data).toEqual(data)
    expect(usage.prompt_tokens).toBeGreaterThan(0)
    expect(usage.total_tokens).toBe(usage.prompt_tokens)
  })

  it('V-23 gives shorter vectors where they are wished for, and no longer ones', async () => {
    const { data } = await client.embeddings.create({ model: small, input: 'Hi', dimensions: 256 })
    const error = await failure(client.embeddings.create({ model: small, input: 'Hi', dimensions: 1537 }))

    expect(data[0]!.embedding).toHaveLength(256)
    expect(error).toBeInstanceOf(BadRequestError)
    expect(error).toMatchObject({ code: 'dimensions_too_many', param: 'dimensions' })
  })

  it('keeps what they cost, and nothing of the texts', async () => {
    const said = marker()

    await client.embeddings.create({ model: small, input: said })

    const [row] = await sql`
      select c.kind, c.outcome, m.cost_micro_usd::int as cost, m.usage
      from private.completions as c join private.model_calls as m on m.completion_id = c.id
      where c.user_id = ${person.id} and c.kind = 'embed' order by c.id desc limit 1`
    expect(row).toMatchObject({ kind: 'embed', outcome: 'completed', usage: { estimated: false } })
    expect(row!.cost).toBe(Math.ceil((row!.usage.prompt_tokens * 20_000) / 1_000_000))
  })

  it.each([
    [{ input: [] }, 'input'],
    [{ input: '' }, 'input'],
    [{ input: [1, 2, 3] }, 'input'],
    [{ encoding_format: 'hex' }, 'encoding_format'],
  ])('refuses %j', async (body, param) => {
    const error = await failure(client.embeddings.create({ model: small, input: 'Hi', ...body } as never))

    expect(error).toBeInstanceOf(BadRequestError)
    expect(error.param).toBe(param)
  })

  it('says how many texts it takes', async () => {
    const error = await failure(client.embeddings.create({ model: small, input: Array(2049).fill('Hi') }))

    expect(error).toMatchObject({ status: 400, param: 'input' })
    expect(error.message).toContain('at most 2048')
  })

  it('are of embedding models only, and conversations of the others', async () => {
    const error = await failure(client.embeddings.create({ model, input: 'Hi' }))
    const chat = await failure(client.chat.completions.create({ model: small, messages: ask('Hi') }))

    expect(error).toBeInstanceOf(NotFoundError)
    expect(chat).toBeInstanceOf(NotFoundError)
  })

  it('go to the next route when one fails, and never take vectors of another length', async () => {
    const id = `test-${randomUUID()}`
    await sql`insert into public.ai_models (id, display_name, kind, context_window, dimensions)
      values (${id}, ${id}, 'embedding', 8000, 1000)`
    await sql`insert into private.ai_routes (model, provider, provider_model, position)
      values (${id}, 'openai', 'sandbox/error-500', 1), (${id}, 'openai', 'gives-1536', 2)`

    const wrong = await failure(client.embeddings.create({ model: id, input: 'Hi' }))
    await sql`update public.ai_models set dimensions = 1536 where id = ${id}`
    const { data } = await client.embeddings.create({ model: id, input: 'Hi' })

    expect(wrong).toBeInstanceOf(InternalServerError)
    expect(data[0]!.embedding).toHaveLength(1536)
  })
})

it('a web page may send whatever headers the client has', async () => {
  const response = await fetch(`${baseURL}/chat/completions`, {
    method: 'OPTIONS',
    headers: {
      origin: 'https://app.example.com',
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'authorization,x-stainless-lang,x-stainless-os',
    },
  })

  expect(response.headers.get('access-control-allow-headers')).toContain('x-stainless-lang')
})
