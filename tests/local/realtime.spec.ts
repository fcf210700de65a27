import { randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { secretKey, superuser, until } from '../support/local.ts'
import { disconnectAll, join, realtimeClient, received, tokenOf } from '../support/realtime.ts'

const topic = (kind = 'open') => `spec:${kind}:${randomUUID()}`

beforeAll(async () => {
  const sql = superuser()
  await sql`create policy "spec rooms can be read" on realtime.messages for select to authenticated
    using (realtime.topic() like 'spec:room:%')`
  await sql`create policy "spec rooms can be written" on realtime.messages for insert to authenticated
    with check (realtime.topic() like 'spec:room:%')`
})

afterEach(disconnectAll)

afterAll(async () => {
  const sql = superuser()
  await sql`drop policy "spec rooms can be read" on realtime.messages`
  await sql`drop policy "spec rooms can be written" on realtime.messages`
})

describe('broadcast', () => {
  it('reaches the other clients of a public channel and not its sender', async () => {
    const name = topic()
    const alice = (await realtimeClient()).channel(name)
    const bob = (await realtimeClient()).channel(name)
    const [toAlice, toBob] = [received(alice, 'broadcast'), received(bob, 'broadcast')]
    await Promise.all([join(alice), join(bob)])

    await alice.send({ type: 'broadcast', event: 'greeting', payload: { text: 'hello' } })

    await until(() => toBob.length)
    expect(toBob).toEqual([{ type: 'broadcast', event: 'greeting', payload: { text: 'hello' } }])
    expect(toAlice).toEqual([])
  })

  it('sends what the database sends to a private channel', async () => {
    const name = topic('room')
    const channel = (await realtimeClient({ token: await tokenOf() })).channel(name, { config: { private: true } })
    const messages = received(channel, 'broadcast')
    await join(channel)

    await superuser()`select realtime.send('{"a": 1}'::jsonb, 'made', ${name}, true)`

    await until(() => messages.length)
    expect(messages[0]).toMatchObject({ event: 'made', payload: { a: 1 }, meta: { id: expect.any(String) } })
  })
})

describe('presence', () => {
  it('shows who is there and who leaves', async () => {
    const name = topic()
    const alice = (await realtimeClient()).channel(name, { config: { presence: { key: 'alice' } } })
    const bob = (await realtimeClient()).channel(name, { config: { presence: { key: 'bob' } } })
    received(alice, 'presence', 'sync')
    received(bob, 'presence', 'sync')
    await Promise.all([join(alice), join(bob)])

    expect(await bob.track({ mood: 'glad' })).toBe('ok')
    await until(() => alice.presenceState().bob)
    expect(alice.presenceState().bob).toMatchObject([{ mood: 'glad' }])
    await bob.unsubscribe()

    await until(() => !alice.presenceState().bob)
  })
})

describe('a private channel', () => {
  it('refuses a role that no policy lets read', async () => {
    const channel = (await realtimeClient()).channel(topic('room'), { config: { private: true } })

    await expect(join(channel)).rejects.toThrow(/Unauthorized: You do not have permissions to read from this Channel/)
  })
})
