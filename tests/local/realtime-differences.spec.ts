import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { secretKey, superuser, until } from '../support/local.ts'
import {
  bareSocket,
  disconnectAll,
  join,
  PRIVATE,
  realtimeClient,
  roomPolicies,
  tokenOf,
  topic,
} from '../support/realtime.ts'

const sql = superuser()
const policies = roomPolicies('realtime-differences.spec')

beforeAll(async () => {
  await policies.create()
  await sql.unsafe(`
    drop table if exists public.spec_differences;
    create table public.spec_differences (
      id bigint generated always as identity primary key, word char(5), flags bit(3), twice text generated always as (word || word) stored);
    grant select on public.spec_differences to service_role;
    alter publication supabase_realtime add table public.spec_differences;`)
})
afterEach(disconnectAll)
afterAll(async () => {
  await policies.drop()
  await sql`drop table public.spec_differences`
})

/** Everything that happens to the table, seen by a server. */
async function watch() {
  const channel = (await realtimeClient({ key: secretKey })).channel(topic('open'))
  const order: string[] = []
  const changes: { new: Record<string, unknown> }[] = []
  channel.on('system', {}, () => order.push('active'))
  channel.on('postgres_changes', { event: '*', schema: 'public', table: 'spec_differences' }, (change) =>
    changes.push(change as never),
  )
  await join(channel)
  order.push('joined')
  await until(() => order.includes('active'))
  return { changes, order }
}

describe('where the local Realtime server differs from hosted', () => {
  it('diff-realtime-1: limits are off by default and count in windows of a second', async () => {
    const { send, frames, reply } = await bareSocket()
    for (let n = 1; n <= 150; n++) send(`${n}`, `${n}`, `realtime:${n}`, 'phx_join', { config: {} })

    await reply('150')
    expect(frames.filter((frame) => frame[4].status === 'error')).toEqual([])
  })

  it('diff-realtime-2: a refused join is answered at once', async () => {
    const began = Date.now()

    await expect(join((await realtimeClient()).channel(topic('vault'), PRIVATE))).rejects.toThrow('Unauthorized')

    expect(Date.now() - began).toBeLessThan(4_000)
  })

  it('diff-realtime-3: changes flow from the join on, so none between the join and the system message is lost', async () => {
    const { send, reply, event } = await bareSocket({ key: secretKey })
    const postgres_changes = [{ event: 'INSERT', schema: 'public', table: 'spec_differences' }]
    send('1', '1', `realtime:${topic('open')}`, 'phx_join', { config: { postgres_changes } })
    await reply('1')
    await sql`insert into public.spec_differences default values`

    const [, , , , { ids, data }] = await event('postgres_changes')

    expect([ids.length, data.table]).toEqual([1, 'spec_differences'])
  })

  it('diff-realtime-4: subscriptions are kept in memory, not in realtime.subscription', async () => {
    await watch()

    expect(await sql`select from realtime.subscription`).toHaveLength(0)
  })

  it('diff-realtime-5: a generated column is missing from a change', async () => {
    const { changes } = await watch()

    await sql`insert into public.spec_differences (word, flags) values ('abc', '101')`

    await until(() => changes.length)
    expect(changes[0]!.new).toEqual({ id: expect.any(Number), word: 'abc  ', flags: '101' })
  })

  it('diff-realtime-6: `persist` does not store a broadcast', async () => {
    const name = topic('room')
    const channel = (await realtimeClient({ token: await tokenOf() })).channel(name, {
      config: { private: true, broadcast: { ack: true } },
    })
    await join(channel)

    await channel.send({ type: 'broadcast', event: 'kept', payload: {}, persist: true } as never)

    expect(await sql`select from realtime.messages where topic = ${name}`).toHaveLength(0)
  })

  it('diff-realtime-7: what the database sends arrives when its transaction can be read', async () => {
    const name = topic('room')
    const channel = (await realtimeClient({ token: await tokenOf() })).channel(name, PRIVATE)
    const found: Promise<number>[] = []
    let arrived = () => {}
    channel.on('broadcast', { event: '*' }, ({ payload }) => {
      found.push(sql`select from public.spec_differences where id = ${payload.row}`.then((rows) => rows.length))
      arrived()
    })
    await join(channel)

    for (let n = 1; n <= 500; n++) {
      const arrival = new Promise<void>((resolve) => {
        arrived = resolve
      })
      await sql`with made as (insert into public.spec_differences default values returning id)
        select realtime.send(jsonb_build_object('row', id), 'made', ${name}) from made`
      await arrival
    }

    expect((await Promise.all(found)).filter((rows) => rows === 0)).toEqual([])
  })

  it('diff-realtime-8: stored broadcasts of all days lie in one partition', async () => {
    const rows = await sql`select distinct tableoid::regclass::text as partition from realtime.messages`

    expect(rows.every(({ partition }) => partition === 'realtime.messages_default')).toBe(true)
  })

  it('diff-realtime-9: public channels cannot be switched off', async () => {
    await join((await realtimeClient()).channel(topic('open')))
  })

  it('diff-realtime-10: a broadcast whose JSON is broken is dropped, since it would break those who receive it', async () => {
    const name = `realtime:${topic('open')}`
    const { socket, send, reply } = await bareSocket()
    const heard: Buffer[] = []
    socket.on('message', (data: Buffer, isBinary) => isBinary && heard.push(data))
    send('1', '1', name, 'phx_join', { config: { broadcast: { self: true, ack: true } } })
    await reply('1')
    const head = [3, 1, 1, name.length, 1, 0, 1]
    for (const payload of ['{broken', '{}'])
      socket.send(Buffer.concat([Buffer.from(head), Buffer.from(`12${name}e${payload}`)]))

    await reply('2')
    await until(() => heard.length)
    expect(heard.map((frame) => frame.subarray(-2).toString())).toEqual(['{}'])
  })
})
