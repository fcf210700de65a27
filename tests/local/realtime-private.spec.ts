import { randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import WebSocket from 'ws'
import { secretKey, superuser, until, url } from '../support/local.ts'
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
const policies = roomPolicies('realtime-private.spec')

beforeAll(policies.create)
afterEach(disconnectAll)
afterAll(policies.drop)

describe('a private channel', () => {
  const refusal = /Unauthorized: You do not have permissions to read from this Channel topic: spec:/

  it('refuses those whom no policy lets read, and one whose policy fails', async () => {
    await sql`create policy "spec failure" on realtime.messages for select to anon
      using (realtime.topic() like 'spec:%' and 1 / (random() * 0)::int = 1)`

    await expect(join((await user()).channel(topic('vault'), PRIVATE))).rejects.toThrow(refusal)
    await expect(join((await realtimeClient()).channel(topic('room'), PRIVATE))).rejects.toThrow(refusal)
    await join((await realtimeClient({ key: secretKey })).channel(topic('vault'), PRIVATE))
    await sql`drop policy "spec failure" on realtime.messages`
  })

  it('drops what a reader sends without the right to, without an answer', async () => {
    const name = topic('hall')
    const channel = (await user()).channel(name, PRIVATE)
    const messages = received(channel, 'broadcast')
    await join(channel)
    const forger = (await user()).channel(name, { config: { private: true, broadcast: { ack: true } } })
    await join(forger)

    expect(await forger.send({ type: 'broadcast', event: 'forged', payload: {} }, { timeout: 300 })).toBe('timed out')
    await sql`select realtime.send('{}'::jsonb, 'real', ${name})`

    await until(() => messages.length)
    expect(messages.map((message) => message.event)).toEqual(['real'])
  })

  it('takes sends of one who may write and not read over REST only', async () => {
    const name = topic('box')
    await expect(join((await user()).channel(name, PRIVATE))).rejects.toThrow(refusal)

    expect(await (await user()).channel(name, PRIVATE).httpSend('e', {})).toEqual({ success: true })
  })

  it('never hears the public room of its name, nor is it heard there', async () => {
    const name = topic('room')
    const [open, closed] = [(await user()).channel(name), (await user()).channel(name, PRIVATE)]
    const [toOpen, toClosed] = [received(open, 'broadcast'), received(closed, 'broadcast')]
    await Promise.all([join(open), join(closed)])
    const [other, others] = [(await user()).channel(name), (await user()).channel(name, PRIVATE)]
    await Promise.all([join(other), join(others)])

    await other.send({ type: 'broadcast', event: 'public', payload: {} })
    await others.send({ type: 'broadcast', event: 'private', payload: {} })

    await until(() => toOpen.length && toClosed.length)
    expect([toOpen, toClosed].map((messages) => messages.map((message) => message.event))).toEqual([
      ['public'],
      ['private'],
    ])
  })

  it('tells policies the topic, the claims and the role', async () => {
    const sub = randomUUID()
    const name = `${topic('vault')}:${sub}`
    await sql.unsafe(`create policy "spec claims" on realtime.messages for select to authenticated using (
      extension = 'broadcast' and topic = realtime.topic() and realtime.topic() like 'spec:vault:%:' || '${sub}'
      and current_setting('request.jwt.claim.sub') = '${sub}' and current_setting('request.jwt.claim.role') = current_user
      and current_setting('request.jwt.claims')::jsonb ->> 'sub' = '${sub}'
      and current_setting('request.headers')::jsonb is not null)`)

    await expect(join((await user()).channel(name, PRIVATE))).rejects.toThrow(refusal)
    await join((await user(sub)).channel(name, PRIVATE))
    await sql`drop policy "spec claims" on realtime.messages`
  })

  it('lives on when its policy goes, until its token changes', async () => {
    const name = topic('vault')
    await sql`create policy "spec passing" on realtime.messages for select to authenticated using (realtime.topic() like 'spec:vault:%')`
    let token = await tokenOf()
    const client = await realtimeClient({ token: async () => token })
    const channel = client.channel(name, PRIVATE)
    const [messages, system] = [received(channel, 'broadcast'), received(channel, 'system')]
    await join(channel)

    await sql`drop policy "spec passing" on realtime.messages`
    await sql`select realtime.send('{}'::jsonb, 'still', ${name})`
    await until(() => messages.length)
    await expect(join((await user()).channel(name, PRIVATE))).rejects.toThrow(refusal)
    token = await tokenOf()
    await client.realtime.setAuth()

    await until(() => system.length)
    expect(system[0]).toMatchObject({
      status: 'error',
      message: expect.stringMatching(/permissions? to read from this Channel/),
    })
    await until(() => channel.state === 'closed')
  })

  it('leaves no probe behind in realtime.messages', async () => {
    const name = topic('room')
    const channel = (await user()).channel(name, PRIVATE)
    await join(channel)
    await channel.send({ type: 'broadcast', event: 'x', payload: {} })
    await channel.track({})

    expect(await sql`select from realtime.messages where topic = ${name}`).toHaveLength(0)
  })
})

describe('a token', () => {
  it('ends the channel when it expires', async () => {
    const channel = (await realtimeClient({ token: await tokenOf({ expiresIn: 2 }) })).channel(topic('open'))
    const system = received(channel, 'system')
    await join(channel)

    await until(() => system.length)
    expect(system[0]).toMatchObject({
      status: 'error',
      message: expect.stringMatching(/^Token has expired \d+ seconds ago$/),
    })
    await until(() => channel.state === 'closed')
  })

  it('keeps the channel beyond its expiry when it is refreshed in time', async () => {
    const name = topic('room')
    let token = await tokenOf({ expiresIn: 2 })
    const client = await realtimeClient({ token: async () => token })
    const channel = client.channel(name, PRIVATE)
    const messages = received(channel, 'broadcast')
    await join(channel)
    const expires = Date.now() + 2_000
    token = await tokenOf()
    await client.realtime.setAuth()

    await until(() => Date.now() > expires + 500)
    await sql`select realtime.send('{}'::jsonb, 'alive', ${name})`

    await until(() => messages.length)
  })

  it.each([
    ['expired', () => tokenOf({ expiresIn: -100 }), /InvalidJWTToken: Token has expired 10\d seconds ago/],
    ['of no JWT shape', async () => 'nonsense', /MalformedJWT: The token provided is not a valid JWT/],
    [
      'of a foreign role',
      () => tokenOf({ role: 'postgres' }),
      /InvalidJWTToken: Fields `role` and `exp` are required in JWT/,
    ],
    [
      'changed after it was signed',
      async () => tampered(await tokenOf()),
      /JwtSignatureError: Failed to validate JWT signature/,
    ],
  ])('%s is refused at the join', async (_, make, reason) => {
    const { send, reply } = await bareSocket()
    send('1', '1', `realtime:${topic('open')}`, 'phx_join', { config: {}, access_token: await make() })

    const [, , , , { status, response }] = await reply('1')

    expect({ status, reason: response.reason }).toEqual({ status: 'error', reason: expect.stringMatching(reason) })
  })

  it('that is no good ends a joined channel', async () => {
    const { send, reply, event } = await bareSocket()
    const name = `realtime:${topic('open')}`
    send('1', '1', name, 'phx_join', { config: {} })
    await reply('1')
    send('1', '2', name, 'access_token', { access_token: 'nonsense' })

    expect((await event('system'))[4]).toMatchObject({
      status: 'error',
      message: 'The token provided is not a valid JWT',
    })
    await event('phx_close')
  })

  it.each([
    ['no key', '', {}],
    ['a wrong key', 'sb_publishable_wrong', {}],
    ['an expired token for a key', () => tokenOf({ expiresIn: -100 }), {}],
    ['a secret key in a browser', secretKey, { 'user-agent': 'Mozilla/5.0 (X11; Linux x86_64)' }],
  ])('opens no socket for %s', async (_, key, headers) => {
    const address = `${url.replace('http', 'ws')}/realtime/v1/websocket?vsn=2.0.0&apikey=${typeof key === 'function' ? await key() : key}`
    const socket = new WebSocket(address, { headers: headers as Record<string, string> })

    const status = await new Promise((resolve) => {
      socket.on('unexpected-response', (_, response) => resolve(response.statusCode))
      socket.on('open', () => resolve('open'))
    })

    expect(status).toBe(401)
    socket.on('error', () => {}).terminate()
  })
})

/** The same header and signature around other claims. */
function tampered(token: string): string {
  const [head, claims, signature] = token.split('.') as [string, string, string]
  const changed = { ...JSON.parse(Buffer.from(claims, 'base64url').toString()), role: 'service_role' }
  return [head, Buffer.from(JSON.stringify(changed)).toString('base64url'), signature].join('.')
}
