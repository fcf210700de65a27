import { deepEqual, equal, rejects, throws } from 'node:assert/strict'
import { cover, spend } from '../../functions/_shared/llm/budget.ts'
import { ask, NoAnswer, samePrompt } from '../../functions/_shared/llm/ask.ts'
import { ModelError } from '../../functions/_shared/llm/errors.ts'
import { type Format, requestFor } from '../../functions/_shared/llm/request.ts'
import { admit, type ChatMessage, type Dialect, type Route } from '../../functions/_shared/llm/route.ts'
import { readStructured } from '../../functions/_shared/llm/structured.ts'
import { Problem } from '../../functions/_shared/problem.ts'
import { analysis } from '../../types/completions.ts'

const route = (change: Partial<Route> = {}): Route => ({
  route_id: '1',
  provider: 'p',
  dialect: 'compatible',
  model: 'm',
  base_url_env: null,
  api_key_env: null,
  default_base_url: null,
  streams: true,
  takes_system: true,
  takes_temperature: true,
  takes_json_schema: false,
  continues: true,
  context_window: 1000,
  max_output: 200,
  prompt_price: null,
  completion_price: null,
  ceiling_micro_usd: null,
  is_suspect: false,
  ...change,
})
const messages: ChatMessage[] = [
  { role: 'system', content: 'Be kind.' },
  { role: 'user', content: 'Hello', name: 'Ada' } as ChatMessage,
]
const settings = { temperature: 1.5, max_tokens: 100 }
const bodyOf = (change: Partial<Route>, format?: Parameters<typeof requestFor>[3]) =>
  requestFor(route(change), messages, settings, format) as unknown as Record<string, unknown>
const format: Format = { type: 'json_schema', name: 'thing', schema: { type: 'object' } }

Deno.test('each provider gets the fields that it takes and no other', () => {
  const keys = (dialect: Dialect) => Object.keys(bodyOf({ dialect })).sort()
  const common = ['max_tokens', 'messages', 'model', 'stream', 'stream_options', 'temperature']
  for (const dialect of ['anthropic', 'google', 'groq', 'openrouter', 'compatible'] as const)
    deepEqual(keys(dialect), common)
  deepEqual(keys('openai'), ['max_completion_tokens', ...common.slice(1)])
  deepEqual(Object.keys(bodyOf({ streams: false, takes_temperature: false })).sort(), [
    'max_tokens',
    'messages',
    'model',
    'stream',
  ])
  equal(bodyOf({ dialect: 'anthropic' }).temperature, 1)
  equal(bodyOf({ dialect: 'groq' }).temperature, 1.5)
})

Deno.test('what else a caller may wish goes to those who take it, and to nobody else', () => {
  const wishes = { ...settings, top_p: 0.9, frequency_penalty: 0.5, presence_penalty: 0.5, stop: ['END'], seed: 7 }
  const passed = (change: Partial<Route>) => {
    const body = requestFor(route(change), messages, wishes) as unknown as Record<string, unknown>
    return ['top_p', 'frequency_penalty', 'presence_penalty', 'stop', 'seed'].filter((name) => name in body)
  }
  const all = ['top_p', 'frequency_penalty', 'presence_penalty', 'stop', 'seed']
  for (const dialect of ['openai', 'openrouter', 'compatible'] as const) deepEqual(passed({ dialect }), all)
  deepEqual(passed({ dialect: 'groq' }), ['top_p', 'stop', 'seed'])
  deepEqual(passed({ dialect: 'google' }), ['top_p', 'stop'])
  deepEqual(passed({ dialect: 'anthropic' }), ['stop'])
  deepEqual(passed({ dialect: 'openai', takes_temperature: false }), ['stop', 'seed'])
})

Deno.test('a JSON object of any form is asked for in the same two ways', () => {
  const asked = bodyOf({ takes_json_schema: true }, { type: 'json_object' })
  deepEqual(asked.response_format, { type: 'json_object' })
  const told = bodyOf({}, { type: 'json_object' })
  equal(told.response_format, undefined)
  equal(JSON.stringify(told.messages).includes('one JSON object'), true)
})

Deno.test('names of people never leave with a message', () => {
  deepEqual(bodyOf({}).messages, [
    { role: 'system', content: 'Be kind.' },
    { role: 'user', content: 'Hello' },
  ])
})

Deno.test('a model without a system role is told by the first message of the user', () => {
  deepEqual(bodyOf({ takes_system: false }).messages, [{ role: 'user', content: 'Be kind.\n\nHello' }])
})

Deno.test('a form is asked for by response_format where the route takes one, else in words', () => {
  const asked = bodyOf({ dialect: 'openai', takes_json_schema: true }, format)
  const { type, ...form } = format
  deepEqual(asked.response_format, { type, json_schema: { ...form, strict: true } })
  equal(JSON.stringify(asked.messages).includes('JSON Schema'), false)
  for (const change of [{ takes_json_schema: false }, { dialect: 'anthropic' as const, takes_json_schema: true }]) {
    const told = bodyOf(change, format)
    equal(told.response_format, undefined)
    equal((told.messages as ChatMessage[])[0]!.content.includes('{"type":"object"}'), true)
  }
})

Deno.test('an answer is cut to what the route can give and to the room that the prompt leaves', () => {
  equal(admit(route(), 10, { max_tokens: 500 }, 0).max_tokens, 200)
  equal(admit(route({ max_output: 5000 }), 900, { max_tokens: 500 }, 0).max_tokens, 100)
  equal(admit(route({ max_output: 5000, context_window: 5000 }), 10, {}, 0).max_tokens, 1024)
  throws(() => admit(route(), 1000, settings, 0), { code: 'context_too_long' })
})

Deno.test('a ceiling refuses what may cost more, counts what was spent, and trusts no unknown price', () => {
  const priced = { prompt_price: 1_000_000, completion_price: 2_000_000 }
  // 10 + 2 × 100 micro-USD.
  equal(admit(route({ ...priced, ceiling_micro_usd: 210 }), 10, settings, 0).max_tokens, 100)
  throws(() => admit(route({ ...priced, ceiling_micro_usd: 209 }), 10, settings, 0), { code: 'cost_ceiling_reached' })
  throws(() => admit(route({ ...priced, ceiling_micro_usd: 210 }), 10, settings, 1), { code: 'cost_ceiling_reached' })
  throws(() => admit(route({ ceiling_micro_usd: 1_000_000 }), 10, settings, 0), { code: 'cost_ceiling_reached' })
  equal(admit(route({ prompt_price: 0, completion_price: 0, ceiling_micro_usd: 1 }), 10, settings, 0).max_tokens, 100)
})

Deno.test('a call that is held for is asked for nothing, one that may use more raises the hold to the sum of all calls', async () => {
  const priced = route({ prompt_price: 1_000_000, completion_price: 2_000_000 })
  const raised: [number, number][] = []
  const raise = async (tokens: number, microUsd: number) => {
    raised.push([tokens, microUsd])
    return { budget_tokens: tokens, budget_micro_usd: microUsd }
  }
  const plan = { routes: [], skipped: [], budget_tokens: 110, budget_micro_usd: 210 }

  await cover(plan, priced, 10, 100, raise)
  deepEqual(raised, [])
  spend(plan, priced, { prompt_tokens: 10, completion_tokens: 20, cached_tokens: 0, estimated: false })
  await cover(plan, priced, 10, 80, raise)
  await cover(plan, route({ prompt_price: 5_000_000, completion_price: 5_000_000 }), 10, 70, raise)
  deepEqual(raised, [
    [120, 220],
    [110, 450],
  ])
  // Without a hold there is nothing to stay within.
  await cover({ routes: [], skipped: [] }, priced, 1_000_000, 1_000_000, () => Promise.reject())
})

Deno.test('what the plan refuses is the reason, what the database cannot say is nothing against the route', async () => {
  const plan = { routes: [], skipped: [], budget_tokens: 1, budget_micro_usd: 1 }
  const reason = (raise: () => Promise<null>) => rejects(cover(plan, route(), 10, 10, raise), ModelError)
  const thrown = async (raise: () => Promise<null>) => {
    await reason(raise)
    return await cover(plan, route(), 10, 10, raise).catch(({ code, retryable, retryAfterSeconds }) => [
      code,
      retryable,
      retryAfterSeconds,
    ])
  }
  const refused = (code: string) => () =>
    Promise.reject(new Problem(429, code, '', { headers: { 'retry-after': '90' } }))
  deepEqual(await thrown(refused('tokens_per_month_exceeded')), ['tokens_per_month_exceeded', false, 90])
  deepEqual(await thrown(refused('budget_per_month_exceeded')), ['budget_per_month_exceeded', false, 90])
  deepEqual(await thrown(() => Promise.reject(new Problem(503, 'busy', ''))), ['budget_unavailable', true, undefined])
  deepEqual(await thrown(() => Promise.resolve(null)), ['budget_unavailable', false, undefined])
})

Deno.test('when every breaker is open the failure that passes soonest is the reason', async () => {
  const skipped = (code: string, retry_after_seconds: number) => ({
    route_id: '1',
    provider: 'p',
    code,
    retry_after_seconds,
  })
  const reason = async (...codes: [string, number][]) => {
    const plan = { routes: [], skipped: codes.map(([code, seconds]) => skipped(code, seconds)) }
    const options = {
      plan,
      prompt: samePrompt(messages),
      settings,
      purpose: { completion_id: 'c' },
      signal: new AbortController().signal,
    }
    const error = await ask({ ...options, env: {} as never, log: {} as never, onText() {} }).catch((thrown) => thrown)
    equal(error instanceof NoAnswer, true)
    return [error.reason.code, error.reason.retryable, error.reason.retryAfterSeconds]
  }
  deepEqual(await reason(['provider_quota_exhausted', 3000]), ['provider_quota_exhausted', false, 3000])
  deepEqual(
    await reason(['provider_quota_exhausted', 3000], ['provider_unavailable', 30], ['provider_rate_limited', 7]),
    ['provider_rate_limited', true, 7],
  )
  deepEqual(await reason(), ['provider_not_configured', false, undefined])
})

Deno.test('a document is read out of a fence and small talk, and a mistake is named', () => {
  const right = {
    summary: 's',
    topics: ['t'],
    sentiment: { label: 'neutral', score: 0 },
    safety: { safe: true, categories: [] },
  }
  const read = (text: string) => readStructured(text, analysis)
  deepEqual(read(`Here you are:\n\`\`\`json\n${JSON.stringify(right)}\n\`\`\``), { ok: true, value: right })
  equal(read('I would rather not.').ok, false)
  const wrong = read(JSON.stringify({ ...right, sentiment: { label: 'great', score: 0 } }))
  equal(!wrong.ok && wrong.mistake.includes('sentiment.label'), true)
})

Deno.test('where the system may speak at the beginning only, the user says the rest, without losing a word', () => {
  const talk: ChatMessage[] = [
    { role: 'system', content: 'You are Mira.' },
    { role: 'assistant', content: 'Hello.' },
    { role: 'system', content: 'It rains.' },
    { role: 'user', content: 'Hi.' },
    { role: 'system', content: 'Be brief.' },
  ]
  const sent = (change: Partial<Route>) => requestFor(route(change), talk, {}).messages
  const told = 'It rains.\n\nHi.\n\nBe brief.'

  deepEqual(sent({ dialect: 'openai' }), talk)
  for (const dialect of ['anthropic', 'compatible'] as const) {
    deepEqual(sent({ dialect }), [...talk.slice(0, 2), { role: 'user', content: told }])
  }
  deepEqual(sent({ dialect: 'openai', takes_system: false }), [
    talk[1],
    { role: 'user', content: `You are Mira.\n\n${told}` },
  ])
})
