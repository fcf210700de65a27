import { randomUUID } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import {
  addModel,
  marker,
  modelRequests,
  named,
  readAll,
  send,
  startTalk,
  type Talk,
  useModel,
} from './support/chat.ts'
import { database, type Person, signUp, until } from './support/local.ts'

interface Message {
  role: string
  content: string
}

/** Sends a message and waits for its answer; the ids and the prompt that arrived at the model. */
async function ask(talk: Talk, text = 'Go on.') {
  const content = `${text} ${marker()}`
  const all = await readAll(await send(talk, { content }))
  const ending = named(all, 'completed') ?? named(all, 'failed')
  const requests = (await modelRequests(content)).toReversed()
  return {
    content,
    ending,
    generationId: named(all, 'connected')!.data.generation_id as string,
    prompts: requests.map(({ body }) => body.messages as Message[]),
    prompt: requests.at(-1)?.body.messages as Message[],
  }
}

// biome-ignore lint/suspicious/noExplicitAny: a trace is read as a client reads it.
async function explain(person: Person, generation_id: string): Promise<any> {
  const { data, error } = await person.client.rpc('explain_prompt', { generation_id })
  if (error) throw error
  return data
}

const lastTrace = async (person: Person, generationId: string) =>
  (await explain(person, generationId)).attempts.at(-1).trace

/** What one part of a trace says. */
// biome-ignore lint/suspicious/noExplicitAny: a trace is read as a client reads it.
const part = (trace: any, name: string) => trace.sections.find((section: { name: string }) => section.name === name)

async function define(talk: Talk, definition: Record<string, unknown>): Promise<void> {
  const { error } = await talk.person.client
    .from('character_definitions')
    .update(definition as never)
    .eq('character_id', talk.characterId)
  if (error) throw error
}

async function addLore(talk: Talk, entries: Record<string, unknown>[], book: Record<string, unknown> = {}) {
  const { client } = talk.person
  const owner = 'conversation_id' in book ? {} : { character_id: talk.characterId }
  const made = await client
    .from('lorebooks')
    .insert({ ...owner, ...book } as never)
    .select()
    .single()
  if (made.error) throw made.error
  const rows = entries.map((entry, position_in_book) => ({ lorebook_id: made.data.id, position_in_book, ...entry }))
  const { data, error } = await client
    .from('lore_entries')
    .insert(rows as never, { defaultToNull: false })
    .select()
  if (error) throw error
  return data
}

/** Somebody who has joined the conversation. */
async function join(talk: Talk): Promise<Person> {
  const guest = await signUp()
  const invited = await talk.person.client.rpc('invite_participant', {
    conversation_id: talk.conversationId,
    user_id: guest.id,
  })
  if (invited.error) throw invited.error
  const accepted = await guest.client.rpc('accept_invitation', { conversation_id: talk.conversationId })
  if (accepted.error) throw accepted.error
  return guest
}

/** A model with so small a window that conversations outgrow it. */
async function smallModel(window: number): Promise<string> {
  const model = `small-${randomUUID()}`
  await addModel(model)
  await database()`update public.ai_models set context_window = ${window}, max_output = 200 where id = ${model}`
  return model
}

describe('the prompt of a new conversation', () => {
  it('K-06 is composed from the character, with the greeting first', async () => {
    const person = await signUp({ data: { display_name: 'Sam' } })
    const { data: character, error } = await person.client
      .from('characters')
      .insert({
        name: 'Miranda Vale',
        nickname: 'Mira',
        description: 'A pilot who is {{char}} to friends.',
        greeting: 'Hello there.',
        age: 30,
        occupation: 'pilot',
        hobbies: ['chess'],
        appearance: { eye_colour: 'grey' },
        creator_notes: 'For people only.',
      })
      .select()
      .single()
    expect(error).toBeNull()
    const started = await person.client.rpc('start_conversation', { character_id: character!.id })
    const talk = { person, characterId: character!.id, conversationId: started.data!.id }
    await define(talk, {
      system_instruction: '{{original}} Be kind to {{user}}.',
      personality: 'Dry.',
      scenario: 'A boat.',
      backstory: 'Born at sea.',
      example_dialogue: '<START>\n{{char}}: Aye.',
      post_history_instructions: 'Stay brief.',
      depth_prompt: { prompt: 'It rains.', depth: 1, role: 'system' },
    })
    await person.client.rpc('start_conversation', { character_id: character!.id }).then(({ data }) => {
      talk.conversationId = data!.id
    })

    const { prompt, content } = await ask(talk, 'Hi {{char}}!')

    const order = [
      'You are Mira.',
      'Be kind to',
      '# About Mira\nA pilot who is Mira to friends.',
      'Age: 30\nOccupation: pilot\nHobbies: chess',
      'Eyes: grey',
      '# Personality\nDry.',
      '# Backstory\nBorn at sea.',
      '# Scenario\nA boat.',
      'Mira: Aye.',
    ].map((text) => prompt[0]!.content.indexOf(text))
    expect(order.every((at) => at >= 0)).toBe(true)
    expect(order).toEqual(order.toSorted((a, b) => a - b))
    expect(prompt[0]!.content).not.toContain('For people only.')
    expect(prompt.slice(1)).toEqual([
      { role: 'assistant', content: 'Hello there.' },
      { role: 'system', content: 'It rains.' },
      { role: 'user', content },
      { role: 'system', content: 'Stay brief.' },
    ])
  })

  it('B-12 keeps the version that the conversation began with, and says so', async () => {
    const talk = await startTalk()
    await define(talk, { personality: 'Shy.' })
    const { data: later } = await talk.person.client.rpc('start_conversation', { character_id: talk.characterId })
    await define(talk, { personality: 'Loud.' })

    const old = await ask({ ...talk, conversationId: later!.id })

    expect(old.prompt[0]!.content).toContain('# Personality\nShy.')
    const trace = await lastTrace(talk.person, old.generationId)
    expect(part(trace, 'personality')).toMatchObject({ text: 'Shy.', outcome: 'in' })
    expect(trace.character_version).toBe(2)
  })
})

describe('lore', () => {
  it('B-11 comes by keys, patterns, second keys and as constant, and the trace says why or why not', async () => {
    const talk = await startTalk()
    const entries = await addLore(
      talk,
      [
        { keys: ['dragon'], content: 'Dragons are shy.' },
        { is_constant: true, content: 'The sea is salt.' },
        { keys: ['/wyrms?\\b/i'], uses_regex: true, content: 'Wyrms are old.' },
        { keys: ['dragon'], secondary_keys: ['egg'], is_selective: true, content: 'Eggs are gold.' },
        { keys: ['shy'], content: 'Shyness is rare.' },
        { keys: ['('], uses_regex: true, content: 'Broken.' },
        { keys: ['unsaid'], content: 'Nobody asked.' },
        { keys: ['dragon'], is_enabled: false, content: 'Off.' },
        { keys: ['кот'], matches_whole_words: true, content: 'Cats.' },
      ],
      { is_recursive: true },
    )
    await addLore(talk, [{ keys: ['dragon'], content: 'Here be one.' }], { conversation_id: talk.conversationId })

    const { prompt, content, generationId } = await ask(talk, 'A DRAGON and a Wyrm, который?')

    expect(prompt[0]!.content).toContain('The sea is salt.')
    expect(prompt.at(-1)).toEqual({ role: 'user', content })
    expect(prompt.at(-2)).toEqual({
      role: 'system',
      content: 'Dragons are shy.\n\nWyrms are old.\n\nShyness is rare.\n\nHere be one.',
    })
    const trace = await lastTrace(talk.person, generationId)
    const told = trace.sections.filter(({ name }: { name: string }) => name === 'lore')
    expect(
      told.map(({ entry_id, reason, key, text }: Record<string, string>) => [entry_id, reason, key, text]),
    ).toEqual([
      [entries![1]!.id, 'constant', undefined, 'The sea is salt.'],
      [entries![0]!.id, 'key', 'dragon', 'Dragons are shy.'],
      [entries![2]!.id, 'key', '/wyrms?\\b/i', 'Wyrms are old.'],
      [entries![4]!.id, 'recursion', 'shy', 'Shyness is rare.'],
      [expect.any(String), 'key', 'dragon', 'Here be one.'],
    ])
    expect(trace.left_out_lore).toEqual({
      character: { no_secondary_key: [3], no_key: [5, 6, 8], disabled: [7] },
    })
  })

  it('B-11 stays within the budget of its book, the least worth goes first', async () => {
    const talk = await startTalk()
    const words = 'word '.repeat(40)
    await addLore(
      talk,
      [1, 9, 5].map((priority) => ({ is_constant: true, priority, content: `${priority} ${words}` })),
      { token_budget: 130 },
    )

    const { prompt, generationId } = await ask(talk)

    expect([1, 9, 5].map((priority) => prompt[0]!.content.includes(`${priority} word`))).toEqual([false, true, true])
    expect((await lastTrace(talk.person, generationId)).left_out_lore).toEqual({ character: { over_budget: [0] } })
  })
})

describe('explaining a prompt', () => {
  it('B-11 B-12 shows the owner of a character its texts, others their names and sizes, and strangers nothing', async () => {
    const talk = await startTalk()
    await define(talk, { personality: 'SECRET personality', post_history_instructions: 'SECRET last word' })
    const { data: conversation } = await talk.person.client.rpc('start_conversation', {
      character_id: talk.characterId,
    })
    talk.conversationId = conversation!.id
    await addLore(talk, [{ keys: ['go on'], name: 'SECRET label', content: 'SECRET lore' }])
    const [guest, removed, stranger] = [await join(talk), await join(talk), await signUp()]
    const { generationId } = await ask(talk)
    await talk.person.client.rpc('remove_participant', { conversation_id: talk.conversationId, user_id: removed.id })

    const own = await explain(talk.person, generationId)
    const others = await explain(guest, generationId)

    expect(part(own.attempts[0].trace, 'personality')).toMatchObject({ text: 'SECRET personality' })
    expect(part(own.attempts[0].trace, 'lore')).toMatchObject({ text: 'SECRET lore', label: 'SECRET label' })
    expect(JSON.stringify(others)).not.toContain('SECRET')
    expect(part(others.attempts[0].trace, 'personality')).toEqual({
      name: 'personality',
      source: 'character',
      outcome: 'in',
      chars: '# Personality\nSECRET personality'.length,
      tokens: expect.any(Number),
    })
    expect(part(others.attempts[0].trace, 'lore')).toEqual({
      name: 'lore',
      source: 'lore',
      outcome: 'in',
      chars: 'SECRET lore'.length,
      tokens: expect.any(Number),
    })
    expect(others.attempts[0].trace.left_out_lore).toEqual({})
    for (const person of [removed, stranger]) {
      const { error } = await person.client.rpc('explain_prompt', { generation_id: generationId })
      expect(error?.message).toBe('generation_not_found')
    }
  })

  it('is kept for an answer that failed, too', async () => {
    const talk = await startTalk({ model: 'sandbox/error-400' })

    const { generationId, ending } = await ask(talk)

    expect(ending!.data.code).toBe('provider_refused_request')
    const { attempts } = await explain(talk.person, generationId)
    expect(attempts).toMatchObject([{ outcome: 'failed', route: 'openai/sandbox/error-400' }])
    expect(attempts[0].trace.history).toMatchObject({ messages: 2, left_out: 0 })
  })
})

describe('a prompt and the cache of its provider', () => {
  it('B-09 begins alike from one answer to the next, with one hash, and what was cached is metered', async () => {
    const talk = await startTalk()
    await define(talk, { personality: `${randomUUID()} ${'Careful with words. '.repeat(300)}` })
    const { data } = await talk.person.client.rpc('start_conversation', { character_id: talk.characterId })
    talk.conversationId = data!.id
    await addLore(talk, [
      { is_constant: true, content: 'Always.' },
      { keys: ['storm'], content: 'Storms are loud.' },
    ])

    const first = await ask(talk, 'Hello.')
    const second = await ask(talk, 'A storm!')
    const third = await ask(talk, 'And then?')

    const history = (prompt: Message[]) => prompt.slice(0, -1).filter(({ content }) => content !== 'Storms are loud.')
    expect(second.prompt.slice(0, first.prompt.length)).toEqual(first.prompt)
    expect(history(third.prompt).slice(0, history(second.prompt).length)).toEqual(history(second.prompt))
    expect(second.prompt.at(-2)!.content).toBe('Storms are loud.')
    const attempts = await Promise.all(
      [first, second, third].map(async ({ generationId }) => (await explain(talk.person, generationId)).attempts[0]),
    )
    expect(attempts[0].prefix_hash).toMatch(/^[0-9a-f]{64}$/)
    expect(new Set(attempts.map(({ prefix_hash }) => prefix_hash)).size).toBe(1)
    expect(attempts[0].usage.cached_tokens).toBe(0)
    expect(attempts[1].usage.cached_tokens).toBeGreaterThanOrEqual(1408)
    const { data: generation } = await talk.person.client
      .from('generations')
      .select('usage')
      .eq('id', second.generationId)
      .single()
    expect(generation!.usage).toMatchObject({ cached_tokens: attempts[1].usage.cached_tokens })
  })

  it('B-09 is made for each route by what it takes', async () => {
    const model = `routes-${randomUUID()}`
    await addModel(model, database(), ['sandbox/error-503', `narrow-${model}`])
    await database()`update private.ai_routes set context_window = 1200 where model = ${model} and position = 2`
    const talk = await startTalk()
    for (let count = 0; count < 4; count += 1) await ask(talk, 'word '.repeat(150))
    await useModel(talk, model)

    const { prompts, ending, generationId } = await ask(talk)

    expect(ending!.event).toBe('generation.completed')
    expect(prompts[0]!.length).toBe(11)
    expect(prompts[1]!.length).toBeLessThan(8)
    expect(prompts[1]!.at(-1)).toEqual(prompts[0]!.at(-1))
    const { attempts } = await explain(talk.person, generationId)
    expect(attempts).toMatchObject([{ outcome: 'completed', route: `openrouter/narrow-${model}` }])
    expect(attempts[0].trace.budget.window).toBe(1200)
    expect(attempts[0].trace.tokens).toBeLessThanOrEqual(600)
  })

  it('B-09 is made shorter once when the provider finds it too long', async () => {
    const talk = await startTalk()
    for (let count = 0; count < 4; count += 1) await ask(talk, 'word '.repeat(150))
    await useModel(talk, 'sandbox/context-900')

    const { prompts, ending, generationId, content } = await ask(talk)

    expect(ending!.event).toBe('generation.completed')
    expect(prompts.length).toBe(2)
    expect(prompts[1]!.length).toBeLessThan(prompts[0]!.length)
    expect(prompts[1]!.at(-1)!.content).toBe(content)
    const { attempts } = await explain(talk.person, generationId)
    expect(attempts).toMatchObject([{ outcome: 'completed', trace: { is_second_try: true } }])
  })

  it('ends the answer when not even the shorter one fits, after two requests', async () => {
    const talk = await startTalk()
    await define(talk, { personality: 'word '.repeat(300) })
    const { data } = await talk.person.client.rpc('start_conversation', { character_id: talk.characterId })
    talk.conversationId = data!.id
    await useModel(talk, 'sandbox/context-20')

    const { prompts, ending } = await ask(talk)

    expect(ending).toMatchObject({ event: 'generation.failed', data: { code: 'context_too_long', retryable: false } })
    expect(prompts.length).toBe(2)
  })
})

describe('the summary of a branch that outgrows its model', () => {
  it('B-09 is made by a job, stands for what the history leaves out, on branches that it tells, and is accounted', async () => {
    const model = await smallModel(1600)
    const talk = await startTalk({ model })
    const { client } = talk.person
    await client.from('conversations').update({ max_tokens: 100 }).eq('id', talk.conversationId)
    const [guest, stranger] = [await join(talk), await signUp()]
    const summaries = async (person: Person) =>
      (await person.client.from('conversation_summaries').select().eq('conversation_id', talk.conversationId)).data!
    const opening = await ask(talk, 'Our ship is the Heron.')
    const all = [opening]

    // Eight messages of about 250 tokens with their answers are more than four fifths of 1,500.
    while (all.length < 8) all.push(await ask(talk, 'word '.repeat(120)))
    await until(async () => (await summaries(guest))[0], 20_000)
    const told = await ask(talk, 'word '.repeat(120))

    expect(await summaries(stranger)).toEqual([])
    expect(told.prompt.length).toBeLessThan(all.length * 2)
    const trace = await lastTrace(talk.person, told.generationId)
    expect(trace.summary.is_used).toBe(true)
    const used = (await summaries(guest)).find(({ message_id }) => message_id === trace.summary.message_id)
    expect(told.prompt[0]!.content).toContain(`# The story so far\n${used!.content}`)
    expect(trace.tokens).toBeLessThanOrEqual(1500)
    const request = (await modelRequests('You keep the record of a conversation')).find(({ body }) =>
      JSON.stringify(body).includes(opening.content),
    )
    expect(request).toBeDefined()
    const [spent] = await database()`
      select k.outcome, sum((c.usage ->> 'prompt_tokens')::int) > 0 as counted
      from private.completions as k join private.model_calls as c on c.completion_id = k.id
      where k.user_id = ${talk.person.id} and k.kind = 'summarise' group by k.id limit 1`
    expect(spent).toEqual({ outcome: 'completed', counted: true })

    // A branch that leaves before what the summary tells knows nothing of it.
    const { data: first } = await client
      .from('messages')
      .select('id')
      .eq('conversation_id', talk.conversationId)
      .eq('content', opening.content)
      .single()
    const said = marker()
    await client.rpc('edit_message', { message_id: first!.id, content: said, run: 'queued' })
    const other = await until(async () => (await modelRequests(said))[0]?.body.messages as Message[] | undefined)
    expect(other[0]!.content).not.toContain('# The story so far')
    expect(other.length).toBe(3)
  }, 120_000)
})
