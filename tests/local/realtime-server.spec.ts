import { type ChildProcess, spawn } from 'node:child_process'
import { join as path } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import WebSocket from 'ws'
import { publishableKey, stack, superuser, until } from '../support/local.ts'
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
} from '../support/realtime.ts'

const sql = superuser()
const policies = roomPolicies('realtime-server.spec')

beforeAll(policies.create)
afterEach(disconnectAll)
afterAll(policies.drop)

const joined = async () => {
  const bare = await bareSocket()
  const name = `realtime:${topic('open')}`
  bare.send('1', '1', name, 'phx_join', { config: { broadcast: { self: true, ack: true } } })
  await bare.reply('1')
  return { ...bare, name }
}

/** Kind 3 of protocol 2.0.0. */
function push(name: string, event: string, payload: Buffer, { encoding = 1, ref = '9' } = {}): Buffer {
  const parts = ['1', ref, name, event, ''].map((part) => Buffer.from(part))
  return Buffer.concat([Buffer.from([3, ...parts.map((part) => part.length), encoding]), ...parts, payload])
}

describe('a connection', () => {
  it('answers heartbeats, and what belongs to no joined channel', async () => {
    const { send, reply } = await bareSocket()
    send(null, '1', 'phoenix', 'heartbeat', {})
    send('2', '2', 'realtime:nowhere', 'broadcast', {})
    send('3', '3', 'realtime:nowhere', 'phx_leave', {})
    send('4', '4', 'elsewhere', 'phx_join', {})
    send('5', '5', 'realtime:', 'phx_join', { config: {} })

    expect((await reply('1'))[4]).toEqual({ status: 'ok', response: {} })
    expect((await reply('2')).slice(0, 1).concat((await reply('2'))[4])).toEqual([
      null,
      { status: 'error', response: { reason: 'unmatched topic' } },
    ])
    expect((await reply('3'))[4]).toEqual({ status: 'ok', response: {} })
    expect((await reply('4'))[4]).toEqual({ status: 'error', response: { reason: 'unmatched topic' } })
    expect((await reply('5'))[4].response.reason).toBe('TopicNameRequired: You must provide a topic name')
  })

  it('closes the older channel when a topic is joined twice', async () => {
    const { send, reply, event, frames, name } = await joined()
    send('2', '2', name, 'phx_join', { config: {} })
    await reply('2')

    expect(await event('phx_close')).toEqual(['1', '1', name, 'phx_close', {}])
    send('2', '3', name, 'phx_leave', {})
    await reply('3')
    expect(frames.at(-1)).toEqual(['2', '2', name, 'phx_close', {}])
  })

  it('survives whatever it cannot read', async () => {
    const { socket, send, reply, name, frames } = await joined()
    const broken = [
      '',
      '{',
      'null',
      '1',
      '[]',
      '[1,2]',
      '{"topic":"realtime:x"}',
      '[null,null,5,6,7]',
      `["1","7","${name}",null,{}]`,
      Buffer.from([]),
      Buffer.from([3]),
      Buffer.from([3, 255, 255, 255, 255, 255, 1]),
      Buffer.from([4, 1, 1, 1, 1, 97]),
      Buffer.from([9, 9, 9]),
      push(name, 'e', Buffer.from('{broken')),
      push(name, 'e', Buffer.from('{}'), { encoding: 7 }),
      push(name, 'e', Buffer.from([0xff, 0xfe, 0x22])),
      push('', 'e', Buffer.from('{}')),
    ]
    for (const frame of broken) socket.send(frame)
    for (const payload of [null, 5, 'x', []]) {
      send('1', '3', name, 'broadcast', payload)
      send('1', '4', name, 'presence', payload)
      send('1', null, name, 'access_token', payload)
      send('1', null, name, 'anything', payload)
    }
    send('1', '5', name, 'presence', { type: 'presence', event: 'track', payload: [1] })
    send('1', '6', name, 'presence', { type: 'presence', event: 'dance' })
    send('1', '8', `${name}:2`, 'phx_join', null)

    send(null, '10', 'phoenix', 'heartbeat', {})
    await reply('10')
    expect((await reply('8'))[4].status).toBe('ok')
    expect((await reply('5'))[4]).toEqual({
      status: 'error',
      response: { reason: 'Presence track payload must be a map' },
    })
    expect((await reply('6'))[4]).toEqual({ status: 'error', response: {} })
    expect(frames.filter((frame) => frame[4] === null)).toEqual([])
    expect(socket.readyState).toBe(WebSocket.OPEN)
  })

  it('falls back to defaults for a configuration that makes no sense', async () => {
    const { send, reply } = await bareSocket()
    const config = { broadcast: 5, presence: [], private: 'maybe', postgres_changes: [null, 7] }
    send('1', '1', `realtime:${topic('open')}`, 'phx_join', { config, access_token: 7 })

    expect((await reply('1'))[4]).toEqual({ status: 'ok', response: { postgres_changes: [] } })
  })

  it('delivers a payload up to the limit, tells the sender of a larger one, and closes on a huge frame', async () => {
    const { socket, reply, name, closed } = await joined()
    const sizes: number[] = []
    socket.on('message', (data: Buffer, isBinary) => isBinary && sizes.push(data.length))
    const text = (length: number) => Buffer.from(JSON.stringify('x'.repeat(length)))

    socket.send(push(name, 'fits', text(2_900_000), { ref: '2' }))
    expect((await reply('2'))[4].status).toBe('ok')
    socket.send(push(name, 'large', text(3_100_000), { ref: '3' }))
    expect((await reply('3'))[4]).toEqual({ status: 'error', response: { reason: 'payload_size_exceeded' } })
    await until(() => sizes.length)
    socket.send(push(name, 'huge', text(5_100_000)))

    expect(await closed).toBe(1009)
    expect(sizes).toHaveLength(1)
  })
})

describe('a server of its own', () => {
  const servers: ChildProcess[] = []
  // Each holds a replication connection, and a server has few.
  afterEach(() => {
    for (const server of servers.splice(0)) server.kill()
  })

  async function start(...flags: string[]): Promise<string> {
    const server = spawn(
      'node_modules/.bin/deno',
      ['run', '-A', '--quiet', 'tests/support/realtime-server.ts', path(stack.data, 'stack.json'), ...flags],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    servers.push(server)
    let said = ''
    server.stdout!.on('data', (chunk) => {
      said += chunk
    })
    return await until(() => /http:\S+/.exec(said)?.[0])
  }

  it('with limits ends channels that hear too many messages a second', async () => {
    const url = await start('--limits')
    const name = topic('open')
    const [sender, listener] = [
      (await realtimeClient({ url })).channel(name),
      (await realtimeClient({ url })).channel(name),
    ]
    const system = received(listener, 'system')
    await Promise.all([join(sender), join(listener)])

    for (let n = 0; n < 150; n++) sender.send({ type: 'broadcast', event: 'n', payload: {} })

    await until(() => listener.state === 'closed')
    expect(system).toMatchObject([{ status: 'error', message: 'Too many messages per second' }])
    expect(sender.state).toBe('joined')
  })

  it('with limits counts a message once as sent and once for each channel that receives it', async () => {
    const url = await start('--limits')
    const name = topic('open')
    const sender = (await realtimeClient({ url })).channel(name)
    const clients = await Promise.all(Array.from({ length: 9 }, () => realtimeClient({ url })))
    const listeners = clients.map((client) => client.channel(name))
    const system = received(listeners[0]!, 'system')
    await Promise.all([sender, ...listeners].map(join))

    // Fewer than the limit, but with those who receive them more in any second that they may fall into.
    for (let n = 0; n < 90; n++) sender.send({ type: 'broadcast', event: 'n', payload: {} })

    await until(() => listeners[0]!.state === 'closed')
    expect(system).toMatchObject([{ status: 'error', message: 'Too many messages per second' }])
  })

  it('with limits allows five presence calls in 30 seconds', async () => {
    const url = await start('--limits')
    const channel = (await realtimeClient({ url })).channel(topic('open'))
    const system = received(channel, 'system')
    received(channel, 'presence', 'sync')
    await join(channel)

    const answers = []
    for (let n = 0; n < 5; n++) answers.push(await channel.track({ n }))
    channel.track({ n: 5 })

    await until(() => channel.state === 'closed')
    expect(answers).toEqual(Array(5).fill('ok'))
    expect(system).toMatchObject([{ message: 'Client presence rate limit exceeded' }])
  })

  it('delivers again after its database sessions were ended, and says so to subscribers', async () => {
    const url = await start()
    const token = await tokenOf()
    const name = topic('room')
    const channel = (await realtimeClient({ url, token })).channel(name, PRIVATE)
    const messages = received(channel, 'broadcast')
    await sql.unsafe(`create table public.spec_stream (id int primary key); grant select on public.spec_stream to authenticated;
      alter publication supabase_realtime add table public.spec_stream`)
    const watcher = (await realtimeClient({ url, token })).channel(topic('open'))
    const system = received(watcher, 'system')
    const changes: unknown[] = []
    watcher.on('postgres_changes', { event: '*', schema: 'public', table: 'spec_stream' }, (change) =>
      changes.push(change),
    )
    await Promise.all([join(channel), join(watcher)])
    await until(() => system.length)

    const ended = await sql`select pg_terminate_backend(pid) from pg_stat_activity
      where application_name like ${`realtime ${servers.at(-1)!.pid}%`}`
    expect(ended.length).toBeGreaterThan(1)
    await until(() => system.length === 2)
    await sql`select realtime.send('{}'::jsonb, 'after', ${name})`
    await sql`insert into public.spec_stream values (1)`

    await until(() => messages.length && changes.length)
    expect(messages.map((message) => message.event)).toEqual(['after'])
    expect(system[1]).toMatchObject({ status: 'ok', message: 'Subscribed to PostgreSQL' })
    await sql`drop table public.spec_stream`
  })

  it('leaves no replication slot behind when it is killed', async () => {
    await start()
    const server = servers.at(-1)!
    const slots = () =>
      sql`select temporary from pg_replication_slots where slot_name like ${`realtime_${server.pid}_%`}`
    expect(await slots()).toEqual([{ temporary: true }])

    server.kill('SIGKILL')

    await until(async () => (await slots()).length === 0)
  })

  const nextSecond = () => {
    const begin = Date.now()
    return until(() => Date.now() - begin > 1_000)
  }
  const CONFIG = { config: {} }

  it('with limits refuses the 101st channel of a socket', async () => {
    const { send, reply } = await bareSocket({ url: await start('--limits') })
    for (let n = 1; n <= 60; n++) send(`${n}`, `${n}`, `realtime:${n}`, 'phx_join', CONFIG)
    await reply('60')
    await nextSecond()
    for (let n = 61; n <= 101; n++) send(`${n}`, `${n}`, `realtime:${n}`, 'phx_join', CONFIG)

    expect((await reply('100'))[4].status).toBe('ok')
    expect((await reply('101'))[4].response.reason).toBe('ChannelRateLimitReached: Too many channels')
  })

  it('with limits ends a socket that joins more than a hundred times a second', async () => {
    const { send, frames, closed } = await bareSocket({ url: await start('--limits') })
    for (let n = 1; n <= 101; n++) send(`${n}`, `${n}`, 'realtime:again', 'phx_join', CONFIG)

    await closed
    const refusals = frames.flatMap((frame) => frame[4].response?.reason ?? [])
    expect(refusals).toEqual(['ClientJoinRateLimitReached: Too many joins per second'])
  })

  it('with limits refuses the 201st user', async () => {
    const url = await start('--limits')
    const sockets = await Promise.all(Array.from({ length: 201 }, () => bareSocket({ url })))
    const statuses = []
    for (const some of [sockets.slice(0, 90), sockets.slice(90, 180), sockets.slice(180, 200), sockets.slice(200)]) {
      await nextSecond()
      for (const { send } of some) send('1', '1', 'realtime:crowd', 'phx_join', CONFIG)
      statuses.push(...(await Promise.all(some.map(async ({ reply }) => (await reply('1'))[4]))))
    }

    expect(statuses.filter(({ status }) => status === 'ok')).toHaveLength(200)
    expect(statuses[200].response.reason).toBe('ConnectionRateLimitReached: Too many connected users')
    for (const { socket } of sockets) socket.terminate()
  })

  it('without limits bears more than a thousand messages in a second', async () => {
    const url = await start()
    const name = topic('open')
    const [sender, listener] = [
      (await realtimeClient({ url })).channel(name),
      (await realtimeClient({ url })).channel(name),
    ]
    const messages = received(listener, 'broadcast')
    await Promise.all([join(sender), join(listener)])

    for (let n = 0; n < 1_500; n++) sender.send({ type: 'broadcast', event: 'n', payload: { n } })

    await until(() => messages.length === 1_500)
    expect(messages.map((message) => message.payload.n)).toEqual(Array.from({ length: 1_500 }, (_, n) => n))
  })

  it('cuts off a client that reads nothing, and goes on serving the others', async () => {
    const url = await start()
    const name = topic('open')
    const slow = await bareSocket({ url })
    slow.send('1', '1', `realtime:${name}`, 'phx_join', { config: {} })
    await slow.reply('1')
    const [sender, listener] = [
      (await realtimeClient({ url })).channel(name),
      (await realtimeClient({ url })).channel(name),
    ]
    let heard = 0
    listener.on('broadcast', { event: 'big' }, () => heard++)
    await Promise.all([join(sender), join(listener)])
    slow.socket.pause()

    const payload = { text: 'x'.repeat(1_000_000) }
    for (let n = 1; n <= 60; n++) {
      await sender.send({ type: 'broadcast', event: 'big', payload })
      await until(() => heard === n)
    }

    expect(heard).toBe(60)
    slow.socket.resume()
    expect(await slow.closed).not.toBe(1000)
  })

  it('refuses what it does not speak', async () => {
    const url = await start()
    const ask = (query: string) => fetch(`${url}/realtime/v1/websocket?apikey=${publishableKey}${query}`)

    expect((await ask('&vsn=3.0.0')).status).toBe(400)
    expect((await ask('&vsn=2.0.0')).status).toBe(426)
  })

  it('lets clients come back by themselves when it stops and starts', async () => {
    const url = await start()
    const channel = (await realtimeClient({ url })).channel(topic('open'))
    const statuses: string[] = []
    await new Promise<void>((resolve) =>
      channel.subscribe((status) => {
        statuses.push(status)
        if (status === 'SUBSCRIBED') resolve()
      }),
    )

    servers.at(-1)!.kill('SIGKILL')

    await until(() => statuses.length > 1)
    expect(statuses).toEqual(['SUBSCRIBED', 'CHANNEL_ERROR'])
  })
})
