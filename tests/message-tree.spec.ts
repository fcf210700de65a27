import { randomUUID } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { marker, modelRequests, named, readAll, send, shown, startTalk, type Talk } from './support/chat.ts'
import { invite } from './support/follow.ts'
import { functionsUrl, type Person, signUp, until } from './support/local.ts'
import { disconnectAll, join, PRIVATE, realtimeClient, received } from './support/realtime.ts'

/** Conversations that branch, as a front end meets them: over HTTP, supabase-js and Realtime. */

interface Exchange {
  user_message: { id: string; content: string }
  assistant_message: { id: string; parent_id: string; content: string; status: string }
}

const post = (person: Person, path: string, body?: object) =>
  fetch(`${functionsUrl}/chat/messages${path}`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${person.token}`,
      ...(body && { 'content-type': 'application/json' }),
    },
    ...(body && { body: JSON.stringify(body) }),
  })

/** Says something and waits for the answer. */
async function say(talk: Talk, content: string): Promise<Exchange> {
  const response = await send(talk, { content, body: { stream: false } })
  expect(response.status).toBe(200)
  return await response.json()
}

const children = async ({ person, conversationId }: Talk, parent: string) =>
  (
    await person.client
      .from('messages')
      .select('id, role, content, status')
      .eq('conversation_id', conversationId)
      .eq('parent_id', parent)
      .order('id')
  ).data!

describe('another answer', () => {
  it('M-03 to the last message comes as a stream, and the first one stays beside it', async () => {
    const talk = await startTalk()
    const said = marker()
    const first = await say(talk, said)

    const all = await readAll(
      await post(talk.person, '/regenerate', { conversation_id: talk.conversationId, idempotency_key: randomUUID() }),
    )

    const { message } = named(all, 'completed')!.data
    expect(message).toMatchObject({ parent_id: first.user_message.id, content: shown(all), status: 'completed' })
    expect((await children(talk, first.user_message.id)).map(({ id }) => id)).toEqual([
      first.assistant_message.id,
      message.id,
    ])
    const [request] = await modelRequests(said)
    expect((request!.body.messages as { content: string }[]).at(-1)).toEqual({ role: 'user', content: said })
  })

  it('M-03 to any message is asked for by its id, without a body', async () => {
    const talk = await startTalk()
    const first = await say(talk, 'One.')
    await say(talk, 'Two.')

    const all = await readAll(await post(talk.person, `/${first.assistant_message.id}/regenerate`))

    expect(named(all, 'completed')!.data.message.parent_id).toBe(first.user_message.id)
  })

  it('M-03 comes as one JSON document when no stream is wanted, and once for one key', async () => {
    const talk = await startTalk()
    const { user_message } = await say(talk, 'One.')
    const body = { conversation_id: talk.conversationId, stream: false, idempotency_key: 'again' }

    const [one, other] = await Promise.all(
      [1, 2].map(async () => (await post(talk.person, '/regenerate', body)).json()),
    )

    expect(one).toMatchObject({ user_message: { id: user_message.id }, generation: { status: 'completed' } })
    expect(other.assistant_message).toEqual(one.assistant_message)
    expect(await children(talk, user_message.id)).toHaveLength(2)
  })

  it('is refused while one is on its way, for messages that answer nobody, and to strangers', async () => {
    const [talk, stranger] = await Promise.all([startTalk({ model: 'sandbox/slow-100' }), signUp()])
    const { data: greeting } = await talk.person.client
      .from('messages')
      .select('id')
      .eq('conversation_id', talk.conversationId)
      .single()
    const again = (person: Person, body: object = {}) =>
      post(person, '/regenerate', { conversation_id: talk.conversationId, ...body })
    const code = async (response: Promise<Response>) => [(await response).status, (await (await response).json()).code]

    expect(await code(again(talk.person))).toEqual([409, 'nothing_to_answer'])
    expect(await code(again(talk.person, { message_id: greeting!.id }))).toEqual([409, 'nothing_to_answer'])
    expect(await code(again(talk.person, { message_id: randomUUID() }))).toEqual([404, 'message_not_found'])
    expect(await code(again(stranger))).toEqual([404, 'conversation_not_found'])
    expect(await code(post(stranger, `/${greeting!.id}/regenerate`))).toEqual([404, 'message_not_found'])
    expect(await code(post(talk.person, '/no-id/regenerate'))).toEqual([422, 'request_invalid'])
    expect(await code(again(talk.person, { content: 'Hi' }))).toEqual([422, 'request_invalid'])

    await send(talk, { body: { stream: false, run: 'queued' } })
    expect(await code(again(talk.person))).toEqual([409, 'generation_in_progress'])
  })
})

describe('an edited message', () => {
  it('M-04 stands beside the one before, and its answer is streamed', async () => {
    const talk = await startTalk()
    const said = marker()
    const first = await say(talk, 'Where are we?')
    await say(talk, 'And then?')

    const all = await readAll(await post(talk.person, `/${first.user_message.id}/edit`, { content: said }))

    const { message } = named(all, 'completed')!.data
    expect(message.content).toBe(shown(all))
    const [request] = await modelRequests(said)
    expect((request!.body.messages as { content: string }[]).slice(1).map(({ content }) => content)).toEqual([
      'Hello, you.',
      said,
    ])
    const { data: texts } = await talk.person.client
      .from('messages')
      .select('content, parent_id')
      .eq('conversation_id', talk.conversationId)
      .eq('role', 'user')
      .order('id')
    expect(texts!.map(({ content }) => content)).toEqual(['Where are we?', 'And then?', said])
    expect(texts![2]!.parent_id).toBe(texts![0]!.parent_id)
  })

  it('M-04 may be an answer, which a person then wrote, and no model is asked', async () => {
    const talk = await startTalk()
    const first = await say(talk, 'Where are we?')

    const response = await post(talk.person, `/${first.assistant_message.id}/edit`, { content: 'At sea.' })

    expect(response.status).toBe(200)
    expect(await response.json()).toMatchObject({
      user_message: { id: first.user_message.id },
      assistant_message: {
        content: 'At sea.',
        author_id: talk.person.id,
        finish_reason: 'edited',
        status: 'completed',
      },
      generation: null,
      job_id: null,
    })
    const said = marker()
    await say(talk, said)
    const [request] = await modelRequests(said)
    expect((request!.body.messages as { content: string }[]).map(({ content }) => content)).toContain('At sea.')
  })

  it('is refused to everybody but who wrote it', async () => {
    const [talk, guest] = await Promise.all([startTalk(), signUp()])
    await invite(talk, guest)
    const first = await say(talk, 'Mine.')

    const response = await post(guest, `/${first.user_message.id}/edit`, { content: 'Not yours.' })

    expect([response.status, (await response.json()).code]).toEqual([403, 'message_not_yours'])
    const tree = await talk.person.client.from('messages').select('id').eq('conversation_id', talk.conversationId)
    expect(tree.data).toHaveLength(3)
  })
})

describe('a page of the branch that is shown', () => {
  it('B-08 holds its newest messages, with their variants, and the pages above follow it to the root', async () => {
    const talk = await startTalk()
    const conversation_id = talk.conversationId
    for (const content of ['One.', 'Two.', 'Three.']) await say(talk, content)
    await (await post(talk.person, '/regenerate', { conversation_id, stream: false })).json()
    const page = async (before?: string) =>
      (await talk.person.client.rpc('conversation_branch', { conversation_id, before, page_size: 3 })).data!

    const newest = await page()
    const above = await page(newest[0]!.id)
    const root = await page(above[0]!.id)

    expect([root, above, newest].map((rows) => rows.map(({ depth }) => depth))).toEqual([[0], [1, 2, 3], [4, 5, 6]])
    expect(root[0]!.content).toBe('Hello, you.')
    expect(newest.at(-1)).toMatchObject({
      role: 'assistant',
      variant_index: 2,
      variant_count: 2,
      next_variant_id: null,
    })
    expect(newest.slice(0, 2).map(({ variant_count }) => variant_count)).toEqual([1, 1])
    const hidden = await talk.person.client.rpc('select_variant', { message_id: newest.at(-1)!.previous_variant_id! })
    expect(hidden.data).toEqual({
      conversation_id,
      after_id: newest[1]!.id,
      active_leaf_id: newest.at(-1)!.previous_variant_id,
    })
    expect((await page()).at(-1)).toMatchObject({ variant_index: 1, next_variant_id: newest.at(-1)!.id })
  })

  it('M-04 shows what one thinks of an answer, to oneself alone', async () => {
    const [talk, guest] = await Promise.all([startTalk(), signUp()])
    await invite(talk, guest)
    const { assistant_message } = await say(talk, 'Where are we?')
    const rate = (person: Person, rating: number | null, reason?: string) =>
      person.client.rpc('rate_message', { message_id: assistant_message.id, rating: rating as number, reason })
    const seen = async (person: Person) =>
      (await person.client.rpc('conversation_branch', { conversation_id: talk.conversationId })).data!.at(-1)!.my_rating

    expect((await rate(talk.person, -1, 'It said nothing.')).data).toMatchObject({
      rating: -1,
      reason: 'It said nothing.',
    })
    expect([await seen(talk.person), await seen(guest)]).toEqual([-1, null])
    expect((await guest.client.from('message_feedback').select()).data).toEqual([])
    expect((await rate(guest, 1, 'x'.repeat(501))).status).toBe(400)
    for (let again = 0; again < 2; again++) {
      expect((await rate(talk.person, null)).data).toMatchObject({
        message_id: assistant_message.id,
        user_id: talk.person.id,
        rating: null,
      })
    }
    expect(await seen(talk.person)).toBe(null)
  })
})

describe('a deleted message', () => {
  it('M-05 is a tombstone while something stands below it, and then no more', async () => {
    const talk = await startTalk()
    const [first, second] = [await say(talk, 'One.'), await say(talk, 'Two.')]
    const remove = (message: { id: string }) => talk.person.client.rpc('delete_message', { message_id: message.id })
    const shown = async () =>
      (await talk.person.client.rpc('conversation_branch', { conversation_id: talk.conversationId })).data!.map(
        ({ content, deleted_at }) => (deleted_at ? null : content),
      )

    expect((await remove(first.user_message)).data).toMatchObject({
      deleted: 1,
      active_leaf_id: second.assistant_message.id,
    })
    expect((await shown()).slice(0, 2)).toEqual(['Hello, you.', null])
    expect((await remove(second.assistant_message)).data).toMatchObject({ active_leaf_id: second.user_message.id })
    await remove(second.user_message)
    await remove(first.assistant_message)

    expect(await shown()).toEqual(['Hello, you.'])
    const { data: rows } = await talk.person.client
      .from('messages')
      .select('content')
      .eq('conversation_id', talk.conversationId)
    expect(rows!.map(({ content }) => content).sort()).toEqual(['', '', '', '', 'Hello, you.'])
  })

  it('M-05 is deleted by whoever wrote it or asked for it, and by the owner of the conversation', async () => {
    const [talk, guest] = await Promise.all([startTalk(), signUp()])
    await invite(talk, guest)
    const theirs = await say(talk, 'Mine.')
    const mine = await say({ ...talk, person: guest }, 'And mine.')
    const remove = async (person: Person, message_id: string, whole_branch = false) => {
      const { data, error } = await person.client.rpc('delete_message', { message_id, whole_branch })
      return error?.message ?? (data as { deleted: number }).deleted
    }

    expect(await remove(guest, theirs.user_message.id)).toBe('message_not_yours')
    expect(await remove(guest, theirs.assistant_message.id, true)).toBe('message_not_yours')
    expect(await remove(guest, mine.assistant_message.id)).toBe(1)
    expect(await remove(talk.person, theirs.user_message.id, true)).toBe(3)
  })
})

describe('other screens', () => {
  it('V-15 are told that the branch changed, from which message on, and then of the new messages', async () => {
    const [talk, guest] = await Promise.all([startTalk(), signUp()])
    await invite(talk, guest)
    const first = await say(talk, 'Where are we?')
    const { data } = await guest.client.from('conversations').select('topic').eq('id', talk.conversationId).single()
    const channel = (await realtimeClient({ token: guest.token })).channel(data!.topic, PRIVATE)
    const heard = received(channel, 'broadcast')
    await join(channel)

    const sent = await talk.person.client.rpc('edit_message', {
      message_id: first.user_message.id,
      content: 'Who are you?',
    })

    const { user_message, assistant_message } = sent.data as unknown as Exchange
    await until(() => heard.some(({ event }) => event === 'message.created'))
    expect(heard.slice(0, 2).map(({ event, payload }) => [event, payload])).toEqual([
      [
        'conversation.branch_changed',
        expect.objectContaining({
          conversation_id: talk.conversationId,
          after_id: (user_message as unknown as { parent_id: string }).parent_id,
          active_leaf_id: assistant_message.id,
        }),
      ],
      ['message.created', expect.objectContaining({ user_message, assistant_message })],
    ])
    await disconnectAll()
  })
})
