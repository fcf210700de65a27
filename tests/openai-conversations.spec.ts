import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { promisify } from 'node:util'
import OpenAI, {
  BadRequestError,
  ConflictError,
  InternalServerError,
  NotFoundError,
  PermissionDeniedError,
  RateLimitError,
} from 'openai'
import { beforeAll, describe, expect, it } from 'vitest'
import { marker, modelRequests, releaseModel, startTalk, type Talk } from './support/chat.ts'
import { invite } from './support/follow.ts'
import { database, functionsUrl, type Person, signUp, until } from './support/local.ts'

const sql = database()
const clientOf = (apiKey: string, options: object = {}) =>
  new OpenAI({ apiKey, baseURL: `${functionsUrl}/openai/v1`, maxRetries: 0, ...options })
const ask = (content: string): OpenAI.ChatCompletionMessageParam[] => [{ role: 'user', content }]
const failure = (call: PromiseLike<unknown>) =>
  call.then(
    (value) => {
      throw new Error(`It did not fail, but gave ${JSON.stringify(value)}.`)
    },
    (error) => error,
  )

interface Wish {
  conversation: string
  key?: string
  signal?: AbortSignal
}
const options = ({ conversation, key, signal }: Wish) => ({
  headers: { 'X-Parlor-Conversation': conversation, ...(key && { 'Idempotency-Key': key }) },
  signal,
})
type Body = Partial<OpenAI.ChatCompletionCreateParamsNonStreaming> & Pick<OpenAI.ChatCompletionCreateParams, 'messages'>

/** Asks in a talk's conversation, unless another one is wished for. */
const say = (talk: Talk, body: Body, wish: Partial<Wish> = {}, by = client) =>
  by.chat.completions.create(
    { model: `character:${talk.characterId}`, ...body },
    options({ conversation: talk.conversationId, ...wish }),
  )
const stream = (talk: Talk, content: string, wish: Partial<Wish> = {}) =>
  client.chat.completions.create(
    { model: `character:${talk.characterId}`, messages: ask(content), stream: true },
    options({ conversation: talk.conversationId, ...wish }),
  )

/** Who said what in a conversation, as its person reads it. */
async function branchOf(conversation_id: string, by = person) {
  const { data, error } = await by.client.rpc('conversation_branch', { conversation_id })
  if (error) throw error
  return data.map(({ role, content, status }) => [role, content, status])
}
const receiptsOf = (conversation: string) => sql`
  select r.completion_tokens::int, r.estimated from public.usage_receipts as r
  join public.generations as g on g.id = r.generation_id where g.conversation_id = ${conversation}`

let person: Person
let client: OpenAI
let home: Talk
beforeAll(async () => {
  person = await signUp()
  const { data } = await person.client.rpc('create_api_key', { name: 'Client' })
  client = clientOf((data as unknown as { key: string }).key)
  home = await startTalk({ person })
})

describe('a conversation that is kept', () => {
  it('B-26 begins with a first request and goes on with the next, as any other conversation of the person', async () => {
    const [first, second] = [marker(), marker()]

    const { data: opening, response } = await say(
      home,
      { messages: ask(first) },
      { conversation: 'new' },
    ).withResponse()
    const conversation = response.headers.get('x-parlor-conversation')!
    const answer = await say(home, { messages: ask(second) }, { conversation })

    expect(opening.choices[0]!.message.content).toContain(first)
    expect(await branchOf(conversation)).toEqual([
      ['assistant', 'Hello, you.', 'completed'],
      ['user', first, 'completed'],
      ['assistant', opening.choices[0]!.message.content, 'completed'],
      ['user', second, 'completed'],
      ['assistant', answer.choices[0]!.message.content, 'completed'],
    ])
    expect(answer).toMatchObject({ object: 'chat.completion', model: `character:${home.characterId}` })
    expect(answer.choices[0]!.finish_reason).toBe('stop')
    const { data: list } = await person.client.rpc('list_conversations')
    expect(list!.map(({ id }) => id)).toContain(conversation)
    const { data: statement } = await person.client.rpc('my_statement', { page_size: 2 })
    expect(statement!.map(({ generation_id }) => `chatcmpl-${generation_id}`)).toEqual([answer.id, opening.id])
    expect(answer.usage).toMatchObject({
      prompt_tokens: statement![0]!.prompt_tokens,
      completion_tokens: statement![0]!.completion_tokens,
    })
  })

  it('has the history that is stored, whatever the client believes it to be', async () => {
    const talk = await startTalk({ person })
    const [first, second] = [marker(), marker()]
    const opening = await say(talk, { messages: ask(first) })

    await say(talk, {
      messages: [
        { role: 'system', content: 'You are a pirate.' },
        { role: 'user', content: 'What never was said.' },
        { role: 'assistant', content: 'Nor this.' },
        ...ask(second),
      ],
    })

    const [request] = await modelRequests(second)
    const given = request!.body.messages as { role: string; content: string }[]
    expect(given.slice(-3)).toEqual([
      { role: 'user', content: first },
      { role: 'assistant', content: opening.choices[0]!.message.content },
      { role: 'user', content: second },
    ])
    expect(JSON.stringify(given)).not.toMatch(/pirate|never was said|Nor this/)
  })

  it('B-26 streams, also to the client’s helper, with usage where it is asked for', async () => {
    const talk = await startTalk({ person })
    const said = marker()
    const deltas: string[] = []

    const runner = client.chat.completions.stream(
      {
        model: `character:${talk.characterId}`,
        messages: ask(said),
        stream_options: { include_usage: true },
      },
      options({ conversation: talk.conversationId }),
    )
    runner.on('content', (delta) => deltas.push(delta))
    const completion = await runner.finalChatCompletion()

    expect(deltas.length).toBeGreaterThan(1)
    expect(completion.choices[0]!.message.content).toBe(deltas.join(''))
    expect((await branchOf(talk.conversationId)).at(-1)).toEqual(['assistant', deltas.join(''), 'completed'])
    const [receipt] = await receiptsOf(talk.conversationId)
    expect((await runner.totalUsage()).completion_tokens).toBe(receipt!.completion_tokens)

    const bare = await stream(talk, marker()).withResponse()
    expect(bare.response.headers.get('x-parlor-conversation')).toBe(talk.conversationId)
    for await (const chunk of bare.data) expect('usage' in chunk).toBe(false)
  })

  it('answers with the settings that the client wishes, else with its own', async () => {
    const talk = await startTalk({ person })
    await person.client
      .from('conversations')
      .update({ model_id: 'gpt-4o-mini', temperature: 0.1, max_tokens: 60 })
      .eq('id', talk.conversationId)
    const [plain, wished] = [marker(), marker()]
    const wishes = { temperature: 0.9, top_p: 0.5, seed: 7, presence_penalty: 0.5 }

    await say(talk, { messages: ask(plain) })
    const cut = await say(talk, { messages: ask(wished), ...wishes, stop: 'you say', max_tokens: 50 })

    expect(cut.choices[0]!.message.content).toMatch(/, $/)
    const [own] = (await modelRequests(plain)).reverse()
    const [theirs] = await modelRequests(wished)
    expect(own!.body).toMatchObject({ temperature: 0.1, max_completion_tokens: 60 })
    expect(theirs!.body).toMatchObject({ ...wishes, stop: ['you say'], max_completion_tokens: 50 })
  })

  it('is watched and stopped by others who take part, as their own', async () => {
    const talk = await startTalk({ person, model: 'sandbox/stall' })
    const guest = await signUp()
    await invite(talk, guest)
    const said = marker()
    const answering = say(talk, { messages: ask(said) })
    const generation = await until(async () => {
      const { data } = await guest.client.from('generations').select().eq('conversation_id', talk.conversationId)
      return data!.find(({ status }) => status === 'running')
    })
    await until(async () => (await modelRequests(said))[0]?.state === 'stalled')

    await guest.client.rpc('cancel_generation', { generation_id: generation.id })

    const completion = await answering
    expect(completion.choices[0]!.finish_reason).toBe('stop')
    expect((await branchOf(talk.conversationId)).at(-1)).toEqual([
      'assistant',
      completion.choices[0]!.message.content,
      'cancelled',
    ])
    expect(completion.usage!.completion_tokens).toBeGreaterThan(0)
  })
})

describe('the guide', () => {
  const guide = readFileSync('docs/openai.md', 'utf8')
  /** Runs an example as it stands there, with a key and a character for the dots; returns the lines that it prints. */
  async function run(name: string) {
    const [, code] = guide.match(new RegExp(`<!-- ${name}:begin -->\\n\`\`\`js\\n([\\s\\S]*?)\`\`\``))!
    const filled = code!
      .replace('http://127.0.0.1:54321/functions/v1', functionsUrl)
      .replace('pk_parlor_...', client.apiKey!)
      .replace('character:...', `character:${home.characterId}`)
    const args = ['--input-type=module', '-e', filled]
    const { stdout } = await promisify(execFile)(process.execPath, args)
    return stdout.trim().split('\n')
  }

  it('has examples that run', async () => {
    expect(await run('openai-javascript')).toEqual([expect.stringContaining('Hello!')])
    expect(await run('openai-conversation')).toEqual([
      expect.stringContaining('Where are we going?'),
      expect.stringContaining('And after that?'),
    ])
  })
})

describe('leaving', () => {
  it('stops the answer; what came is kept and paid for', async () => {
    const talk = await startTalk({ person, model: 'sandbox/slow-100' })
    const said = marker()
    const answer = await stream(talk, said)

    let text = ''
    for await (const { choices } of answer) {
      text += choices[0]?.delta.content ?? ''
      if (text.length > 20) answer.controller.abort()
    }

    await until(async () => (await branchOf(talk.conversationId)).at(-1)![2] === 'cancelled')
    const [, content] = (await branchOf(talk.conversationId)).at(-1)!
    expect(content).toContain(text)
    expect((await modelRequests(said))[0]!.closed_early).toBe(true)
    expect(await receiptsOf(talk.conversationId)).toMatchObject([{ estimated: true }])
  })

  it('stops it before the first word as well, streamed or not', async () => {
    for (const isStream of [true, false]) {
      const talk = await startTalk({ person, model: 'sandbox/stall-before' })
      const said = marker()
      const leave = new AbortController()
      const asked = isStream
        ? stream(talk, said, { signal: leave.signal })
        : say(talk, { messages: ask(said) }, { signal: leave.signal })
      const left = failure(asked)
      await until(async () => (await modelRequests(said))[0]?.state === 'stalled')

      leave.abort()

      expect((await left).constructor.name).toBe('APIUserAbortError')
      await until(async () => (await branchOf(talk.conversationId)).at(-1)![2] === 'cancelled')
    }
  })

  it('does not stop it for who may come again, with the same key, and hears it whole', async () => {
    const talk = await startTalk({ person, model: 'sandbox/slow-40' })
    const [said, key] = [marker(), randomUUID()]
    const first = await stream(talk, said, { key })
    for await (const { choices } of first) if (choices[0]?.delta.content) break

    const again = await say(talk, { messages: ask(said) }, { key })

    expect(again.choices[0]!.message.content).toContain(said)
    expect(await branchOf(talk.conversationId)).toHaveLength(3)
    expect((await branchOf(talk.conversationId)).at(-1)).toEqual([
      'assistant',
      again.choices[0]!.message.content,
      'completed',
    ])
    expect(await modelRequests(said)).toHaveLength(1)
    // Much later as well, in either form.
    let late = ''
    for await (const { choices } of await stream(talk, said, { key })) late += choices[0]?.delta.content ?? ''
    expect(late).toBe(again.choices[0]!.message.content)
  })
})

describe('at once', () => {
  it('the same request with one key is one conversation, one answer and one charge', async () => {
    const [said, key] = [marker(), randomUUID()]
    const wish = { conversation: 'new', key }

    const answers = await Promise.all(
      Array.from({ length: 6 }, () => say(home, { messages: ask(said) }, wish).withResponse()),
    )

    const conversations = new Set(answers.map(({ response }) => response.headers.get('x-parlor-conversation')!))
    expect(conversations.size).toBe(1)
    for (const { data } of answers) expect(data).toEqual(answers[0]!.data)
    const [conversation] = [...conversations] as [string]
    expect(await branchOf(conversation)).toHaveLength(3)
    expect(await modelRequests(said)).toHaveLength(1)
    expect(await receiptsOf(conversation)).toHaveLength(1)
    const other = await failure(say(home, { messages: ask('Another') }, wish))
    expect(other).toBeInstanceOf(ConflictError)
    expect(other.code).toBe('idempotency_key_reused')
    expect(other.headers.get('x-should-retry')).toBe('false')
  })

  it('a key belongs to a request in a conversation or to one without, whichever was first, also at once', async () => {
    const model = `character:${home.characterId}`
    const without = (content: string, key: string) =>
      client.chat.completions.create({ model, messages: ask(content) }, { headers: { 'Idempotency-Key': key } })
    const within = (content: string, key: string) => say(home, { messages: ask(content) }, { conversation: 'new', key })

    for (const [first, second] of [
      [within, without],
      [without, within],
    ] as const) {
      const [said, key] = [marker(), randomUUID()]
      await first(said, key)
      const error = await failure(second(said, key))
      expect(error).toBeInstanceOf(ConflictError)
      expect(error.code).toBe('idempotency_key_reused')
      expect(error.headers.get('x-should-retry')).toBe('false')
      expect(await modelRequests(said)).toHaveLength(1)
    }
    const [said, key] = [marker(), randomUUID()]
    const told = await Promise.allSettled([within(said, key), without(said, key)])
    expect(told.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    expect(await modelRequests(said)).toHaveLength(1)
  })

  it('two messages are one answer and one refusal, which the client repeats by itself', async () => {
    const talk = await startTalk({ person, model: 'sandbox/slow-40' })

    const told = await Promise.allSettled([1, 2].map(() => say(talk, { messages: ask(marker()) })))

    const [refused] = told.flatMap((one) => (one.status === 'rejected' ? [one.reason] : []))
    expect(told.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    expect(refused).toBeInstanceOf(ConflictError)
    expect(refused.code).toBe('generation_in_progress')
    expect(refused.headers.get('x-should-retry')).toBeNull()
    expect(await branchOf(talk.conversationId)).toHaveLength(3)
  })
})

describe('a failure', () => {
  it('of the model leaves the message where it is, and is not tried again by the client', async () => {
    const said = marker()
    const talk = await startTalk({ person, model: 'sandbox/error-401' })

    const error = await failure(say(talk, { messages: ask(said) }, {}, clientOf(person.token, { maxRetries: 2 })))

    expect(error).toBeInstanceOf(InternalServerError)
    expect(error).toMatchObject({ status: 502, type: 'server_error' })
    expect(error.headers.get('x-parlor-conversation')).toBe(talk.conversationId)
    expect((await branchOf(talk.conversationId)).map(([role, , status]) => [role, status])).toEqual([
      ['assistant', 'completed'],
      ['user', 'completed'],
      ['assistant', 'failed'],
    ])
  })

  it.each([
    ['without a key', undefined],
    ['with a key', randomUUID()],
  ])('to hear the end, for who may not listen any more, is none of the answer: %s', async (_, key) => {
    const host = await signUp()
    const talk = await startTalk({ person: host, model: 'sandbox/stall' })
    await sql`update public.characters set visibility = 'public' where id = ${talk.characterId}`
    await invite(talk, person)
    const said = marker()
    const patient = clientOf(person.token, { maxRetries: 2 })
    const asked = failure(say(talk, { messages: ask(said) }, { ...(key && { key }) }, patient))
    await until(async () => (await modelRequests(said))[0]?.state === 'stalled')

    await host.client.rpc('remove_participant', { conversation_id: talk.conversationId, user_id: person.id })

    const error = await asked
    expect(error).toBeInstanceOf(NotFoundError)
    expect(error).toMatchObject({ status: 404, code: 'generation_not_found' })
    await releaseModel(said)
    await until(async () => (await branchOf(talk.conversationId, host)).at(-1)![2] === 'completed')
  })

  it('of the plan leaves no conversation', async () => {
    const poor = await signUp()
    await sql`insert into private.plan_overrides (user_id, requests_per_day) values (${poor.id}, 0)`
    const talk = await startTalk({ person: poor })

    const error = await failure(say(talk, { messages: ask('Hi') }, { conversation: 'new' }, clientOf(poor.token)))

    expect(error).toBeInstanceOf(RateLimitError)
    expect(error.error.reason).toBe('requests_per_day_exceeded')
    const { data } = await poor.client.from('conversations').select('id')
    expect(data).toEqual([{ id: talk.conversationId }])
  })

  it('for a conversation that is not theirs, or of another character, says as much as they may know', async () => {
    const other = await startTalk()
    const mine = await startTalk({ person })
    const shared = await startTalk()
    await sql`update public.characters set visibility = 'public' where id = ${shared.characterId}`
    await invite(shared, person)
    await shared.person.client.rpc('set_participant_role', {
      conversation_id: shared.conversationId,
      user_id: person.id,
      role: 'viewer',
    })

    for (const [conversation, type, code, model] of [
      [other.conversationId, NotFoundError, 'conversation_not_found', home],
      [randomUUID(), NotFoundError, 'conversation_not_found', home],
      [mine.conversationId, BadRequestError, 'conversation_of_another_character', home],
      [shared.conversationId, PermissionDeniedError, 'conversation_read_only', shared],
      ['new', NotFoundError, 'model_not_found', other],
    ] as const) {
      const error = await failure(say(model, { messages: ask('Hi') }, { conversation }))
      expect(error).toBeInstanceOf(type)
      expect(error.code).toBe(code)
    }
    expect(await branchOf(mine.conversationId)).toHaveLength(1)
    expect(await branchOf(other.conversationId, other.person)).toHaveLength(1)
  })

  it.each([
    ['a header that says neither', { conversation: 'always' }, {}, 'x-parlor-conversation', 'invalid_format'],
    ['a model that is no character', {}, { model: 'gpt-4o-mini' }, 'model', 'character_expected'],
    ['a form of the answer', {}, { response_format: { type: 'json_object' } }, 'response_format', 'text_expected'],
    [
      'no message of the user at the end',
      {},
      { messages: [...ask('Hi'), { role: 'assistant', content: 'I' }] },
      'messages[1].role',
      'user_message_expected',
    ],
    ['an empty message', {}, { messages: ask(' ') }, 'messages', 'message_empty'],
    ['a message of 32,001 characters', {}, { messages: ask('x'.repeat(32_001)) }, 'messages', 'message_too_long'],
  ])('for %s: BadRequestError', async (_, wish, body, param, code) => {
    const talk = await startTalk({ person })

    const error = await failure(say(talk, { messages: ask('Hi'), ...body } as Body, wish))

    expect(error).toBeInstanceOf(BadRequestError)
    expect(error).toMatchObject({ param, code })
    expect(await branchOf(talk.conversationId)).toHaveLength(1)
  })

  it('with a key that does not open chat, or of somebody whose account is not active: PermissionDeniedError', async () => {
    const suspended = await signUp()
    const talk = await startTalk({ person: suspended })
    const keyOf = async (scopes: string[]) => {
      const { data } = await suspended.client.rpc('create_api_key', { name: 'Client', scopes })
      return (data as unknown as { key: string }).key
    }
    const [narrow, wide] = [await keyOf(['models', 'embeddings']), await keyOf(['chat'])]

    const closed = await failure(say(talk, { messages: ask('Hi') }, {}, clientOf(narrow)))
    await sql`select admin.set_account_status(${suspended.id}, 'suspended')`
    const stopped = await failure(say(talk, { messages: ask('Hi') }, {}, clientOf(wide)))
    const session = await failure(say(talk, { messages: ask('Hi') }, {}, clientOf(suspended.token)))

    expect([closed, stopped, session].map(({ status, code }) => [status, code])).toEqual([
      [403, 'api_key_scope_missing'],
      [403, 'account_not_active'],
      [403, 'account_not_active'],
    ])
  })

  it('of a character that is gone is not tried again', async () => {
    const talk = await startTalk({ person })
    await person.client.rpc('delete_character', { character_id: talk.characterId })

    const error = await failure(say(talk, { messages: ask('Hi') }))

    expect(error).toBeInstanceOf(ConflictError)
    expect(error.code).toBe('character_unavailable')
    expect(error.headers.get('x-should-retry')).toBe('false')
  })
})
