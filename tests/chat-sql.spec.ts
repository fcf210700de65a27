import { randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { setEventsPerSecond } from './support/events-per-second.ts'
import { type Arena, openArena, refusal, type Session } from './support/races.ts'

/** The rules of chat under real concurrency. Every race shows that its sessions overlapped. */
let arena: Arena
let owner: string
let member: string
let character: string

beforeAll(async () => {
  arena = await openArena('races_chat')
  ;[owner, member] = [await arena.person('owner'), await arena.person('member')]
  const setup = await arena.session()
  character = await setup.call(
    owner,
    `insert into public.characters (name, age, greeting) values ('Ada', 36, 'Hello.') returning id`,
  )
})
afterEach(() => arena.endSessions())
afterAll(() => arena?.close())

interface Sent {
  user_message: { id: string }
  generation: { id: string; status: string }
  job_id: string
}
interface Lease {
  generation_id: string
  attempt: number
  lease_token: string
}

const send = (session: Session, who: string, conversation: string, key: string | null = null, content = 'Hi') =>
  session.call<Sent>(who, 'select public.send_message($1, $2, $3)', [conversation, content, key])
const claim = (session: Session, generation: string) =>
  session.call<Lease | null>('service_role', 'select service.claim_generation($1)', [generation])
const append = (session: Session, lease: Lease, chunks: { seq: number; text: string }[]) =>
  session.call<{ lease_lost: boolean; last_seq: number }[]>('service_role', 'select service.append_chunks($1)', [
    [{ ...lease, chunks }],
  ])
const finish = (session: Session, { generation_id, attempt, lease_token }: Lease, outcome: object) =>
  session.call<{ status: string; message?: { content: string } }>(
    'service_role',
    'select service.finish_generation($1, $2, $3, $4)',
    [generation_id, attempt, lease_token, outcome],
  )

/** A conversation of the owner; the member has joined it when asked for. */
async function talk({ joined = false } = {}): Promise<string> {
  const session = await arena.session()
  const id = await session.call<string>(owner, 'select id from public.start_conversation($1)', [character])
  if (joined) {
    await session.call(owner, 'select public.invite_participant($1, $2)', [id, member])
    await session.call(member, 'select public.accept_invitation($1)', [id])
  }
  return id
}
const sessions = (count: number) => Promise.all(Array.from({ length: count }, () => arena.session()))

/** Holds a row until released, so that whoever comes lines up behind it. */
async function gate(statement: string, values: string[]) {
  const session = await arena.session()
  await session.begin('postgres')
  await session.value(statement, values)
  return session
}
const gateConversation = (id: string) => gate('select 1 from public.conversations where id = $1 for update', [id])
const expireLease = (generation: string) =>
  arena.sql`update private.generation_leases set lease_until = now() - interval '1 second' where generation_id = ${generation}`

describe('sending', () => {
  it('makes one generation for one key from twenty connections at once', async () => {
    const conversation = await talk()
    const callers = await sessions(20)
    const held = await gateConversation(conversation)

    const sends = callers.map((session) => send(session, owner, conversation, 'the key'))
    await arena.blocked(...callers)
    await held.commit()
    const answers = await Promise.all(sends)

    expect(new Set(answers.map((answer) => answer.generation.id)).size).toBe(1)
    const [count] = await arena.sql`
      select (select count(*)::int from public.messages where conversation_id = ${conversation}) as messages,
        (select count(*)::int from public.generations where conversation_id = ${conversation}) as generations,
        (select count(*)::int from public.jobs where id = any (${answers.map((answer) => answer.job_id)})) as jobs`
    expect(count).toEqual({ messages: 3, generations: 1, jobs: 1 })
  })

  it('lets one of two members through and tells the other that an answer is on its way', async () => {
    const conversation = await talk({ joined: true })
    const [one, two] = (await sessions(2)) as [Session, Session]
    const held = await gateConversation(conversation)

    const outcomes = [send(one, owner, conversation), send(two, member, conversation)].map((sent) =>
      refusal(sent.then(() => Promise.reject({ code: 'sent' }))),
    )
    await arena.blocked(one, two)
    await held.commit()

    expect((await Promise.all(outcomes)).sort()).toEqual(['generation_in_progress', 'sent'])
  })

  it('cannot begin a second answer beside one on its way, even past the functions', async () => {
    const [first, second] = (await sessions(2)) as [Session, Session]
    const { generation } = await send(first, owner, await talk())
    const [{ id: ended } = { id: '' }] = await arena.sql`
      with ended as (delete from private.generation_leases where generation_id = ${generation.id})
      update public.generations set status = 'cancelled', finished_at = now() where id = ${generation.id} returning id`
    const copy = `
      insert into public.generations (conversation_id, message_id, settings)
      select g.conversation_id, g.message_id, g.settings from public.generations as g where g.id = $1 returning id`
    await Promise.all([first.begin('postgres'), second.begin('postgres')])
    await first.value(copy, [ended])
    const late = refusal(second.value(copy, [ended]))
    await arena.blocked(second)

    await first.commit()

    expect(await late).toBe('23505')
  })

  it('leaves nothing of a session that dies before its commit, and the key can be used again', async () => {
    const conversation = await talk()
    const [dying, waiting] = (await sessions(2)) as [Session, Session]
    await dying.begin(owner)
    const lost = await dying.value<Sent>('select public.send_message($1, $2, $3)', [conversation, 'Hi', 'crash'])
    const second = send(waiting, owner, conversation, 'crash')
    await arena.blocked(waiting)

    await arena.sql`select pg_terminate_backend(${dying.pid})`

    const sent = await second
    expect(sent.generation.id).not.toBe(lost.generation.id)
    const [left] = await arena.sql`
      select (select count(*)::int from public.messages where conversation_id = ${conversation}) as messages,
        (select count(*)::int from public.jobs where id = ${lost.job_id}) as jobs,
        (select count(*)::int from pgmq.q_jobs where message ->> 'job_id' = ${lost.job_id}) as alarms`
    expect(left).toEqual({ messages: 3, jobs: 0, alarms: 0 })
  })

  it('finds no conversation when the sender was removed while the message waited', async () => {
    const conversation = await talk({ joined: true })
    const [removing, sending] = (await sessions(2)) as [Session, Session]
    await removing.begin(owner)
    await removing.value('select public.remove_participant($1, $2)', [conversation, member])
    const sent = refusal(send(sending, member, conversation))
    await arena.blocked(sending)

    await removing.commit()

    expect(await sent).toBe('conversation_not_found')
  })

  it('is done when the removal of the sender comes second', async () => {
    const conversation = await talk({ joined: true })
    const [sending, removing] = (await sessions(2)) as [Session, Session]
    await sending.begin(member)
    const sent = await sending.value<Sent>('select public.send_message($1, $2)', [conversation, 'Hi'])
    const removed = removing.call(owner, 'select public.remove_participant($1, $2)', [conversation, member])
    await arena.blocked(removing)

    await sending.commit()
    await removed

    const [message] = await arena.sql`select author_id from public.messages where id = ${sent.user_message.id}`
    expect(message!.author_id).toBe(member)
  })

  it('waits for the deletion of the sender and then finds the account gone', async () => {
    const conversation = await talk({ joined: true })
    const leaver = await arena.person('leaver')
    const [deleting, sending] = (await sessions(2)) as [Session, Session]
    await sending.call(owner, 'select public.invite_participant($1, $2)', [conversation, leaver])
    await sending.call(leaver, 'select public.accept_invitation($1)', [conversation])
    await deleting.begin('postgres')
    await deleting.value('select private.tombstone_user($1)', [leaver])
    const sent = refusal(send(sending, leaver, conversation))
    await arena.blocked(sending)

    await deleting.commit()

    expect(await sent).toBe('account_not_active')
  })
})

describe('saying something to a character, as an OpenAI client does', () => {
  const sayTo = (session: Session, key: string | null, conversation?: string) =>
    session.call<Sent & { conversation_id: string }>('service_role', 'select service.talk_to_character($1, $2)', [
      owner,
      { character_id: character, content: 'Hi', idempotency_key: key, conversation_id: conversation ?? null },
    ])

  it('with one key begins one conversation from ten connections at once', async () => {
    const [first, ...others] = (await sessions(10)) as [Session, ...Session[]]
    await first.begin('service_role')
    const one = await first.value<Sent & { conversation_id: string }>('select service.talk_to_character($1, $2)', [
      owner,
      { character_id: character, content: 'Hi', idempotency_key: 'one talk' },
    ])

    const told = others.map((session) => sayTo(session, 'one talk'))
    await arena.blocked(...others)
    await first.commit()

    for (const same of await Promise.all(told)) {
      expect([same.conversation_id, same.generation.id]).toEqual([one.conversation_id, one.generation.id])
    }
  })

  it('has its turn with the messages of those who take part', async () => {
    const conversation = await talk({ joined: true })
    const [one, two, three] = (await sessions(3)) as [Session, Session, Session]
    const held = await gateConversation(conversation)

    const told = [
      send(one, member, conversation),
      sayTo(two, null, conversation),
      sayTo(three, 'a key', conversation),
    ].map((sent: Promise<unknown>) => refusal(sent.then(() => Promise.reject({ code: 'sent' }))))
    await arena.blocked(one, two, three)
    await held.commit()

    expect((await Promise.all(told)).sort()).toEqual(['generation_in_progress', 'generation_in_progress', 'sent'])
  })
})

describe('leases', () => {
  it('give a generation to one of ten runners', async () => {
    const runners = await sessions(10)
    const sent = await send(runners[0]!, owner, await talk())
    const held = await gate('select 1 from private.generation_leases where generation_id = $1 for update', [
      sent.generation.id,
    ])

    const claims = runners.map((runner) => claim(runner, sent.generation.id))
    await arena.blocked(...runners)
    await held.commit()

    expect((await Promise.all(claims)).filter((lease) => lease !== null)).toHaveLength(1)
  })

  it('protect an answer from a runner that wakes after it was taken over', async () => {
    const [stalled, taker] = (await sessions(2)) as [Session, Session]
    const sent = await send(stalled, owner, await talk())
    const old = (await claim(stalled, sent.generation.id))!
    await append(stalled, old, [{ seq: 1, text: 'old' }])
    await expireLease(sent.generation.id)
    await taker.begin('service_role')
    const lease = await taker.value<Lease>('select service.claim_generation($1)', [sent.generation.id])
    const late = append(stalled, old, [{ seq: 2, text: ' and late' }])
    await arena.blocked(stalled)

    await taker.commit()

    expect((await late)[0]!.lease_lost).toBe(true)
    expect(await finish(stalled, old, { status: 'completed' })).toEqual({ status: 'lost_lease' })
    expect(lease.attempt).toBe(2)
    await append(taker, lease, [{ seq: 1, text: 'new' }])
    expect((await finish(taker, lease, { status: 'completed' })).message!.content).toBe('new')
  })

  it('that ran out ring for the next worker as soon as the reaper comes by', async () => {
    const session = await arena.session()
    const person = await arena.person('alone')
    const ada = await session.call(
      person,
      `insert into public.characters (name, age, greeting) values ('Ada', 36, 'Hello.') returning id`,
    )
    const conversation = await session.call<string>(person, 'select id from public.start_conversation($1)', [ada])
    const { generation, job_id } = await send(session, person, conversation)
    await claim(session, generation.id)
    const ringing = async () => {
      const jobs = await session.call<{ job_id: string }[]>('service_role', 'select service.claim_jobs($1, 1000)', [
        randomUUID(),
      ])
      return jobs.some((job) => job.job_id === job_id)
    }
    expect(await ringing()).toBe(false)
    await expireLease(generation.id)

    await arena.sql`select private.reap_generations()`

    expect(await ringing()).toBe(true)
  })

  it('are not taken over while their holder beats', async () => {
    const [holder, taker] = (await sessions(2)) as [Session, Session]
    const sent = await send(holder, owner, await talk())
    const lease = (await claim(holder, sent.generation.id))!
    await expireLease(sent.generation.id)
    await holder.begin('service_role')
    await holder.value('select service.append_chunks($1)', [[{ ...lease, chunks: [] }] as never])
    const taken = claim(taker, sent.generation.id)
    await arena.blocked(taker)

    await holder.commit()

    expect(await taken).toBeNull()
  })

  it('end once: of two ends the second is told', async () => {
    const [one, two] = (await sessions(2)) as [Session, Session]
    const sent = await send(one, owner, await talk())
    const lease = (await claim(one, sent.generation.id))!
    await one.begin('service_role')
    await one.value('select service.finish_generation($1, $2, $3, $4)', [
      lease.generation_id,
      lease.attempt,
      lease.lease_token,
      { status: 'completed' },
    ])
    const second = finish(two, lease, { status: 'failed' })
    await arena.blocked(two)

    await one.commit()

    expect(await second).toEqual({ status: 'lost_lease' })
    const [row] = await arena.sql`select status from public.generations where id = ${sent.generation.id}`
    expect(row!.status).toBe('completed')
  })

  it('are not given to a runner that waited for a cancellation', async () => {
    const [cancelling, runner] = (await sessions(2)) as [Session, Session]
    const sent = await send(runner, owner, await talk())
    await cancelling.begin(owner)
    await cancelling.value('select public.cancel_generation($1)', [sent.generation.id])
    const lease = claim(runner, sent.generation.id)
    await arena.blocked(runner)

    await cancelling.commit()

    expect(await lease).toBeNull()
    const [row] = await arena.sql`
      select g.status, m.status as message, j.status as job
      from public.generations as g
      join public.messages as m on m.id = g.message_id
      join public.jobs as j on j.id = g.job_id
      where g.id = ${sent.generation.id}`
    expect(row).toEqual({ status: 'cancelled', message: 'cancelled', job: 'cancelled' })
  })

  it('leave a completed answer to a cancellation that came second', async () => {
    const [runner, cancelling] = (await sessions(2)) as [Session, Session]
    const sent = await send(runner, owner, await talk())
    const lease = (await claim(runner, sent.generation.id))!
    await runner.begin('service_role')
    await runner.value('select service.finish_generation($1, $2, $3, $4)', [
      lease.generation_id,
      lease.attempt,
      lease.lease_token,
      { status: 'completed' },
    ])
    const cancelled = cancelling.call<object>(owner, 'select public.cancel_generation($1)', [sent.generation.id])
    await arena.blocked(cancelling)

    await runner.commit()

    expect(await cancelled).toMatchObject({ status: 'completed', cancel_requested: false })
  })

  it('pass over a reaper that meets a holder in the act', async () => {
    const [holder, reaper] = (await sessions(2)) as [Session, Session]
    const sent = await send(holder, owner, await talk())
    const lease = (await claim(holder, sent.generation.id))!
    await expireLease(sent.generation.id)
    await holder.begin('service_role')
    await holder.value('select service.append_chunks($1)', [
      [{ ...lease, chunks: [{ seq: 1, text: 'alive' }] }] as never,
    ])

    // The holder's transaction is open: the reaper must neither wait nor take.
    expect(await reaper.call<number>('postgres', 'select private.reap_generations()')).toBe(0)
    await holder.commit()

    expect((await finish(holder, lease, { status: 'completed' })).message!.content).toBe('alive')
  })

  it('that are fresh are neither written nor waited for by the beats of their holder', async () => {
    const [holder, other] = (await sessions(2)) as [Session, Session]
    const lease = (await claim(holder, (await send(holder, owner, await talk())).generation.id))!
    const held = await gate('select 1 from private.generation_leases where generation_id = $1 for update', [
      lease.generation_id,
    ])
    await other.begin('service_role')
    await other.sql.unsafe(`set local lock_timeout = '1s'`)

    const beat = other.value('select service.append_chunks($1)', [[{ ...lease, chunks: [] }] as never])

    expect(await beat).toMatchObject([{ lease_lost: false, last_seq: 0 }])
    await held.commit()
  })

  it('are locked in the order of their ids, whatever the order of the batch', async () => {
    const [runner, other] = (await sessions(2)) as [Session, Session]
    const ids: string[] = []
    for (let count = 0; count < 2; count += 1) ids.push((await send(runner, owner, await talk())).generation.id)
    const leases: Lease[] = []
    for (const id of ids.toReversed()) leases.push((await claim(runner, id))!)
    const held = await gate('select 1 from private.generation_leases where generation_id = $1 for update', [ids[0]!])
    const batch = leases.map((lease) => ({ ...lease, chunks: [{ seq: 1, text: 'a' }] }))

    const appended = runner.call('service_role', 'select service.append_chunks($1)', [batch])
    await arena.blocked(runner)
    const free = other.call(
      'postgres',
      'select true from private.generation_leases where generation_id = $1 for update nowait',
      [ids[1]!],
    )

    expect(await free).toBe(true)
    await held.commit()
    await appended
  })

  it('take a piece once when it comes again while the first call is under way', async () => {
    const [first, again] = (await sessions(2)) as [Session, Session]
    const lease = (await claim(first, (await send(first, owner, await talk())).generation.id))!
    const chunks = [
      { seq: 1, text: 'a' },
      { seq: 2, text: 'b' },
    ]
    await first.begin('service_role')
    await first.value('select service.append_chunks($1)', [[{ ...lease, chunks }] as never])
    const repeated = append(again, lease, chunks)
    await arena.blocked(again)

    await first.commit()

    expect(await repeated).toMatchObject([{ lease_lost: false, last_seq: 2 }])
    expect((await finish(first, lease, { status: 'completed' })).message!.content).toBe('ab')
  })

  it('keep apart what several answers of a batch get, and what one of them is refused', async () => {
    const session = await arena.session()
    const leases: Lease[] = []
    for (let count = 0; count < 4; count += 1) {
      leases.push((await claim(session, (await send(session, owner, await talk())).generation.id))!)
    }
    const pieces = [
      [
        { seq: 2, text: 'b' },
        { seq: 1, text: 'a' },
      ],
      [{ seq: 2, text: 'too early' }],
      [{ seq: 1, text: 'stale' }],
      [
        { seq: 1, text: 'A' },
        { seq: 2, text: null },
        { seq: 3, text: 'C' },
      ],
    ]
    const batch = leases.map((lease, at) => ({ ...lease, chunks: pieces[at] }))
    batch[2]!.attempt += 1

    const answers = await session.call<{ generation_id: string }[]>(
      'service_role',
      'select service.append_chunks($1)',
      [batch],
    )

    const told = new Map(answers.map(({ generation_id, ...answer }) => [generation_id, answer]))
    expect(leases.map(({ generation_id }) => told.get(generation_id))).toEqual([
      { lease_lost: false, cancel_requested: false, last_seq: 2 },
      { lease_lost: false, cancel_requested: false, last_seq: 0 },
      { lease_lost: true, cancel_requested: false },
      { lease_lost: false, cancel_requested: false, last_seq: 1 },
    ])
    const contents: string[] = []
    for (const lease of leases) contents.push((await finish(session, lease, { status: 'completed' })).message!.content)
    expect(contents).toEqual(['ab', '', '', 'A'])
  })

  it.each(['writes first', 'comes second'])(
    'leave no piece of an answer that is deleted when its runner %s',
    async (runs) => {
      const [runner, deleting] = (await sessions(2)) as [Session, Session]
      const conversation = await talk()
      const lease = (await claim(runner, (await send(runner, owner, conversation)).generation.id))!
      await append(runner, lease, [{ seq: 1, text: 'a' }])
      const remove = () => deleting.value('delete from public.conversations where id = $1', [conversation])
      const write = () =>
        runner.value<unknown[]>('select service.append_chunks($1)', [
          [{ ...lease, chunks: [{ seq: 2, text: 'b' }] }] as never,
        ])
      await Promise.all([runner.begin('service_role'), deleting.begin('postgres')])

      const [one, first, other, second] =
        runs === 'writes first' ? [runner, write, deleting, remove] : [deleting, remove, runner, write]
      await first()
      const done = second()
      await arena.blocked(other)
      await one.commit()
      const answer = await done
      await other.commit()

      if (runs === 'comes second') expect(answer).toMatchObject([{ lease_lost: true }])
      const left = await arena.sql`
      select seq from public.generation_chunks where generation_id = ${lease.generation_id}`
      expect([...left]).toEqual([])
    },
  )

  it('keep deltas in one conversation from the conversations that nobody watches', async () => {
    const session = await arena.session()
    const [watched, quiet] = [await talk({ joined: true }), await talk({ joined: true })]
    await session.call(member, 'select public.watch_conversation($1)', [watched])
    // The asker's own watching is no reason to broadcast: they have the stream.
    await session.call(owner, 'select public.watch_conversation($1)', [quiet])
    for (const conversation of [watched, quiet]) {
      const lease = (await claim(session, (await send(session, owner, conversation)).generation.id))!
      await append(session, lease, [
        { seq: 1, text: 'a' },
        { seq: 2, text: 'b' },
      ])
    }

    const deltas = await arena.sql`
      select c.id, m.payload - 'id' - 'generation_id' as payload
      from realtime.messages as m join public.conversations as c on c.topic = m.topic
      where m.event = 'generation.delta' and c.id in (${watched}, ${quiet})`

    expect([...deltas]).toEqual([{ id: watched, payload: { attempt: 1, first_seq: 1, seq: 2, text: 'ab' } }])
  })
})

describe('deltas', () => {
  const watchedAnswer = async (session: Session) => {
    const conversation = await talk({ joined: true })
    await session.call(member, 'select public.watch_conversation($1)', [conversation])
    const lease = (await claim(session, (await send(session, owner, conversation)).generation.id))!
    const deltas = async () => {
      const rows = await arena.sql`
        select m.payload ->> 'text' as text
        from realtime.messages as m join public.conversations as c on c.topic = m.topic
        where m.event = 'generation.delta' and c.id = ${conversation} order by m.inserted_at`
      return rows.map((row) => row.text)
    }
    const turnComes = () => arena.sql`
      update private.generation_leases set broadcast_at = now() - interval '1 minute'
      where generation_id = ${lease.generation_id}`
    return { lease, deltas, turnComes }
  }

  it('wait while everything else that is sent uses half of the limit, and lose nothing by it', async () => {
    const session = await arena.session()
    const { lease, deltas, turnComes } = await watchedAnswer(session)
    await arena.sql`update realtime.messages set inserted_at = inserted_at - interval '1 minute'`
    await setEventsPerSecond(arena.sql, 100)
    // Each is sent once and heard by one person.
    const busy = (events: number) =>
      arena.sql`select private.send_event('user:' || n, 'job.updated', '{}') from generate_series(1, ${events}) as n`

    await busy(24)
    await append(session, lease, [{ seq: 1, text: 'a' }])
    const whileBusy = await deltas()
    await arena.sql`update realtime.messages set inserted_at = inserted_at - interval '1 second'`
    await turnComes()
    await busy(23)
    await append(session, lease, [{ seq: 2, text: 'b' }])
    await setEventsPerSecond(arena.sql, 1_000_000)

    expect(whileBusy).toEqual([])
    expect(await deltas()).toEqual(['ab'])
  })

  it('begin where somebody begins to watch, and go out with a beat when their turn comes between two pieces', async () => {
    const session = await arena.session()
    const conversation = await talk({ joined: true })
    const lease = (await claim(session, (await send(session, owner, conversation)).generation.id))!
    await append(session, lease, [{ seq: 1, text: 'unwatched ' }])
    await session.call(member, 'select public.watch_conversation($1)', [conversation])
    await append(session, lease, [{ seq: 2, text: 'a' }])
    await arena.sql`
      update private.generation_leases set broadcast_at = now() + interval '1 minute'
      where generation_id = ${lease.generation_id}`
    await append(session, lease, [
      { seq: 3, text: 'b' },
      { seq: 4, text: 'c' },
    ])
    await arena.sql`
      update private.generation_leases set broadcast_at = now() - interval '1 minute'
      where generation_id = ${lease.generation_id}`

    for (let beats = 0; beats < 2; beats += 1) await append(session, lease, [])

    const deltas = await arena.sql`
      select (m.payload ->> 'first_seq')::int as first_seq, (m.payload ->> 'seq')::int as seq, m.payload ->> 'text' as text
      from realtime.messages as m join public.conversations as c on c.topic = m.topic
      where m.event = 'generation.delta' and c.id = ${conversation} order by m.inserted_at`
    expect([...deltas]).toEqual([
      { first_seq: 2, seq: 2, text: 'a' },
      { first_seq: 3, seq: 4, text: 'bc' },
    ])
  })

  it('are chosen by one transaction at a time, so that each knows what the one before has sent', async () => {
    const [first, second] = (await sessions(2)) as [Session, Session]
    const [one, other] = [await watchedAnswer(first), await watchedAnswer(second)]
    await first.begin('service_role')
    await first.value('select service.append_chunks($1)', [
      [{ ...one.lease, chunks: [{ seq: 1, text: 'a' }] }] as never,
    ])

    await append(second, other.lease, [{ seq: 1, text: 'a' }])
    const meanwhile = await other.deltas()
    await first.commit()
    await other.turnComes()
    await append(second, other.lease, [{ seq: 2, text: 'b' }])

    expect([await one.deltas(), meanwhile, await other.deltas()]).toEqual([['a'], [], ['ab']])
  })
})

describe('participants', () => {
  const invite = async (conversation: string, person: string) => {
    const session = await arena.session()
    await session.call(owner, 'select public.invite_participant($1, $2)', [conversation, person])
  }
  const state = async (conversation: string, person: string) => {
    const [row] = await arena.sql`
      select state from public.conversation_participants where conversation_id = ${conversation} and user_id = ${person}`
    return row?.state
  }

  it('who accept while they are being removed do not come in', async () => {
    const conversation = await talk()
    await invite(conversation, member)
    const [removing, accepting] = (await sessions(2)) as [Session, Session]
    await removing.begin(owner)
    await removing.value('select public.remove_participant($1, $2)', [conversation, member])
    const accepted = refusal(accepting.call(member, 'select public.accept_invitation($1)', [conversation]))
    await arena.blocked(accepting)

    await removing.commit()

    expect(await accepted).toBe('invitation_not_found')
    expect(await state(conversation, member)).toBe('removed')
  })

  it('who are removed while they accept are out, and the topic has changed', async () => {
    const conversation = await talk()
    await invite(conversation, member)
    const [accepting, removing] = (await sessions(2)) as [Session, Session]
    await accepting.begin(member)
    await accepting.value('select public.accept_invitation($1)', [conversation])
    const topic = await accepting.value<string>('select topic from public.conversations where id = $1', [conversation])
    const removed = removing.call(owner, 'select public.remove_participant($1, $2)', [conversation, member])
    await arena.blocked(removing)

    await accepting.commit()
    await removed

    expect(await state(conversation, member)).toBe('removed')
    const [row] = await arena.sql`select topic from public.conversations where id = ${conversation}`
    expect(row!.topic).not.toBe(topic)
  })

  it('cannot be invited by somebody whom they block in the same moment', async () => {
    const [conversation, hater] = [await talk(), await arena.person('hater')]
    const [blocking, inviting] = (await sessions(2)) as [Session, Session]
    await blocking.begin(hater)
    await blocking.sql.unsafe('insert into public.blocks (blocked_id) values ($1)', [owner])
    const invited = refusal(inviting.call(owner, 'select public.invite_participant($1, $2)', [conversation, hater]))
    await arena.blocked(inviting)

    await blocking.commit()

    expect(await invited).toBe('user_not_found')
  })

  it('lose an invitation that came in the moment before they block', async () => {
    const [conversation, hater] = [await talk(), await arena.person('hater')]
    const [inviting, blocking] = (await sessions(2)) as [Session, Session]
    await inviting.begin(owner)
    await inviting.value('select public.invite_participant($1, $2)', [conversation, hater])
    const blocked = blocking.call(hater, 'insert into public.blocks (blocked_id) values ($1)', [owner])
    await arena.blocked(blocking)

    await inviting.commit()
    await blocked

    expect(await state(conversation, hater)).toBe('left')
  })

  it('who have blocked each other do not come in together when both accept at once', async () => {
    const conversation = await talk()
    const [one, two] = [await arena.person('one'), await arena.person('two')]
    await invite(conversation, one)
    await invite(conversation, two)
    await arena.sql`alter table public.blocks disable trigger _500_part`
    await arena.sql`insert into public.blocks (blocker_id, blocked_id) values (${one}, ${two})`
    await arena.sql`alter table public.blocks enable trigger _500_part`
    const [first, second] = (await sessions(2)) as [Session, Session]
    await first.begin(one)
    await first.value('select public.accept_invitation($1)', [conversation])
    const accepted = refusal(second.call(two, 'select public.accept_invitation($1)', [conversation]))
    await arena.blocked(second)

    await first.commit()

    expect(await accepted).toBe('invitation_not_possible')
  })

  it('hear nothing that is sent after their removal: it waits for what is on its way', async () => {
    const conversation = await talk({ joined: true })
    const [runner, removing] = (await sessions(2)) as [Session, Session]
    await removing.call(member, 'select public.watch_conversation($1)', [conversation])
    const lease = (await claim(runner, (await send(runner, owner, conversation)).generation.id))!
    await runner.begin('service_role')
    await runner.value('select service.append_chunks($1)', [[{ ...lease, chunks: [{ seq: 1, text: 'a' }] }] as never])
    const removed = removing.call(owner, 'select public.remove_participant($1, $2)', [conversation, member])
    await arena.blocked(removing)
    const [before] = await arena.sql`select topic from public.conversations where id = ${conversation}`

    await runner.commit()
    await removed
    const [{ sent } = { sent: -1 }] = await arena.sql`
      select count(*)::int as sent from realtime.messages where topic = ${before!.topic}`
    await append(runner, lease, [{ seq: 2, text: 'b' }])
    await finish(runner, lease, { status: 'completed' })

    const [after] = await arena.sql`
      select count(*)::int as sent from realtime.messages where topic = ${before!.topic}`
    expect(after!.sent).toBe(sent)
  })

  it('keep one owner when two leave at once', async () => {
    const conversation = await talk({ joined: true })
    const [one, two] = (await sessions(2)) as [Session, Session]
    const held = await gateConversation(conversation)

    const leaving = [
      refusal(
        one
          .call(owner, 'select public.leave_conversation($1)', [conversation])
          .then(() => Promise.reject({ code: 'left' })),
      ),
      refusal(
        two
          .call(member, 'select public.leave_conversation($1)', [conversation])
          .then(() => Promise.reject({ code: 'left' })),
      ),
    ]
    await arena.blocked(one, two)
    await held.commit()

    expect((await Promise.all(leaving)).sort()).toEqual(['left', 'owner_cannot_leave_alone'])
    const owners = await arena.sql`
      select c.owner_id = p.user_id as agrees
      from public.conversation_participants as p join public.conversations as c on c.id = p.conversation_id
      where p.conversation_id = ${conversation} and p.role = 'owner'`
    expect([...owners]).toEqual([{ agrees: true }])
  })
})

describe('idempotency', () => {
  it('is per person: the same key of another member is another message', async () => {
    const conversation = await talk({ joined: true })
    const session = await arena.session()
    const key = randomUUID()
    const first = await send(session, owner, conversation, key)
    await session.call(owner, 'select public.cancel_generation($1)', [first.generation.id])

    const second = await send(session, member, conversation, key)

    expect(second.generation.id).not.toBe(first.generation.id)
  })

  it('shows a repeated call how far the answer has come', async () => {
    const conversation = await talk()
    const session = await arena.session()
    const first = await send(session, owner, conversation, 'again')
    await session.call(owner, 'select public.cancel_generation($1)', [first.generation.id])

    expect((await send(session, owner, conversation, 'again')).generation).toEqual({
      id: first.generation.id,
      status: 'cancelled',
    })
  })
})
