import { randomUUID } from 'node:crypto'
import OpenAI from 'openai'
import { describe, expect, it } from 'vitest'
import { addModel, marker, modelRequests, named, readAll, send, startTalk, useModel } from './support/chat.ts'
import { anonymous, choosePlan, database, functionsUrl, type Person, session, signUp, until } from './support/local.ts'

/** What a plan allows, as people meet it. */
const override = (person: Person, limits: Record<string, unknown>) => {
  const row = database()({ user_id: person.id, ...limits })
  return database()`insert into private.plan_overrides ${row} on conflict (user_id) do update set ${database()(limits)}`
}
const mine = async ({ client }: Person) => {
  const { data, error } = await client.rpc('my_entitlements')
  if (error) throw error
  return data as {
    plan: { id: string; until: string | null }
    limits: Record<string, number | boolean | null>
    used: Record<string, number>
    day_ends_at: string
    month_ends_at: string
  }
}
const complete = (person: Person, body: object) =>
  fetch(`${functionsUrl}/chat/complete`, {
    method: 'POST',
    headers: { authorization: `Bearer ${person.token}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
const secondsUntil = (moment: string) => (Date.parse(moment) - Date.now()) / 1000

describe('a plan', () => {
  it('M-11 is free from sign-up on, another one holds for the next request, and visitors can compare them', async () => {
    const person = await signUp()
    // Those of rate-limits.spec come and go.
    const { data: plans } = await anonymous().from('plans').select().not('id', 'like', 'rates\\_%').order('position')
    expect(plans!.map(({ id }) => id)).toEqual(['free', 'plus', 'pro', 'enterprise'])
    const { id, name, position, ...limits } = plans![0]!

    expect(await mine(person)).toMatchObject({ plan: { id, name, until: null }, limits, used: { requests_today: 0 } })

    await choosePlan('enterprise', person)
    expect(await mine(person)).toMatchObject({ plan: { id: 'enterprise' }, limits: { tokens_per_month: null } })
  })

  it('M-07 M-11 names the models that it includes and refuses the others until it is a larger one', async () => {
    const talk = await startTalk()
    const { person } = talk
    const { data: models } = await person.client.rpc('my_models')
    const dearest = models!.find(({ id }) => id === 'claude-haiku-4-5')
    expect(dearest).toMatchObject({ is_included: false, smallest_plan_id: 'pro' })
    expect(models!.find(({ is_default }) => is_default)).toMatchObject({ is_included: true, smallest_plan_id: 'free' })
    await useModel(talk, dearest!.id)

    const refused = await send(talk)
    expect(refused.status).toBe(403)
    expect(await refused.json()).toMatchObject({ code: 'model_not_in_plan' })
    expect((await complete(person, { prompt: 'Hi', model: dearest!.id })).status).toBe(403)

    await choosePlan('pro', person)
    expect(named(await readAll(await send(talk)), 'completed')).toBeDefined()
  })
})

describe('usage', () => {
  it('M-12 B-07 is counted by day and month, with a receipt for each answer that outlives the chat', async () => {
    const talk = await startTalk({ model: 'gpt-4o-mini' })
    const { person } = talk
    const { message } = named(await readAll(await send(talk)), 'completed')!.data
    const completion = await (await complete(person, { prompt: 'Hi', model: 'gpt-4o-mini', stream: false })).json()

    const { data: statement } = await person.client.rpc('my_statement')
    expect(statement).toHaveLength(2)
    expect(statement![1]).toMatchObject({
      kind: 'answer',
      message_id: message.id,
      model_id: 'gpt-4o-mini',
      route: 'openai/gpt-4o-mini',
      plan_id: 'free',
      calls: 1,
      price_version: 1,
      estimated: false,
    })
    expect(statement![0]).toMatchObject({
      kind: 'complete',
      completion_id: completion.id,
      prompt_tokens: completion.usage.prompt_tokens,
      completion_tokens: completion.usage.completion_tokens,
    })
    const sum = (key: 'prompt_tokens' | 'completion_tokens' | 'cost_micro_usd') =>
      statement!.reduce((total, receipt) => total + (receipt[key] ?? 0), 0)
    expect(sum('cost_micro_usd')).toBeGreaterThan(0)
    const { data: days } = await person.client.rpc('my_usage', { days: 1 })
    const figures = {
      requests: 2,
      prompt_tokens: sum('prompt_tokens'),
      completion_tokens: sum('completion_tokens'),
      cost_micro_usd: sum('cost_micro_usd'),
    }
    expect(days).toMatchObject([figures])
    const { data: months } = await person.client.from('usage_periods').select()
    expect(months).toMatchObject([{ ...figures, held_tokens: 0, held_micro_usd: 0 }])

    await database()`delete from public.conversations where id = ${talk.conversationId}`
    const { data: page } = await person.client.rpc('my_statement', { before: statement![0]!.id, page_size: 1 })
    expect(page).toEqual([statement![1]])
    const stranger = await signUp()
    expect((await stranger.client.from('usage_receipts').select()).data).toEqual([])
  })

  it('B-05 is held while an answer is on its way, and given back when it used nothing', async () => {
    const talk = await startTalk({ model: 'sandbox/stall-before' })
    const { person } = talk
    const { generation } = await (await send(talk, { body: { stream: false, run: 'queued' } })).json()

    const { used } = await mine(person)
    expect(used).toMatchObject({ requests_today: 1, concurrent_generations: 1, tokens_this_month: 0 })
    expect(used.held_tokens).toBeGreaterThan(1024)

    await person.client.rpc('cancel_generation', { generation_id: generation.id })
    const after = await until(async () => {
      const now = await mine(person)
      return now.used.concurrent_generations === 0 ? now : null
    })
    expect(after.used).toMatchObject({ requests_today: 1, held_tokens: 0, held_micro_usd: 0 })
  })
})

describe('a limit', () => {
  it('M-12 B-25 of requests counts messages and completions alike, and says when the day ends', async () => {
    const talk = await startTalk()
    const { person } = talk
    await override(person, { requests_per_day: 2 })
    await readAll(await send(talk))
    await (await complete(person, { prompt: 'Hi', stream: false })).json()

    const refusals = [await send(talk), await complete(person, { prompt: 'Hi' })]

    const { day_ends_at } = await mine(person)
    for (const response of refusals) {
      expect(response.status).toBe(429)
      expect(await response.json()).toMatchObject({ code: 'requests_per_day_exceeded' })
      expect(Math.abs(Number(response.headers.get('retry-after')) - secondsUntil(day_ends_at))).toBeLessThan(30)
    }
    const { error } = await person.client.rpc('send_message', { conversation_id: talk.conversationId, content: 'Hi' })
    expect(error).toMatchObject({ code: 'PT429', message: 'requests_per_day_exceeded' })
    expect(Date.parse(error!.hint!.match(/[\dT:.-]+Z/)![0])).toBe(Date.parse(day_ends_at))
  })

  it('M-12 B-25 of requests lets ten of a hundred at once pass, native and of OpenAI clients', async () => {
    const person = await signUp()
    await choosePlan('enterprise', person)
    const talks = [await startTalk({ person })]
    const model = `character:${talks[0]!.characterId}`
    while (talks.length < 25) {
      const { data } = await person.client.rpc('start_conversation', { character_id: talks[0]!.characterId })
      talks.push({ ...talks[0]!, conversationId: data!.id })
    }
    const { data: key } = await person.client.rpc('create_api_key', { name: 'Crowd' })
    const apiKey = (key as unknown as { key: string }).key
    const client = new OpenAI({ apiKey, baseURL: `${functionsUrl}/openai/v1`, maxRetries: 0 })
    const ask = (model: string, headers = {}) =>
      client.chat.completions.create({ model, messages: [{ role: 'user', content: 'Hi' }] }, { headers }).then(
        () => 'passed',
        (error) => error.error.reason,
      )
    const native = async (talk: (typeof talks)[number]) => {
      const response = await send(talk, { body: { stream: false } })
      const { code = 'passed' } = await response.json()
      return code
    }
    await override(person, { requests_per_day: 10 })
    const gate = session()
    await gate.unsafe('begin')
    await gate`select from private.owners where user_id = ${person.id} for update`

    const crowd = talks.flatMap((talk) => [
      native(talk),
      ask('gpt-4o-mini'),
      ask(model),
      ask(model, { 'X-Parlor-Conversation': 'new' }),
    ])
    await until(async () => {
      const [row] = await database()`
        select count(*)::int as waiting from pg_stat_activity
        where wait_event_type = 'Lock' and query ~ '(send_message|begin_completion|talk_to_character)'`
      return row!.waiting >= 5
    })
    await gate.unsafe('rollback')
    const told = await Promise.all(crowd)

    expect(told).toHaveLength(100)
    expect(told.filter((what) => what === 'passed')).toHaveLength(10)
    expect(new Set(told)).toEqual(new Set(['passed', 'requests_per_day_exceeded']))
    expect((await mine(person)).used).toMatchObject({ requests_today: 10, concurrent_generations: 0, held_tokens: 0 })
  })

  it('B-05 B-07 of tokens or money is never gone beyond: no model is asked for what may be too much', async () => {
    const said = marker()
    for (const [limits, code] of [
      [{ tokens_per_month: 500, micro_usd_per_month: null }, 'tokens_per_month_exceeded'],
      [{ tokens_per_month: null, micro_usd_per_month: 500 }, 'budget_per_month_exceeded'],
    ] as const) {
      const person = await signUp()
      await override(person, limits)

      const response = await complete(person, { prompt: said, model: 'gpt-4o-mini', max_tokens: 1000 })

      expect(response.status).toBe(429)
      expect(await response.json()).toMatchObject({ code })
      const { month_ends_at } = await mine(person)
      expect(Math.abs(Number(response.headers.get('retry-after')) - secondsUntil(month_ends_at))).toBeLessThan(30)
    }
    expect(await modelRequests(said)).toEqual([])
  })

  it('B-07 a client that allows more than the model can say is held for what it can', async () => {
    const person = await signUp()
    await override(person, { tokens_per_month: 20_000 })

    const body = { prompt: marker(), model: 'gpt-4o-mini', max_tokens: 32_000, stream: false }
    expect((await complete(person, body)).status).toBe(200)
  })

  it('B-06 holds for the prompt as it was composed in the end, too: what was held is raised or the answer fails', async () => {
    const said = marker()
    const talk = await startTalk()
    const { person } = talk
    // Not among the texts that the hold reckons with.
    const { error } = await person.client
      .from('character_definitions')
      .update({ post_history_instructions: 'Be brief. '.repeat(1500) })
      .eq('character_id', talk.characterId)
    expect(error).toBeNull()
    const moved = await person.client.rpc('start_conversation', { character_id: talk.characterId })
    const long = { ...talk, conversationId: moved.data!.id }
    await override(person, { tokens_per_month: 3000 })

    const failed = named(await readAll(await send(long, { content: said })), 'failed')
    expect(failed!.data).toMatchObject({ code: 'tokens_per_month_exceeded', retryable: false })
    expect(await modelRequests(said)).toEqual([])

    await override(person, { tokens_per_month: 100_000 })
    expect(named(await readAll(await send(long, { content: said })), 'completed')).toBeDefined()
    const { used } = await mine(person)
    expect(used.tokens_this_month).toBeGreaterThan(1000)
    expect(used.held_tokens).toBe(0)
  })

  it('B-06 is asked again before the next route: what a failed one has used, or may have, counts', async () => {
    const said = marker()
    const model = `test-${randomUUID()}`
    await addModel(model, database(), ['sandbox/empty-choices+not-streaming', 'sandbox-small'])
    const person = await signUp()
    const ask = async (tokens_per_month: number) => {
      await override(person, { tokens_per_month })
      return complete(person, { prompt: `${said} ${'word '.repeat(400)}`, model, max_tokens: 50, stream: false })
    }
    const asked = async () => (await modelRequests(said)).map((request) => request.model)

    const refused = await ask(700)

    // Of two reasons it is told the one that may pass.
    expect([refused.status, (await refused.json()).code]).toEqual([502, 'answer_empty'])
    expect(await asked()).toEqual(['sandbox/empty-choices+not-streaming'])
    expect((await ask(10_000)).status).toBe(200)
    expect((await asked())[0]).toBe('sandbox-small')
    const { data: statement } = await person.client.rpc('my_statement')
    expect(statement!.map(({ calls }) => calls)).toEqual([2, 1])
    expect((await mine(person)).used.held_tokens).toBe(0)
  })

  it('M-12 of answers at once is free again when one of them ends', async () => {
    const person = await signUp()
    const [one, two] = [
      await startTalk({ person, model: 'sandbox/stall' }),
      await startTalk({ person, model: 'sandbox-small' }),
    ]
    await override(person, { concurrent_generations: 1 })
    const { generation } = await (await send(one, { body: { stream: false, run: 'queued' } })).json()

    const refused = await send(two)
    expect(refused.status).toBe(429)
    expect(await refused.json()).toMatchObject({ code: 'too_many_generations' })

    await person.client.rpc('cancel_generation', { generation_id: generation.id })
    await until(async () => (await mine(person)).used.concurrent_generations === 0)
    expect(named(await readAll(await send(two)), 'completed')).toBeDefined()
  })

  it('M-12 of requests in a minute comes back within seconds, which the refusal names', async () => {
    const person = await signUp()
    await override(person, { requests_per_minute: 1 })
    await (await complete(person, { prompt: 'Hi', stream: false })).json()

    const refused = await complete(person, { prompt: 'Hi', stream: false })

    expect(refused.status).toBe(429)
    expect(await refused.json()).toMatchObject({ code: 'requests_per_minute_exceeded' })
    const wait = Number(refused.headers.get('retry-after'))
    expect(wait).toBeGreaterThan(1)
    expect(wait).toBeLessThanOrEqual(60)
  })

  it('M-11 of characters and of stored bytes is met where they are made', async () => {
    const person = await signUp()
    await override(person, { max_characters: 1, storage_bytes: 100 })
    const make = () => person.client.from('characters').insert({ name: 'Ada', age: 36 })
    const upload = (name: string, bytes: number) =>
      person.client.storage
        .from('avatars')
        .upload(`${person.id}/${name}.png`, Buffer.alloc(bytes), { contentType: 'image/png' })

    expect((await make()).error).toBeNull()
    expect((await make()).error).toMatchObject({ code: 'PT403', message: 'too_many_characters' })
    expect((await upload('a', 80)).error).toBeNull()
    expect((await upload('b', 40)).error).toMatchObject({ message: 'storage_full' })
    expect((await mine(person)).used).toMatchObject({ characters: 1, storage_bytes: 80 })
    await person.client.storage.from('avatars').remove([`${person.id}/a.png`])
    expect((await upload('b', 40)).error).toBeNull()
  })
})
