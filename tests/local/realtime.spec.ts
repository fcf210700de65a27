import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { publishableKey, secretKey, superuser, until, url } from '../support/local.ts'
import {
  bareSocket,
  disconnectAll,
  join,
  PRIVATE,
  realtimeClient,
  received,
  roomPolicies,
  tokenOf,
  topic,
  realtimeUser as user,
} from '../support/realtime.ts'

const sql = superuser()
const policies = roomPolicies('realtime.spec')

beforeAll(policies.create)
afterEach(disconnectAll)
afterAll(policies.drop)

const post = (path: string, body: string | Uint8Array<ArrayBuffer>, headers: Record<string, string> = {}) =>
  fetch(`${url}/realtime/v1/api/broadcast${path}`, {
    method: 'POST',
    headers: { apikey: publishableKey, 'content-type': 'application/json', ...headers },
    body,
  })

const batch = (messages: unknown, headers?: Record<string, string>) => post('', JSON.stringify({ messages }), headers)

describe('broadcast from a client', () => {
  it('reaches the others on a public channel and not its sender', async () => {
    const name = topic('open')
    const [alice, bob] = [(await realtimeClient()).channel(name), (await realtimeClient()).channel(name)]
    const [toAlice, toBob] = [received(alice, 'broadcast'), received(bob, 'broadcast')]
    await Promise.all([join(alice), join(bob)])

    await alice.send({ type: 'broadcast', event: 'greeting', payload: { text: 'hello' } })
    await bob.send({ type: 'broadcast', event: 'answer', payload: {} })

    await until(() => toAlice.length && toBob.length)
    expect(toBob).toEqual([{ type: 'broadcast', event: 'greeting', payload: { text: 'hello' } }])
    expect(toAlice).toEqual([{ type: 'broadcast', event: 'answer', payload: {} }])
  })

  it('comes back to its sender who asks for it, and is acknowledged to one who asks for that', async () => {
    const channel = (await realtimeClient()).channel(topic('open'), {
      config: { broadcast: { self: true, ack: true } },
    })
    const messages = received(channel, 'broadcast')
    await join(channel)

    expect(await channel.send({ type: 'broadcast', event: 'echo', payload: { n: 1 } })).toBe('ok')

    await until(() => messages.length)
    expect(messages).toEqual([{ type: 'broadcast', event: 'echo', payload: { n: 1 } }])
  })

  it('carries bytes as bytes', async () => {
    const channel = (await realtimeClient()).channel(topic('open'), { config: { broadcast: { self: true } } })
    const messages = received(channel, 'broadcast')
    await join(channel)

    await channel.send({ type: 'broadcast', event: 'bytes', payload: new Uint8Array([0, 255, 7]).buffer as never })

    await until(() => messages.length)
    expect([...new Uint8Array(messages[0].payload)]).toEqual([0, 255, 7])
  })

  it('reaches clients of protocol 1.0.0 and from them those of 2.0.0', async () => {
    const name = topic('open')
    const [old, new_] = [await realtimeClient({ vsn: '1.0.0' }), await realtimeClient()].map((c) => c.channel(name))
    const [toOld, toNew] = [received(old!, 'broadcast'), received(new_!, 'broadcast')]
    await Promise.all([join(old!), join(new_!)])

    await new_!.send({ type: 'broadcast', event: 'new', payload: { n: 1 } })
    await old!.send({ type: 'broadcast', event: 'old', payload: { n: 2 } })

    await until(() => toOld.length && toNew.length)
    expect([toOld[0], toNew[0]]).toMatchObject([
      { event: 'new', payload: { n: 1 } },
      { event: 'old', payload: { n: 2 } },
    ])
  })

  it('keeps the order in which a client sends', async () => {
    const name = topic('room')
    const [alice, bob] = [(await user()).channel(name, PRIVATE), (await user()).channel(name, PRIVATE)]
    const toBob = received(bob, 'broadcast')
    await Promise.all([join(alice), join(bob)])

    for (let n = 0; n < 300; n++) alice.send({ type: 'broadcast', event: 'n', payload: { n } })

    await until(() => toBob.length === 300)
    expect(toBob.map((message) => message.payload.n)).toEqual(Array.from({ length: 300 }, (_, n) => n))
  })
})

describe('broadcast over REST', () => {
  it('delivers a batch to public and private rooms of the name, each for itself', async () => {
    const name = topic('room')
    const [open, closed] = [(await user()).channel(name), (await user()).channel(name, PRIVATE)]
    const [toOpen, toClosed] = [received(open, 'broadcast'), received(closed, 'broadcast')]
    await Promise.all([join(open), join(closed)])

    const answer = await batch(
      [
        { topic: name, event: 'public', payload: { n: 1 } },
        { topic: name, event: 'private', payload: { n: 2 }, private: true, id: 'own-id' },
      ],
      { authorization: `Bearer ${await tokenOf()}` },
    )

    expect([answer.status, await answer.text()]).toEqual([202, ''])
    await until(() => toOpen.length && toClosed.length)
    expect(toOpen).toEqual([{ type: 'broadcast', event: 'public', payload: { n: 1 } }])
    expect(toClosed).toEqual([{ type: 'broadcast', event: 'private', payload: { n: 2 }, meta: { id: 'own-id' } }])
  })

  it('delivers a single message of the client, JSON and bytes', async () => {
    const name = topic('room')
    const channel = (await user()).channel(name, PRIVATE)
    const messages = received(channel, 'broadcast')
    await join(channel)
    const sender = (await user()).channel(name, PRIVATE)

    expect(await sender.httpSend('a/b', { n: 1 })).toEqual({ success: true })
    await sender.httpSend('bytes', new Uint8Array([1, 2]).buffer as never)

    await until(() => messages.length === 2)
    expect(messages[0]).toEqual({ type: 'broadcast', event: 'a/b', payload: { n: 1 } })
    expect([...new Uint8Array(messages[1].payload)]).toEqual([1, 2])
  })

  it('drops private messages of a batch that the caller may not send, and refuses a single one', async () => {
    const name = topic('hall')
    const channel = (await user()).channel(name, PRIVATE)
    const messages = received(channel, 'broadcast')
    await join(channel)
    const authorization = `Bearer ${await tokenOf()}`

    const many = await batch([{ topic: name, event: 'forged', payload: {}, private: true }], { authorization })
    const one = await post(`/${encodeURIComponent(name)}/events/forged?private=true`, '{}', { authorization })
    await batch([{ topic: name, event: 'real', payload: {}, private: true }], { apikey: secretKey })

    expect([many.status, one.status, await one.json()]).toEqual([202, 403, { message: 'Unauthorized' }])
    await until(() => messages.length)
    expect(messages.map((message) => message.event)).toEqual(['real'])
  })

  it.each([
    ['no key', '', '{"messages":[]}', { apikey: '' }, 401],
    ['a wrong token beside a right key', '', '{"messages":[]}', { authorization: 'Bearer nonsense' }, 401],
    ['no JSON', '', '{', {}, 400],
    ['no messages', '', '{}', {}, 422],
    ['messages that are no objects', '', '{"messages":[1,null]}', {}, 422],
    ['a message without payload', '', '{"messages":[{"topic":"t","event":"e"}]}', {}, 422],
    ['a payload that is no object', '', '{"messages":[{"topic":"t","event":"e","payload":[]}]}', {}, 422],
    ['a body of another type', '/t/events/e', 'x', { 'content-type': 'text/plain' }, 415],
    ['a broken escape in the path', '/%ff/events/e', '{}', {}, 400],
    ['another path', '/t', '{}', {}, 404],
    ['a body beyond all limits', '', `{"messages":["${'x'.repeat(5_000_000)}"]}`, {}, 413],
  ])('refuses %s', async (_, path, body, headers, status) => {
    const answer = await post(path, body, headers as Record<string, string>)

    expect(answer.status).toBe(status)
    expect(await answer.json()).toBeTypeOf('object')
  })

  it('answers the preflight of a browser', async () => {
    const answer = await fetch(`${url}/realtime/v1/api/broadcast`, {
      method: 'OPTIONS',
      headers: { origin: 'http://app.test', 'access-control-request-method': 'POST' },
    })

    expect(answer.status).toBeLessThan(300)
    expect(answer.headers.get('access-control-allow-origin')).toBeTruthy()
  })
})

describe('broadcast from the database', () => {
  it('delivers committed messages in order and none of a transaction that is rolled back', async () => {
    const name = topic('room')
    const channel = (await user()).channel(name, PRIVATE)
    const messages = received(channel, 'broadcast')
    await join(channel)

    await sql
      .begin(async (tx) => {
        await tx`select realtime.send('{}'::jsonb, 'never', ${name})`
        throw new Error('rolled back')
      })
      .catch(() => {})
    await sql`select realtime.send(jsonb_build_object('n', n), 'made', ${name}) from generate_series(1, 500) n`

    await until(() => messages.length === 500)
    expect(messages.map((message) => message.payload.n)).toEqual(Array.from({ length: 500 }, (_, n) => n + 1))
    expect(messages[0]).toMatchObject({ event: 'made', meta: { id: expect.stringMatching(/^[0-9a-f-]{36}$/) } })
  })

  it('delivers each of many messages at once, though Postgres misses a wake-up now and then', async () => {
    const name = topic('room')
    const channel = (await user()).channel(name, PRIVATE)
    let heard = 0
    channel.on('broadcast', { event: 'made' }, () => heard++)
    await join(channel)

    const slow: number[] = []
    for (let n = 1; n <= 1_000; n++) {
      await sql`select realtime.send('{}'::jsonb, 'made', ${name})`
      const committed = Date.now()
      // A busy machine is what makes it miss them: no pause worth the name.
      while (heard < n) await new Promise((resolve) => setTimeout(resolve, 0))
      if (Date.now() - committed > 1_000) slow.push(n)
    }

    expect(slow).toEqual([])
  })

  it('delivers bytes, and to the public room what is sent as public', async () => {
    const name = topic('open')
    const channel = (await realtimeClient()).channel(name)
    const messages = received(channel, 'broadcast')
    await join(channel)

    await sql`select realtime.send_binary('\\x00ff'::bytea, 'bytes', ${name}, false)`
    await sql`select realtime.send('{}'::jsonb, 'private', ${name}, true)`
    await sql`select realtime.send('{}'::jsonb, 'last', ${name}, false)`

    await until(() => messages.length === 2)
    expect([...new Uint8Array(messages[0].payload)]).toEqual([0, 255])
    expect(messages[1].event).toBe('last')
  })

  it('delivers names of any length and script', async () => {
    const name = `${topic('room')}:${'ü'.repeat(200)}`
    const channel = (await user()).channel(name, PRIVATE)
    const messages = received(channel, 'broadcast')
    await join(channel)

    await sql`select realtime.send('{"n": 1}'::jsonb, ${'é🙂'.repeat(60)}, ${name})`

    await until(() => messages.length)
    expect(messages[0]).toMatchObject({ event: 'é🙂'.repeat(60), payload: { n: 1 }, meta: {} })
  })

  it('replays stored messages to a private channel that asks, oldest first, and no more than it asks for', async () => {
    const name = topic('room')
    const since = Date.now() - 60_000
    await sql`insert into realtime.messages (topic, extension, event, payload, private, inserted_at)
      select ${name}, 'broadcast', 'stored', jsonb_build_object('n', n), true, (now() at time zone 'UTC') + n * interval '1 ms'
      from generate_series(1, 5) n`
    const broadcast = { replay: { since, limit: 3 } }
    const channel = (await user()).channel(name, { config: { private: true, broadcast } })
    const messages = received(channel, 'broadcast')
    await join(channel)

    await until(() => messages.length === 3)
    expect(messages.map((message) => message.payload.n)).toEqual([3, 4, 5])
    expect(messages[0].meta).toEqual({ replayed: true, id: expect.any(String) })
  })
})

describe('presence', () => {
  it('shows each client who is there, what changes, and who leaves', async () => {
    const name = topic('open')
    const [alice, bob] = await Promise.all(
      ['alice', 'bob'].map(async (key) => (await realtimeClient()).channel(name, { config: { presence: { key } } })),
    )
    const joins = received(alice!, 'presence', 'join')
    const leaves = received(alice!, 'presence', 'leave')
    received(bob!, 'presence', 'sync')
    await Promise.all([join(alice!), join(bob!)])

    expect(await bob!.track({ mood: 'glad' })).toBe('ok')
    await until(() => alice!.presenceState().bob)
    await bob!.track({ mood: 'sad' })
    await until(() => joins.length === 2)
    await bob!.track({ mood: 'sad' })
    await alice!.track({ mood: 'calm' })
    await until(() => alice!.presenceState().alice && bob!.presenceState().alice)
    await bob!.untrack()
    await until(() => !alice!.presenceState().bob)

    expect(joins.map(({ key, newPresences }) => [key, newPresences[0].mood])).toEqual([
      ['bob', 'glad'],
      ['bob', 'sad'],
      ['alice', 'calm'],
    ])
    expect(leaves.map(({ key, leftPresences }) => [key, leftPresences[0].mood])).toEqual([
      ['bob', 'glad'],
      ['bob', 'sad'],
    ])
  })

  it('removes a client whose connection is cut, keeps two under one key apart, and bears any key', async () => {
    const name = topic('open')
    const key = '__proto__'
    const watcher = (await realtimeClient()).channel(name)
    const joins = received(watcher, 'presence', 'join')
    const leaves = received(watcher, 'presence', 'leave')
    await join(watcher)
    const sockets = await Promise.all([1, 2].map(() => bareSocket()))
    for (const [n, { send, reply }] of sockets.entries()) {
      send('1', '1', `realtime:${name}`, 'phx_join', { config: { presence: { key } } })
      await reply('1')
      send('1', '2', `realtime:${name}`, 'presence', { type: 'presence', event: 'TRACK', payload: { n } })
      await reply('2')
    }
    await until(() => joins.length === 2)

    sockets[0]!.socket.terminate()

    await until(() => leaves.length)
    expect(leaves).toMatchObject([{ key, leftPresences: [{ n: 0 }] }])
    sockets[1]!.socket.terminate()
  })

  it('is hidden from a private channel without the read policy, which may not track without the write policy', async () => {
    await sql`create policy "spec presence" on realtime.messages for select to authenticated
      using (extension = 'broadcast' and realtime.topic() like 'spec:box:%')`
    const name = topic('box')
    const [seen, blind] = [(await user()).channel(name, PRIVATE), (await user()).channel(name, PRIVATE)]
    const syncs = received(blind, 'presence', 'sync')
    await Promise.all([join(seen), join(blind)])
    const hall = (await user()).channel(topic('hall'), PRIVATE)
    await join(hall)

    expect(await seen.track({ n: 1 })).toBe('ok')
    expect(await blind.track({ n: 2 })).toBe('ok')
    expect(await hall.track({ n: 3 })).toBe('error')

    expect(syncs).toEqual([])
    await sql`drop policy "spec presence" on realtime.messages`
  })
})
