import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Arena, openArena, type Session } from './support/races.ts'

/** Whatever people, runners and the reaper do at once, the rules of chat hold afterwards, and nobody met a deadlock. */
const seconds = Number(process.env.STORM_SECONDS ?? 4)
let arena: Arena
beforeAll(async () => {
  arena = await openArena('storm')
})
afterAll(() => arena?.close())

const pick = <T>(items: readonly T[]): T => items[Math.floor(Math.random() * items.length)]!

it(
  'keeps its rules under a storm of calls',
  async () => {
    const people = await Promise.all(Array.from({ length: 5 }, () => arena.person()))
    const setup = await arena.session()
    const talks: string[] = []
    for (const person of people.slice(0, 3)) {
      const character = await setup.call(
        person,
        `insert into public.characters (name, age, greeting, visibility) values ('Ada', 30, 'Hi', 'public') returning id`,
      )
      talks.push(await setup.call<string>(person, 'select id from public.start_conversation($1)', [character]))
    }
    const generations: string[] = []
    const leases: { generation_id: string; attempt: number; lease_token: string; seq: number }[] = []
    const workers = Array.from({ length: 3 }, () => randomUUID())
    const refused: Record<string, number> = {}

    const ownerOf = async (talk: string): Promise<string> =>
      (await arena.sql`select owner_id from public.conversations where id = ${talk}`)[0]!.owner_id
    /** Calls an owner's function on one of the conversations. */
    const own = async (session: Session, name: string) => {
      const talk = pick(talks)
      await session.call(await ownerOf(talk), `select public.${name}($1, $2)`, [talk, pick(people)])
    }
    for (const talk of talks) {
      for (const person of people) {
        await setup.call(await ownerOf(talk), 'select public.invite_participant($1, $2)', [talk, person])
        await setup.call(person, 'select public.accept_invitation($1)', [talk])
      }
    }

    type Move = (session: Session) => Promise<unknown>
    const often: Move[] = [
      async (session) => {
        const run = pick(['inline', 'queued'])
        const key = pick([null, null, `key ${Math.floor(Math.random() * 20)}`])
        const sent = await session.call<{ generation: { id: string } }>(
          pick(people),
          'select public.send_message($1, $2, $3, $4)',
          [pick(talks), 'Hi', key, run],
        )
        generations.push(sent.generation.id)
      },
      async (session) => {
        const lease = await session.call<(typeof leases)[0] | null>(
          'service_role',
          'select service.claim_generation($1)',
          [pick(generations)],
        )
        if (lease) leases.push({ ...lease, seq: 0 })
      },
      (session) => {
        const some = Array.from({ length: 3 }, () => pick(leases))
        const batch = some.map((lease) => ({ ...lease, chunks: [{ seq: ++lease.seq, text: 'x' }] }))
        return session.call('service_role', 'select service.append_chunks($1)', [batch])
      },
      (session) => {
        const { generation_id, attempt, lease_token } = pick(leases)
        const status = pick(['completed', 'failed', 'cancelled', 'retry'])
        const outcome = { status, retry_after_seconds: 0, finish_reason: pick(['stop', 'handed_over']) }
        return session.call('service_role', 'select service.finish_generation($1, $2, $3, $4)', [
          generation_id,
          attempt,
          lease_token,
          outcome,
        ])
      },
    ]
    const sometimes: Move[] = [
      (session) => session.call(pick(people), 'select public.cancel_generation($1)', [pick(generations)]),
      (session) => session.call(pick(people), 'select public.watch_conversation($1)', [pick(talks)]),
      async (session) => {
        const [talk, person] = [pick(talks), pick(people)]
        await session.call(await ownerOf(talk), 'select public.invite_participant($1, $2)', [talk, person])
        await session.call(person, 'select public.accept_invitation($1)', [talk])
      },
      // Time passes: some leases have run out, the reaper comes by.
      (session) =>
        session.call(
          'postgres',
          `update private.generation_leases set lease_until = now() - interval '1 second'
         where generation_id = $1 and lease_until is not null`,
          [pick(generations)],
        ),
      (session) => session.call('postgres', 'select private.reap_generations()'),
      async (session) => {
        const jobs = await session.call<{ job_id: string; lease_token: string }[]>(
          'service_role',
          'select service.claim_jobs($1, 3)',
          [pick(workers)],
        )
        for (const { job_id, lease_token } of jobs) {
          await session.call('service_role', 'select service.finish_job($1, $2, $3)', [
            job_id,
            lease_token,
            { status: 'completed' },
          ])
        }
      },
      (session) => session.call('service_role', 'select service.release_jobs($1)', [pick(workers)]),
      async (session) => {
        const request = { kind: 'complete', prompt_tokens: 10, max_tokens: 10 }
        const begun = await session.call<{ completion_id: string }>(
          'service_role',
          'select service.begin_completion($1, $2)',
          [pick(people), request],
        )
        await session.call('service_role', 'select service.finish_completion($1, $2)', [
          begun.completion_id,
          { outcome: 'completed' },
        ])
      },
    ]
    const rarely: Move[] = [
      (session) => own(session, 'remove_participant'),
      (session) => session.call(pick(people), 'select public.leave_conversation($1)', [pick(talks)]),
      (session) => session.call(pick(people), 'insert into public.blocks (blocked_id) values ($1)', [pick(people)]),
      (session) => session.call(pick(people), 'delete from public.blocks'),
    ]

    const until = Date.now() + seconds * 1000
    const sessions = await Promise.all(Array.from({ length: 16 }, () => arena.session()))
    await Promise.all(
      sessions.map(async (session) => {
        while (Date.now() < until) {
          try {
            await pick(Math.random() < 0.04 ? rarely : pick([often, often, sometimes]))(session)
          } catch (error) {
            const { code, message, constraint_name = '' } = error as Record<string, string>
            const what = code && !code.startsWith('PT') ? `${code} ${constraint_name}` : message!
            refused[what] = (refused[what] ?? 0) + 1
          }
        }
      }),
    )

    // Refusals by name, and blocking oneself or twice; no deadlock, no other constraint that a guard let through.
    const expected = ['23505 blocks_pkey', '23514 blocks_not_oneself']
    const surprises = Object.keys(refused).filter((what) => /^\d/.test(what) && !expected.includes(what))
    expect(surprises).toEqual([])
    expect(generations.length).toBeGreaterThan(5)

    const broken = await arena.sql`
    select 'two open generations' as what, conversation_id::text as id from public.generations
    where status in ('queued', 'running') group by conversation_id having count(*) > 1
    union all
    select 'lease and generation disagree', g.id::text
    from public.generations as g left join private.generation_leases as l on l.generation_id = g.id
    where (g.status in ('queued', 'running')) <> (l.generation_id is not null)
      or (g.status = 'running') <> (l.lease_token is not null)
    union all
    select 'job and generation disagree', g.id::text
    from public.generations as g
    join public.jobs as j on j.id = g.job_id left join private.job_work as w on w.job_id = j.id
    where (w.job_id is not null) <> (g.status in ('queued', 'running'))
      or (w.job_id is null and j.status <> g.status)
      or coalesce(w.stage = 'queued', false) <> exists (select from pgmq.q_jobs as q where q.message ->> 'job_id' = j.id::text)
    union all
    select 'message and generation disagree', g.id::text
    from public.generations as g join public.messages as m on m.id = g.message_id
    where m.status <> case when g.status in ('queued', 'running') then 'pending' else g.status end
    union all
    select 'chunks have a gap', generation_id::text
    from public.generation_chunks group by generation_id, attempt having max(seq) <> count(*)
    union all
    select 'owner and participants disagree', c.id::text
    from public.conversations as c
    where not exists (
      select from public.conversation_participants as p
      where p.conversation_id = c.id and p.user_id = c.owner_id and p.role = 'owner' and p.state = 'joined'
    )
    union all
    select 'blocked people together', p.conversation_id::text
    from public.blocks as b
    join public.conversation_participants as p on p.user_id = b.blocker_id and p.state = 'joined'
    join public.conversation_participants as q on q.conversation_id = p.conversation_id
      and q.user_id = b.blocked_id and q.state = 'joined'
    union all
    select 'usage is not what receipts and holds say', user_id::text from admin.usage_drift
    union all
    select 'hold of an answer that has ended', g.id::text
    from private.usage_holds as h join public.generations as g on g.id = h.generation_id
    where g.status not in ('queued', 'running')
    union all
    select 'answer on its way without a hold', g.id::text
    from public.generations as g left join private.usage_holds as h on h.generation_id = g.id
    where g.status in ('queued', 'running') and h.id is null`
    expect([...broken]).toEqual([])
  },
  30_000 + seconds * 1000,
)
