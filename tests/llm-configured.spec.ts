import { resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import { shared, until } from './local/fixtures/processes.ts'
import {
  addModel,
  marker,
  modelRequests,
  named,
  readAll,
  releaseModel,
  send,
  shown,
  signUpAt,
  startTalk,
} from './support/chat.ts'
import type { Person } from './support/local.ts'

/** Models on a stack that is configured otherwise: its deadlines are short, and a provider of moderation is chosen. */
const own = shared({
  project: resolve('.'),
  variables: { LLM_CONNECT_SECONDS: '2', LLM_IDLE_SECONDS: '2' },
})
const functions = () => `${own.running.stack().url}/functions/v1`
const complete = ({ token }: Person, body: object) =>
  fetch(`${functions()}/chat/complete`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })

describe('a model that falls silent', () => {
  it.each(['sandbox/stall-before', 'sandbox/stall'])(
    'is given up after the idle deadline, and another attempt answers (%s)',
    async (model) => {
      const stack = own.running.stack()
      const said = marker()
      const talk = await startTalk({ person: await signUpAt(stack), model, sql: own.running.sql() })
      const stream = readAll(await send(talk, { content: said, functions: functions() }))

      await until(async () => (await modelRequests(said, stack))[0]?.closed_early)
      await until(async () => (await modelRequests(said, stack)).length === 2)
      await until(async () => (await (await releaseModel(said, stack)).json()).released === 1)

      const all = await stream
      const { message } = named(all, 'completed')!.data
      expect(message.content).toBe(shown(all))
      expect(named(all, 'reset')?.data).toEqual(model === 'sandbox/stall' ? { attempt: 2 } : undefined)
    },
    60_000,
  )

  it('is left for the next route when it sent no headers, and fails when it sends nothing but comments', async () => {
    const [stack, sql] = [own.running.stack(), own.running.sql()]
    const [person, before, within] = [await signUpAt(stack), marker(), marker()]
    await addModel('silent', sql, ['sandbox/stall-before', 'sandbox-small'])
    await addModel('stalled', sql, ['sandbox/stall'])

    const [first, second] = await Promise.all([
      complete(person, { prompt: before, model: 'silent' }).then(readAll),
      complete(person, { prompt: within, model: 'stalled' }).then(readAll),
    ])

    expect(named(first, 'completed')!.data.message.content).toContain(before)
    expect(named(second, 'failed')!.data).toEqual({ code: 'provider_timeout', retryable: true })
    expect((await modelRequests(within, stack))[0]!.closed_early).toBe(true)
    const [timedOut] = await sql`
      select code, usage from private.model_calls
      where completion_id = ${named(first, 'connected')!.data.generation_id} order by id`
    expect(timedOut).toMatchObject({ code: 'provider_timeout', usage: { estimated: true, completion_tokens: 0 } })
  }, 60_000)
})

describe('moderation', () => {
  it('is off until it is switched on, and then refuses before anything is stored or a model is asked', async () => {
    const stack = own.running.stack()
    const db = own.running.sql()
    const ann = await signUpAt(stack)
    const talk = await startTalk({ person: ann, sql: db })
    const flagged = () => `flag-me ${marker()}`
    const messagesOf = () =>
      db`select content, finish_reason from public.messages where conversation_id = ${talk.conversationId}`
    const open = flagged()
    await readAll(await send(talk, { content: open, functions: functions() }))
    expect(await modelRequests(open, stack)).toHaveLength(1)
    const before = (await messagesOf()).length

    await db`select admin.set_moderation('openai')`
    const refused = await until(async () => {
      const response = await complete(ann, { prompt: flagged(), stream: false })
      return response.status === 422 ? response : null
    }, 20_000)
    expect(await refused.json()).toMatchObject({ code: 'content_refused' })
    const said = flagged()
    const message = await send(talk, { content: said, functions: functions() })
    expect([message.status, (await message.json()).code]).toEqual([422, 'content_refused'])
    expect((await messagesOf()).length).toBe(before)
    expect((await modelRequests(said, stack)).every(({ body }) => 'input' in body)).toBe(true)

    // Past the function: the worker looks before it asks a model, and the text goes.
    const direct = flagged()
    const sent = await ann.client.rpc('send_message', {
      conversation_id: talk.conversationId,
      content: direct,
      run: 'queued',
    })
    expect(sent.error).toBeNull()
    const { generation } = sent.data as unknown as { generation: { id: string } }
    const row = await until(async () => {
      const [now] = await db`select status, error from public.generations where id = ${generation.id}`
      return now!.status === 'failed' ? now : null
    }, 20_000)
    expect(row.error).toMatchObject({ code: 'content_refused', retryable: false })
    expect((await modelRequests(direct, stack)).every(({ body }) => 'input' in body)).toBe(true)
    expect((await messagesOf()).filter(({ finish_reason }) => finish_reason === 'content_refused')).toEqual([
      { content: '', finish_reason: 'content_refused' },
    ])
    // An answer in a person's words is theirs: it is looked at like what they say.
    const { data: branch } = await ann.client.rpc('conversation_branch', { conversation_id: talk.conversationId })
    const greeting = branch!.find(({ role }) => role === 'assistant')!
    const put = flagged()
    const edited = await fetch(`${functions()}/chat/messages/${greeting.id}/edit`, {
      method: 'POST',
      headers: { authorization: `Bearer ${ann.token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ content: put }),
    })
    expect([edited.status, (await edited.json()).code]).toEqual([422, 'content_refused'])
    const past = await ann.client.rpc('edit_message', { message_id: greeting.id, content: put })
    expect(past.error).toBeNull()
    for (const content of ['Good morning.', 'And good night.']) {
      const all = await readAll(await send(talk, { content, functions: functions() }))
      expect(named(all, 'completed')).toBeDefined()
    }
    expect((await modelRequests(put, stack)).every(({ body }) => 'input' in body)).toBe(true)
    expect(await messagesOf()).not.toContainEqual(expect.objectContaining({ content: put }))
    const harmless = await readAll(await send(talk, { content: 'Good evening.', functions: functions() }))
    expect(named(harmless, 'completed')).toBeDefined()

    // A provider that does not answer: the operator's choice.
    await db`select admin.set_moderation('openai', 'sandbox/error-500', 'refuse')`
    const closed = await until(async () => {
      const response = await complete(ann, { prompt: 'Hi', stream: false })
      return response.status === 503 ? response : null
    }, 20_000)
    expect(await closed.json()).toMatchObject({ code: 'moderation_unavailable' })
    await db`select admin.set_moderation('openai', 'sandbox/error-500', 'allow')`
    await until(async () => (await complete(ann, { prompt: 'Hi', stream: false })).status === 200, 20_000)
  }, 120_000)
})
