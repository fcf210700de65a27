import { randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type Arena, openArena } from './support/races.ts'

/** The outbox's consumer under real concurrency, in a database that no worker and no scheduler serves. */
let arena: Arena
beforeAll(async () => {
  arena = await openArena('races_outbox')
  await arena.sql.unsafe(`
    create table private.heard (event_id bigint not null);
    create function private.hear(events jsonb) returns void language sql set search_path = '' as
      $$ insert into private.heard select (e ->> 'id')::bigint from jsonb_array_elements(events) as e $$;
    insert into private.event_handlers (name, kinds, function, meaning)
    values ('hear', 'test\\.happened', 'private.hear(jsonb)', 'For a test.');
  `)
})
beforeEach(() => arena.sql`truncate private.outbox, private.heard cascade`)
afterEach(() => arena.endSessions())
afterAll(() => arena?.close())

const emit = `select private.emit_event('test.happened', gen_random_uuid(), '{}', null)`
const emitMany = (count: number) => arena.sql.unsafe(`${emit} from generate_series(1, ${count})`)
const deliver = 'select service.deliver_events(10)'
const heard = async (): Promise<number[]> =>
  (await arena.sql`select event_id::int as id from private.heard order by event_id`).map((row) => row.id)
const emitted = async (): Promise<number[]> =>
  (await arena.sql`select id::int from private.outbox order by id`).map((row) => row.id)

describe('the outbox’s consumer', () => {
  it('takes each event in one of two transactions that are open at once', async () => {
    await emitMany(15)
    const [one, two] = [await arena.session(), await arena.session()]
    await one.begin('service_role')
    await two.begin('service_role')

    const taken = [await one.value<number>(deliver), await two.value<number>(deliver)]
    await Promise.all([one.commit(), two.commit()])

    expect(taken).toEqual([10, 5])
    expect(await heard()).toEqual(await emitted())
  })

  it('that dies in the middle of a batch leaves all of it to the next one', async () => {
    await emitMany(5)
    const [dying, next] = [await arena.session(), await arena.session()]
    await dying.begin('service_role')
    expect(await dying.value<number>(deliver)).toBe(5)
    expect(await next.call<number>('service_role', deliver)).toBe(0)

    await arena.sql`select pg_terminate_backend(${dying.pid})`
    let delivered = 0
    while (delivered < 5) delivered += await next.call<number>('service_role', deliver)

    expect(await heard()).toEqual(await emitted())
  })

  it('loses no event whose transaction commits after later ones were delivered', async () => {
    const [slow, consumer] = [await arena.session(), await arena.session()]
    await slow.begin('postgres')
    await slow.value(emit)
    await emitMany(3)
    await consumer.call('service_role', deliver)
    const before = await heard()

    await slow.commit()
    await consumer.call('service_role', deliver)

    const all = await heard()
    expect(before).toHaveLength(3)
    expect(all).toEqual(await emitted())
    expect(all[0]).toBeLessThan(Math.min(...before))
  })

  it('delivers many from four consumers at once, each event once', async () => {
    await emitMany(400)
    const sessions = await Promise.all(Array.from({ length: 4 }, () => arena.session()))

    await Promise.all(
      sessions.map(async (session) => {
        while ((await session.call<number>('service_role', deliver)) > 0) {}
      }),
    )
    while ((await sessions[0]!.call<number>('service_role', deliver)) > 0) {}

    expect(await heard()).toEqual(await emitted())
  })

  it('tells a person’s topic of the changes of their documents, in one message', async () => {
    const person = await arena.person()
    for (let n = 0; n < 3; n++) {
      await arena.sql`insert into public.documents (owner_id, collection, data) values (${person}, 'notes', '{}')`
    }

    await arena.sql`select private.deliver_events()`

    const messages = await arena.sql`
      select m.payload from realtime.messages as m join public.profile_private as p on p.topic = m.topic
      where p.id = ${person} and m.event = 'event.recorded'`
    expect(messages).toHaveLength(1)
    const { events } = messages[0]!.payload as { events: { kind: string; payload: { collection: string } }[] }
    expect(events.map(({ kind, payload }) => `${kind} ${payload.collection}`)).toEqual(
      Array(3).fill('document.created notes'),
    )
  })
})

it(`retries of one event by two consumers at once run its handler once`, async () => {
  await emitMany(1)
  await arena.sql`update private.outbox set processed_at = now()`
  await arena.sql`
    insert into private.event_retries (event_id, handler, error, due_at)
    select id, 'hear', ${randomUUID()}, clock_timestamp() from private.outbox`
  const [one, two] = [await arena.session(), await arena.session()]
  await one.begin('service_role')
  await two.begin('service_role')

  const tried = [await one.value<number>(deliver), await two.value<number>(deliver)]
  await Promise.all([one.commit(), two.commit()])

  expect(tried).toEqual([1, 0])
  expect(await heard()).toEqual(await emitted())
})
