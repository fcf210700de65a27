import { randomUUID } from 'node:crypto'
import { beforeAll, describe, expect, it } from 'vitest'
import { analysis } from '../types/completions.ts'
import {
  events,
  marker,
  modelRequests,
  named,
  readAll,
  type StreamEvent,
  send,
  shown,
  startTalk,
} from './support/chat.ts'
import { choosePlan, database, functionsUrl, type Person, signUp, until } from './support/local.ts'

const sql = database()

interface RouteOptions {
  model: string
  provider?: string
  prices?: [prompt: number, cached: number, completion: number]
  ceiling?: number
  takesJsonSchema?: boolean
}

/** Makes a model of one's own whose routes go to these names of the sandbox, in their order; returns its id. */
async function modelOver(...routes: (string | RouteOptions)[]): Promise<string> {
  const id = `test-${randomUUID()}`
  await sql`insert into public.ai_models (id, display_name, context_window, max_output) values (${id}, ${id}, 8000, 2000)`
  for (const [index, given] of routes.entries()) {
    const {
      model,
      provider = 'openrouter',
      prices,
      ceiling,
      takesJsonSchema = false,
    } = typeof given === 'string' ? { model: given } : given
    await sql`
      insert into private.ai_routes (model, provider, provider_model, position, takes_json_schema, prompt_price, cached_price,
        completion_price, ceiling_micro_usd)
      values (${id}, ${provider}, ${model}, ${index + 1}, ${takesJsonSchema}, ${prices?.[0] ?? null}, ${prices?.[1] ?? null},
        ${prices?.[2] ?? null}, ${ceiling ?? null})`
  }
  return id
}

const post = (person: Person, path: string, body: object, signal?: AbortSignal) =>
  fetch(`${functionsUrl}/chat/${path}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${person.token}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
    signal,
  })
const complete = (person: Person, body: object, signal?: AbortSignal) => post(person, 'complete', body, signal)
const askedModels = async (said: string) => (await modelRequests(said)).map(({ model }) => model).reverse()
const callsOf = (completionId: string) =>
  sql`select code, usage, cost_micro_usd::int as cost, price_version from private.model_calls
    where completion_id = ${completionId} order by id`
const completionOf = async (id: string) =>
  (await sql`select kind, outcome, code from private.completions where id = ${id}`)[0]!

/** Health of the routes of a model, as everybody may read it. */
async function healthOf(model: string) {
  const { providers } = await (await fetch(`${functionsUrl}/health/providers`)).json()
  type Entry = { model: string; position: number; state: string; code: string | null; open_until: string | null }
  return providers
    .flatMap(({ routes }: { routes: Entry[] }) => routes)
    .filter((route: Entry) => route.model === model)
    .sort((a: Entry, b: Entry) => a.position - b.position) as Entry[]
}

let person: Person
beforeAll(async () => {
  person = await signUp()
  await choosePlan('enterprise', person)
})

describe('text completion', () => {
  it('V-22 streams what a model says to a prompt, with the events of an answer', async () => {
    const said = marker()

    const all = await readAll(await complete(person, { prompt: said }))

    expect(all.map(({ event }) => event).filter((name) => name !== 'generation.delta')).toEqual([
      'generation.connected',
      'generation.processing',
      'generation.completed',
      undefined,
    ])
    const { message, usage } = named(all, 'completed')!.data
    expect(message).toEqual({ role: 'assistant', content: shown(all), finish_reason: 'stop' })
    expect(message.content).toContain(said)
    expect(usage).toMatchObject({ estimated: false })
    expect(all.flatMap(({ id }) => id ?? [])).toEqual(all.flatMap(({ id }, index) => (id ? `1.${index - 1}` : [])))
    const [request] = await modelRequests(said)
    expect(request!.body).toMatchObject({ temperature: 0.7, max_tokens: 1024, stream: true })
    expect(request!.model).toBe('cognitivecomputations/dolphin-mistral-24b-venice-edition:free')
  })

  it('V-22 answers with JSON, from messages, a model and limits of the caller’s choice', async () => {
    const said = marker()
    const messages = [
      { role: 'system', content: 'You are Nemo.' },
      { role: 'user', content: said },
    ]

    const response = await complete(person, {
      messages,
      model: 'gpt-4o-mini',
      max_tokens: 5,
      temperature: 0,
      stream: false,
    })

    expect(response.status).toBe(200)
    const body = await response.json()
    expect(body).toMatchObject({ model: 'gpt-4o-mini', finish_reason: 'length', usage: { estimated: false } })
    expect(body.content).toContain('Nemo')
    const [request] = await modelRequests(said)
    expect(request!.body).toMatchObject({ messages, temperature: 0, max_completion_tokens: 5 })
    expect(await completionOf(body.id)).toEqual({ kind: 'complete', outcome: 'completed', code: null })
  })

  it('V-22 keeps what each call cost by the prices of that moment, and nothing that was said', async () => {
    const model = await modelOver({ model: 'sandbox-small', prices: [1_000_000, 500_000, 3_000_000] })
    const ask = async () => (await complete(person, { prompt: 'What is it?', model, stream: false })).json()

    const before = await ask()
    await sql`update private.ai_routes set completion_price = 6000000 where model = ${model}`
    const after = await ask()

    const { prompt_tokens, completion_tokens } = before.usage
    expect(await callsOf(before.id)).toMatchObject([
      { code: null, cost: prompt_tokens + 3 * completion_tokens, price_version: 1 },
    ])
    expect(await callsOf(after.id)).toMatchObject([
      { code: null, cost: prompt_tokens + 6 * completion_tokens, price_version: 2 },
    ])
    const [row] = await sql`select to_jsonb(c)::text as row from private.completions as c where id = ${after.id}`
    expect(row!.row).not.toContain('What is it')
  })

  it('stops the model when the client leaves, and keeps what that cost as an estimate', async () => {
    const said = marker()
    const model = await modelOver({ model: 'sandbox/slow-100', prices: [0, 0, 1_000_000] })
    const leave = new AbortController()
    const all: StreamEvent[] = []

    const reading = (async () => {
      for await (const event of events(await complete(person, { prompt: said, model }, leave.signal))) {
        all.push(event)
        if (event.id === '1.3') leave.abort()
      }
    })()
    await reading.catch(() => {})

    const [request] = await until(async () => {
      const requests = await modelRequests(said)
      return requests[0]?.closed_early ? requests : null
    })
    expect(request!.state).toBe('closed-early')
    const { generation_id } = named(all, 'connected')!.data
    await until(async () => (await completionOf(generation_id)).outcome === 'cancelled')
    const [call] = await callsOf(generation_id)
    expect(call).toMatchObject({ code: 'cancelled', usage: { estimated: true } })
    expect(call!.cost).toBe(call!.usage.completion_tokens)
  })

  it.each([
    [{}, '#/prompt', 'prompt_or_messages'],
    [{ prompt: 'a', messages: [{ role: 'user', content: 'b' }] }, '#/prompt', 'prompt_or_messages'],
    [{ prompt: ' ' }, '#/prompt', 'text_blank'],
    [{ prompt: 'a', temperature: 3 }, '#/temperature', 'too_big'],
    [{ messages: [{ role: 'tool', content: 'a' }] }, '#/messages/0/role', 'invalid_value'],
    [{ prompt: 'a', user: 'x' }, '#/user', 'unknown_field'],
  ])('refuses %j', async (body, pointer, code) => {
    const response = await complete(person, body)

    expect(response.status).toBe(422)
    expect((await response.json()).errors[0]).toMatchObject({ pointer, code })
  })

  it('refuses a model that does not exist, one that is switched off, and a suspended person', async () => {
    const off = await modelOver('sandbox-small')
    await sql`update public.ai_models set is_enabled = false where id = ${off}`
    const suspended = await signUp()
    await sql`select admin.set_account_status(${suspended.id}, 'suspended')`

    for (const [who, model, status, code] of [
      [person, 'no-such-model', 404, 'model_not_found'],
      [person, off, 404, 'model_not_found'],
      [suspended, undefined, 403, 'account_not_active'],
    ] as const) {
      const response = await complete(who, { prompt: 'Hello', model })
      expect([response.status, (await response.json()).code]).toEqual([status, code])
    }
  })

  it('makes hostile text harmless, and metres a provider that does not count by an estimate', async () => {
    const model = await modelOver('sandbox/hostile+no-usage')

    const all = await readAll(await complete(person, { prompt: 'Go.', model }))

    const { message, usage } = named(all, 'completed')!.data
    expect(message.content).toBe(shown(all))
    expect(message.content).toContain('NUL:\ufffd lone high:\ufffd lone low:\ufffd pair split: \u{1f600} ')
    expect(usage).toMatchObject({ estimated: true })
  })
})

describe('analysis', () => {
  it('V-24 gives summary, topics, sentiment and safety, asked for by schema where the route takes one', async () => {
    const text = marker()
    const model = await modelOver({ model: 'sandbox-small', provider: 'openai', takesJsonSchema: true })

    const response = await post(person, 'analyze', { text, model })

    expect(response.status).toBe(200)
    const body = await response.json()
    expect(analysis.parse(body.analysis).summary).toContain(text)
    expect(body.usage).toMatchObject({ estimated: false })
    const [request] = await modelRequests(text)
    expect(request!.body.response_format).toMatchObject({ type: 'json_schema', json_schema: { strict: true } })
    expect(await completionOf(body.id)).toMatchObject({ kind: 'analyze', outcome: 'completed' })
  })

  it('V-24 asks in words where the route takes no schema', async () => {
    const text = marker()

    const response = await post(person, 'analyze', { text })

    expect(response.status).toBe(200)
    analysis.parse((await response.json()).analysis)
    const [request] = await modelRequests(text)
    expect(request!.body.response_format).toBeUndefined()
    expect(JSON.stringify(request!.body.messages)).toContain('JSON Schema')
  })

  it('V-24 tells a model of its mistake once, and pays for both answers', async () => {
    const text = marker()
    const model = await modelOver('sandbox/unstructured-once')

    const response = await post(person, 'analyze', { text, model })

    const body = await response.json()
    expect(response.status).toBe(200)
    analysis.parse(body.analysis)
    expect(await askedModels(text)).toHaveLength(2)
    const calls = await callsOf(body.id)
    expect(calls).toHaveLength(2)
    expect(body.usage.completion_tokens).toBe(calls[0]!.usage.completion_tokens + calls[1]!.usage.completion_tokens)
  })

  it('V-24 gives up after the second answer that is no analysis', async () => {
    const text = marker()
    const model = await modelOver('sandbox/echo')

    const response = await post(person, 'analyze', { text, model })

    expect(response.status).toBe(502)
    expect(await response.json()).toMatchObject({ code: 'analysis_failed' })
    expect(await askedModels(text)).toHaveLength(2)
  })
})

describe('failover', () => {
  it.each([
    'rate-limit-1',
    'error-500',
    'error-html-500',
    'error-401',
    'error-402',
    'error-404',
    'insufficient-quota',
    'error-in-200',
    'empty-choices+not-streaming',
    'context-1',
  ])('M-13 B-06 goes to the next route before the first word (%s)', async (fault) => {
    const said = marker()
    const model = await modelOver(`sandbox/${fault}`, 'sandbox-small')

    const response = await complete(person, { prompt: said, model, stream: false })

    expect(response.status).toBe(200)
    const body = await response.json()
    expect(await askedModels(said)).toEqual([`sandbox/${fault}`, 'sandbox-small'])
    const [failed, well] = await callsOf(body.id)
    expect(failed!.code).toMatch(/^(provider|answer|context)_/)
    expect(well).toMatchObject({ code: null, usage: { estimated: false } })
  })

  it('M-13 reaches the four providers through one interface, each with the fields that it takes', async () => {
    const keys: Record<string, string[]> = {}
    const common = ['max_tokens', 'messages', 'model', 'stream', 'stream_options', 'temperature']

    for (const provider of ['openai', 'anthropic', 'google', 'groq']) {
      const said = marker()
      const model = await modelOver({ model: 'sandbox-small', provider })
      await readAll(await complete(person, { prompt: said, model, temperature: 1.5 }))
      const [request] = await modelRequests(said)
      keys[provider] = Object.keys(request!.body).sort()
      expect(request!.body.temperature).toBe(provider === 'anthropic' ? 1 : 1.5)
    }

    expect(keys).toEqual({
      openai: ['max_completion_tokens', ...common.slice(1)],
      anthropic: common,
      google: common,
      groq: common,
    })
  })

  it.each(['cut', 'cut-socket', 'error-in-stream'])('tries no other route once text has come (%s)', async (fault) => {
    const said = marker()
    const model = await modelOver(`sandbox/${fault}`, 'sandbox-small')

    const all = await readAll(await complete(person, { prompt: said, model }))

    expect(named(all, 'failed')!.data.retryable).toBe(true)
    expect(shown(all)).not.toBe('')
    expect(await askedModels(said)).toEqual([`sandbox/${fault}`])
  })

  it('leaves out a route that may cost more than its ceiling, or whose price nobody knows', async () => {
    const said = marker()
    const dear = { model: 'sandbox-large', prices: [1_000_000, 0, 60_000_000] as [number, number, number] }
    const model = await modelOver(
      { ...dear, ceiling: 1000 },
      { model: 'sandbox/echo', ceiling: 1000 },
      { model: 'sandbox-small', prices: [0, 0, 10], ceiling: 1000 },
    )
    const only = await modelOver({ ...dear, ceiling: 1000 })

    const cheap = await complete(person, { prompt: said, model, stream: false })
    const short = await complete(person, { prompt: 'Hi', model: only, max_tokens: 10, stream: false })
    const refused = await complete(person, { prompt: 'Hi', model: only, stream: false })

    expect(cheap.status).toBe(200)
    expect(await askedModels(said)).toEqual(['sandbox-small'])
    expect(short.status).toBe(200)
    expect(refused.status).toBe(502)
    expect(await refused.json()).toMatchObject({ code: 'cost_ceiling_reached' })
  })

  it('counts the ceiling over all attempts of an answer, and keeps their cost', async () => {
    const said = marker()
    const model = await modelOver({ model: 'sandbox/cut', prices: [0, 0, 1_000_000], ceiling: 1027 })
    const talk = await startTalk()
    await talk.person.client.from('conversations').update({ model_id: model }).eq('id', talk.conversationId)

    const all = await readAll(await send(talk, { content: said }))

    expect(named(all, 'failed')!.data).toMatchObject({ code: 'cost_ceiling_reached', retryable: false })
    expect(await askedModels(said)).toEqual(['sandbox/cut'])
    const { generation_id } = named(all, 'connected')!.data
    const [attempt] = await sql`
      select cost_micro_usd::int as cost, price_version, usage from private.generation_attempts
      where generation_id = ${generation_id} and attempt = 1`
    expect(attempt).toMatchObject({ price_version: 1, usage: { estimated: true } })
    expect(attempt!.cost).toBe(attempt!.usage.completion_tokens)
    expect(attempt!.cost).toBeGreaterThan(3)
  }, 60_000)

  it('K-11 streams a server that does not stream, with the limits of the conversation', async () => {
    const said = marker()
    const talk = await startTalk()
    await talk.person.client
      .from('conversations')
      .update({ model_id: 'qwen3-abliterated-8b', max_tokens: 7, temperature: 0.1 })
      .eq('id', talk.conversationId)

    const all = await readAll(await send(talk, { content: said }))

    expect(named(all, 'completed')!.data.message.content).toBe(shown(all))
    const [request] = await modelRequests(said)
    expect(request!.model).toBe('huihui_ai/qwen3-abliterated:8b')
    expect(request!.body).toMatchObject({ stream: false, max_tokens: 7, temperature: 0.1 })
  })
})

describe('the circuit breaker of a route', () => {
  it('S-20 B-06 leaves an exhausted account out, for everybody, until an operator says otherwise', async () => {
    const said = marker()
    const model = await modelOver('sandbox/insufficient-quota', 'sandbox-small')
    const other = await signUp()
    await readAll(await complete(person, { prompt: marker(), model }))

    await readAll(await complete(other, { prompt: said, model }))
    const talk = await startTalk({ person: other })
    await other.client.from('conversations').update({ model_id: model }).eq('id', talk.conversationId)
    const queued = await send(talk, { content: `${said} again`, body: { run: 'queued', stream: false } })
    const { generation } = await queued.json()
    await until(
      async () =>
        (await sql`select status from public.generations where id = ${generation.id}`)[0]!.status === 'completed',
    )

    // One in the functions, one in the worker: both are isolates that have not met the failure themselves.
    expect(await askedModels(said)).toEqual(['sandbox-small', 'sandbox-small'])
    expect(await healthOf(model)).toMatchObject([
      { state: 'open', code: 'provider_quota_exhausted', open_until: expect.any(String) },
      { state: 'closed', code: null, open_until: null },
    ])
    await sql`select admin.close_route(r.id) from private.ai_routes as r where r.model = ${model}`
    const mended = marker()
    await readAll(await complete(other, { prompt: mended, model }))
    expect(await askedModels(mended)).toEqual(['sandbox/insufficient-quota', 'sandbox-small'])
  })

  it('S-20 B-06 honours Retry-After, and then one request probes the route', async () => {
    const model = await modelOver('sandbox/rate-limit-2', 'sandbox-small')
    await complete(person, { prompt: marker(), model, stream: false })
    const [limited] = await healthOf(model)
    expect(limited).toMatchObject({ state: 'open', code: 'provider_rate_limited' })

    const early = marker()
    await complete(person, { prompt: early, model, stream: false })
    await until(async () => (await healthOf(model))[0]!.state === 'half_open')
    await sql`update private.ai_routes set provider_model = 'sandbox-large' where model = ${model} and position = 1`
    const late = marker()
    await complete(person, { prompt: late, model, stream: false })

    expect(await askedModels(early)).toEqual(['sandbox-small'])
    expect(await askedModels(late)).toEqual(['sandbox-large'])
    expect((await healthOf(model))[0]).toMatchObject({ state: 'closed', code: null })
  })

  it('S-20 opens after five failures in a row, and is written only when something changes', async () => {
    const model = await modelOver('sandbox/error-500', 'sandbox-small')
    for (let asked = 0; asked < 5; asked += 1) await complete(person, { prompt: 'Hi', model, stream: false })
    const said = marker()

    await complete(person, { prompt: said, model, stream: false })

    expect(await askedModels(said)).toEqual(['sandbox-small'])
    expect(await healthOf(model)).toMatchObject([{ state: 'open', code: 'provider_unavailable' }, { state: 'closed' }])
    const rows = await sql`
      select r.position from private.ai_route_health as h join private.ai_routes as r on r.id = h.route_id
      where r.model = ${model}`
    expect(rows).toMatchObject([{ position: 1 }])
  })

  it('S-20 says when to come back when no route is left', async () => {
    const model = await modelOver('sandbox/rate-limit-30')
    await complete(person, { prompt: 'Hi', model, stream: false })
    const said = marker()

    const refused = await complete(person, { prompt: said, model, stream: false })

    expect(refused.status).toBe(502)
    expect(await refused.json()).toMatchObject({ code: 'provider_rate_limited' })
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(20)
    expect(await askedModels(said)).toEqual([])
  })
})
