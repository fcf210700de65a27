import { randomUUID } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { generationEvents } from '../types/chat.ts'
import {
  addModel,
  attach,
  events,
  marker,
  modelRequests,
  named,
  readAll,
  type StreamEvent,
  send,
  shown,
  startTalk,
  type Talk,
} from './support/chat.ts'
import { database, functionsUrl, signUp, until } from './support/local.ts'

const names = (all: StreamEvent[]) => all.map(({ event }) => event?.replace('generation.', ''))

/** Reads until an event with this name, and leaves. */
async function readTo(response: Response, name: string): Promise<StreamEvent[]> {
  const all: StreamEvent[] = []
  for await (const event of events(response)) {
    all.push(event)
    if (event.event === `generation.${name}`) return all
  }
  throw new Error(`No ${name} came: ${JSON.stringify(all)}`)
}

/** The last word to who may not read an answer any more. */
const gone = (generation_id: string) => ({
  event: 'generation.gone',
  data: { generation_id, code: 'generation_not_found' },
})

/** A text that begins with this one. */
const startsWith = (text: string) => new RegExp(`^${text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}`)

const statusOf = async (generationId: string) =>
  (await database()`select status, attempt, error from public.generations where id = ${generationId}`)[0]!

describe('sending a message', () => {
  it('V-16 V-21 M-02 K-07 streams the answer from connected to [DONE] and stores what it streamed', async () => {
    const talk = await startTalk()

    const response = await send(talk, { content: 'What is it like where you are?' })
    const all = await readAll(response)

    expect(response.headers.get('content-type')).toMatch(/^text\/event-stream/)
    const [first, second, ...rest] = names(all)
    expect([first, second]).toEqual(['connected', 'processing'])
    expect(rest.slice(-2)).toEqual(['completed', undefined])
    expect(new Set(rest.slice(0, -2))).toEqual(new Set(['delta']))
    expect(all.at(-1)!.data).toBe('[DONE]')

    const completed = named(all, 'completed')!.data
    expect(completed.message.content).toBe(shown(all))
    expect(completed.message.content).toContain('Mira')
    expect(completed.usage).toMatchObject({ estimated: false })
    const connected = named(all, 'connected')!.data
    const job = await talk.person.client.from('jobs').select('kind, status').eq('id', connected.job_id).single()
    expect(job.data).toEqual({ kind: 'generation', status: 'completed' })

    const { data: messages } = await talk.person.client
      .from('messages')
      .select('role, content, status')
      .eq('conversation_id', talk.conversationId)
      .order('id')
    expect(messages).toEqual([
      { role: 'assistant', content: 'Hello, you.', status: 'completed' },
      { role: 'user', content: 'What is it like where you are?', status: 'completed' },
      { role: 'assistant', content: completed.message.content, status: 'completed' },
    ])
  })

  it('sends every event in the form that types/chat.ts documents', async () => {
    const talk = await startTalk()

    const all = await readAll(await send(talk))

    for (const { event, data } of all.slice(0, -1)) {
      const schema = generationEvents[event as keyof typeof generationEvents]
      expect(schema.safeParse(data).error, event).toBeUndefined()
    }
    const ids = all.flatMap(({ event, id }) => (event === 'generation.delta' ? [id] : []))
    expect(ids).toEqual(ids.map((_, index) => `1.${index + 1}`))
  })

  it('M-02 answers as one JSON document when no stream is wanted', async () => {
    const talk = await startTalk()

    const response = await send(talk, { body: { stream: false } })

    expect(response.status).toBe(200)
    const body = await response.json()
    expect(body).toMatchObject({
      user_message: { role: 'user', content: 'How are you?', status: 'completed' },
      assistant_message: { role: 'assistant', status: 'completed', parent_id: body.user_message.id },
      generation: { status: 'completed' },
      usage: { estimated: false },
    })
    expect(body.assistant_message.content).toContain('Mira')
  })

  it('gives the model the character, its definition and the conversation, in a fixed order', async () => {
    const talk = await startTalk()
    const said = marker()
    const { error } = await talk.person.client
      .from('character_definitions')
      .update({ personality: 'Dry and kind; calls {{user}} "captain".', scenario: 'A lighthouse.' })
      .eq('character_id', talk.characterId)
    expect(error).toBeNull()
    // A conversation keeps the version that it began with.
    const started = await talk.person.client.rpc('start_conversation', { character_id: talk.characterId })

    await readAll(await send({ ...talk, conversationId: started.data!.id }, { content: said }))

    const [request] = await modelRequests(said)
    const [system, greeting, question] = request!.body.messages as { role: string; content: string }[]
    expect(system!.role).toBe('system')
    expect(system!.content.indexOf('# Personality')).toBeLessThan(system!.content.indexOf('# Scenario\nA lighthouse.'))
    expect(system!.content).not.toContain('{{')
    expect(greeting).toEqual({ role: 'assistant', content: 'Hello, you.' })
    expect(question).toEqual({ role: 'user', content: said })
    expect(request!.body).toMatchObject({ temperature: 0.7, max_tokens: 1024, stream: true })
  })

  it('does the same thing once under one idempotency key, and refuses the key for another message', async () => {
    const talk = await startTalk()
    const headers = { 'idempotency-key': randomUUID() }

    const twice = await Promise.all([send(talk, { headers }), send(talk, { headers })])
    const [one, other] = await Promise.all(twice.map(readAll))
    const late = await readAll(await send(talk, { headers }))
    const changed = await send(talk, { headers, content: 'Something else.' })

    const ids = [one, other, late].map((all) => named(all!, 'completed')!.data.message.id)
    expect(new Set(ids).size).toBe(1)
    expect(new Set([one, other, late].map((all) => shown(all!))).size).toBe(1)
    expect(names(late)).toEqual(['connected', 'snapshot', 'completed', undefined])
    expect(changed.status).toBe(409)
    expect(await changed.json()).toMatchObject({ code: 'idempotency_key_reused' })
    const rows = await database()`select from public.messages where conversation_id = ${talk.conversationId}`
    expect(rows.length).toBe(3)
  })

  it('refuses a second message while an answer is on its way', async () => {
    const talk = await startTalk({ model: 'sandbox/slow-100' })
    const first = await send(talk)
    await readTo(first, 'delta')

    const second = await send(talk, { content: 'And another thing.' })

    expect(second.status).toBe(409)
    expect(await second.json()).toMatchObject({ code: 'generation_in_progress' })
  })

  it('has the queue’s worker make the answer when asked to', async () => {
    const talk = await startTalk()

    const accepted = await send(talk, { body: { run: 'queued', stream: false } })
    const { generation, job_id } = await accepted.json()
    const all = await readAll(await attach(talk.person, generation.id))

    expect(accepted.status).toBe(202)
    expect(named(all, 'connected')!.data).toEqual({ generation_id: generation.id, job_id })
    expect(named(all, 'completed')!.data.message.content).toBe(shown(all))
  }, 60_000)
})

describe('an answer on its way', () => {
  it('goes on when the client that asked for it leaves', async () => {
    const talk = await startTalk({ model: 'sandbox/slow-40' })
    const seen = await readTo(await send(talk), 'delta')
    const { generation_id } = named(seen, 'connected')!.data

    const row = await until(async () => {
      const now = await statusOf(generation_id)
      return now.status === 'running' ? null : now
    }, 20_000)

    expect(row).toMatchObject({ status: 'completed', attempt: 1 })
  })

  it('is read on from the last event seen, losing and repeating nothing', async () => {
    const talk = await startTalk({ model: 'sandbox/slow-40' })
    const seen: StreamEvent[] = []
    for await (const event of events(await send(talk))) {
      seen.push(event)
      if (seen.filter(({ id }) => id).length === 3) break
    }
    const { generation_id } = named(seen, 'connected')!.data

    const rest = await readAll(await attach(talk.person, generation_id, seen.at(-1)!.id))

    const seqs = [...seen, ...rest].flatMap(({ event, data }) => (event === 'generation.delta' ? [data.seq] : []))
    expect(seqs).toEqual(seqs.map((_, index) => index + 1))
    expect(shown([...seen, ...rest])).toBe(named(rest, 'completed')!.data.message.content)
  })

  it('is a snapshot for who comes after its end', async () => {
    const talk = await startTalk()
    const all = await readAll(await send(talk))

    const late = await readAll(await attach(talk.person, named(all, 'connected')!.data.generation_id))

    expect(names(late)).toEqual(['connected', 'snapshot', 'completed', undefined])
    expect(shown(late)).toBe(shown(all))
  })

  it('stops at the model when it is cancelled from another client, and keeps what came', async () => {
    const said = marker()
    const talk = await startTalk({ model: 'sandbox/slow-100' })
    const reader = events(await send(talk, { content: said }))
    const all: StreamEvent[] = []
    for await (const event of { [Symbol.asyncIterator]: () => reader }) {
      all.push(event)
      if (event.id !== '1.2') continue
      const cancelled = await fetch(
        `${functionsUrl}/chat/generations/${named(all, 'connected')!.data.generation_id}/cancel`,
        { method: 'POST', headers: { authorization: `Bearer ${talk.person.token}` } },
      )
      expect(cancelled.status).toBe(200)
      expect(await cancelled.json()).toMatchObject({ cancel_requested: true })
    }

    expect(names(all).slice(-2)).toEqual(['cancelled', undefined])
    const { message } = named(all, 'cancelled')!.data
    expect(message.status).toBe('cancelled')
    expect(message.content).toBe(shown(all))
    const [request] = await until(async () => {
      const requests = await modelRequests(said)
      return requests[0]?.closed_early ? requests : null
    })
    expect(request!.state).toBe('closed-early')
  })

  it('reaches a member no more from the moment they are removed', async () => {
    const talk = await startTalk({ model: 'sandbox/slow-200' })
    const guest = await signUp()
    await invite(talk.conversationId, talk.person, guest)
    const asked = await send(talk)
    const { generation_id } = named(await readTo(asked, 'connected'), 'connected')!.data
    const watching = await attach(guest, generation_id)
    const seen: StreamEvent[] = []

    for await (const event of events(watching)) {
      seen.push(event)
      if (event.event !== 'generation.delta' || seen.filter(({ id }) => id).length > 1) continue
      const { error } = await talk.person.client.rpc('remove_participant', {
        conversation_id: talk.conversationId,
        user_id: guest.id,
      })
      expect(error).toBeNull()
    }

    expect(names(seen)).not.toContain('completed')
    expect(seen.slice(-2)).toMatchObject([gone(generation_id), { data: '[DONE]' }])
    expect((await attach(guest, generation_id)).status).toBe(404)
  })

  it('ends for everybody when its conversation is deleted, and as JSON is refused as what is not there', async () => {
    const talks = await Promise.all([1, 2].map(() => startTalk({ model: 'sandbox/stall' })))
    const [streamed, waited] = talks as [Talk, Talk]
    const said = [marker(), marker()] as const
    const stream = await send(streamed, { content: said[0] })
    const json = send(waited, { content: said[1], body: { stream: false } })
    await until(async () => (await Promise.all(said.map((one) => modelRequests(one)))).flat().length === 2)

    for (const { person, conversationId } of talks) {
      const { error } = await person.client.rpc('delete_conversation', { conversation_id: conversationId })
      expect(error).toBeNull()
    }

    const all = await readAll(stream)
    const { generation_id } = named(all, 'connected')!.data
    expect(all.slice(-2)).toMatchObject([gone(generation_id), { data: '[DONE]' }])
    expect(generationEvents['generation.gone'].safeParse(all.at(-2)!.data).error).toBeUndefined()
    const response = await json
    expect(response.status).toBe(404)
    expect(await response.json()).toMatchObject({ code: 'generation_not_found' })
  })

  it.each(['inline', 'queued'])('ends for whoever deletes their account meanwhile, made %s', async (run) => {
    const talk = await startTalk({ model: 'sandbox/stall' })
    const said = marker()
    const stream = await send(talk, { content: said, body: { run } })
    await until(async () => (await modelRequests(said)).length === 1)

    const headers = { authorization: `Bearer ${talk.person.token}` }
    expect((await fetch(`${functionsUrl}/account`, { method: 'DELETE', headers })).ok).toBe(true)

    const all = await readAll(stream)
    const { generation_id } = named(all, 'connected')!.data
    expect(all.slice(-2)).toMatchObject([gone(generation_id), { data: '[DONE]' }])
  })
})

describe('a conversation of two people', () => {
  it('M-14 M-15 M-16 V-25 shows a second member the same answer, who types and who is there, live', async () => {
    const talk = await startTalk({ model: 'sandbox/slow-40' })
    const guest = await signUp()
    await invite(talk.conversationId, talk.person, guest)
    const { data: conversation } = await guest.client
      .from('conversations')
      .select('topic, peers_topic')
      .eq('id', talk.conversationId)
      .single()
    const heard: { event: string; payload: Record<string, unknown> }[] = []
    await guest.client.realtime.setAuth(guest.token)
    await talk.person.client.realtime.setAuth(talk.person.token)
    const server = guest.client.channel(conversation!.topic, { config: { private: true } })
    server.on('broadcast', { event: '*' }, ({ event, payload }) => heard.push({ event, payload }))
    const guestPeers = guest.client.channel(conversation!.peers_topic, { config: { private: true } })
    guestPeers.on('presence', { event: 'sync' }, () => {})
    const typing: unknown[] = []
    guestPeers.on('broadcast', { event: 'typing' }, ({ payload }) => typing.push(payload))
    const ownerPeers = talk.person.client.channel(conversation!.peers_topic, { config: { private: true } })
    await Promise.all([server, guestPeers, ownerPeers].map(joined))
    await guest.client.rpc('watch_conversation', { conversation_id: talk.conversationId })

    await ownerPeers.track({ user_id: talk.person.id })
    await ownerPeers.send({ type: 'broadcast', event: 'typing', payload: { user_id: talk.person.id } })
    const all = await readAll(await send(talk))

    const { message } = named(all, 'completed')!.data
    const completed = await until(() => heard.find(({ event }) => event === 'generation.completed'))
    expect(completed.payload.message).toMatchObject({ id: message.id, content: message.content })
    const deltas = heard.filter(({ event }) => event === 'generation.delta')
    expect(deltas.length).toBeGreaterThan(1)
    // What no delta has carried yet comes with the whole message.
    expect(message.content).toMatch(startsWith(deltas.map(({ payload }) => payload.text).join('')))
    expect(typing).toEqual([{ user_id: talk.person.id }])
    const present = await until(() => Object.values(guestPeers.presenceState()).flat()[0])
    expect(present).toMatchObject({ user_id: talk.person.id })
    await Promise.all([guest, talk.person].map(({ client }) => client.removeAllChannels()))
  })
})

describe('a model that fails', () => {
  it('is replaced by the next route before its first word', async () => {
    const said = marker()
    await addModel('two-routes', database(), ['sandbox/error-500', 'sandbox-small'])
    const talk = await startTalk({ model: 'two-routes' })

    const all = await readAll(await send(talk, { content: said }))

    expect(named(all, 'completed')).toBeDefined()
    expect((await modelRequests(said)).map(({ model }) => model)).toEqual(['sandbox-small', 'sandbox/error-500'])
  })

  it.each(['sandbox/insufficient-quota', 'sandbox/error-401', 'sandbox/error-400'])(
    'ends the answer at once when trying again is useless (%s)',
    async (model) => {
      const talk = await startTalk({ model })

      const all = await readAll(await send(talk))

      expect(names(all).slice(-2)).toEqual(['failed', undefined])
      expect(named(all, 'failed')!.data).toMatchObject({ retryable: false })
      expect(JSON.stringify(all)).not.toMatch(/quota, please|Incorrect API key|server had an error/)
    },
  )

  it('is a problem document for a client that waits for JSON', async () => {
    const talk = await startTalk({ model: 'sandbox/insufficient-quota' })

    const response = await send(talk, { body: { stream: false } })

    expect(response.status).toBe(502)
    expect(await response.json()).toMatchObject({ code: 'provider_quota_exhausted', status: 502 })
  })

  // At once: each waits twice for its retry.
  it.concurrent.each([
    ['sandbox/error-500', 'provider_unavailable'],
    ['sandbox/error-html-500', 'provider_unavailable'],
    ['sandbox/rate-limit-1', 'provider_rate_limited'],
    ['sandbox/error-in-200', 'provider_unavailable'],
    ['sandbox/error-in-stream', 'provider_unavailable'],
    ['sandbox/cut', 'answer_interrupted'],
    ['sandbox/cut-socket', 'answer_interrupted'],
  ])(
    'is tried three times, and then the answer ends as failed (%s)',
    async (model, code) => {
      const said = marker()
      const talk = await startTalk({ model })

      const all = await readAll(await send(talk, { content: said }))

      expect(names(all).slice(-2)).toEqual(['failed', undefined])
      expect(named(all, 'failed')!.data.code).toBe(code)
      expect((await modelRequests(said)).length).toBe(3)
      // A reader drops what it showed of an attempt that came to nothing, and ends with what is stored of the last one.
      const resets = all.filter(({ event }) => event === 'generation.reset')
      expect(resets.length > 0).toBe(/cut|in-stream/.test(model))
      expect(shown(all)).toBe(named(all, 'failed')!.data.message.content)
    },
    90_000,
  )

  it('that answers in one piece is streamed to the client all the same', async () => {
    const talk = await startTalk({ model: 'sandbox/not-streaming' })

    const all = await readAll(await send(talk))

    expect(named(all, 'completed')!.data.message.content).toBe(shown(all))
    expect(named(all, 'completed')!.data.message.content).toContain('Mira')
  })

  it('that reports no usage is metered by an estimate, marked as one', async () => {
    const talk = await startTalk({ model: 'sandbox/no-usage' })

    const all = await readAll(await send(talk))

    const { usage } = named(all, 'completed')!.data
    expect(usage).toMatchObject({ estimated: true })
    expect(usage.completion_tokens).toBeGreaterThan(10)
  })

  it('that sends NUL, halves of pairs and fake events corrupts neither stream nor database', async () => {
    const talk = await startTalk({ model: 'sandbox/hostile' })

    const all = await readAll(await send(talk))

    const { content } = named(all, 'completed')!.data.message
    expect(content).toBe(shown(all))
    expect(content).toContain('NUL:\ufffd lone high:\ufffd lone low:\ufffd pair split: \u{1f600} ')
    expect(content).toContain('data: [DONE]\n\nevent: generation.completed')
    expect(names(all).filter((name) => name === 'completed')).toHaveLength(1)
    const { data } = await talk.person.client.from('messages').select('content').eq('content', content).single()
    expect(data!.content).toBe(content)
  })
})

async function invite(
  conversationId: string,
  owner: Awaited<ReturnType<typeof signUp>>,
  guest: Awaited<ReturnType<typeof signUp>>,
): Promise<void> {
  const invited = await owner.client.rpc('invite_participant', { conversation_id: conversationId, user_id: guest.id })
  expect(invited.error).toBeNull()
  const accepted = await guest.client.rpc('accept_invitation', { conversation_id: conversationId })
  expect(accepted.error).toBeNull()
}

function joined(channel: { subscribe(callback: (status: string, error?: Error) => void): unknown }): Promise<void> {
  return new Promise((resolve, reject) => {
    channel.subscribe((status, error) => {
      if (status === 'SUBSCRIBED') resolve()
      else if (status !== 'CLOSED') reject(error ?? new Error(status))
    })
  })
}
