import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type Arena, openArena, type Session } from './support/races.ts'

/** Whose job is next: seats of people, priorities, the schedule of retries. In a database that no worker serves. */
let arena: Arena
beforeAll(async () => {
  arena = await openArena('races_fairness')
})
beforeEach(
  () => arena.sql`
    truncate public.jobs, private.job_work, private.workers, pgmq.q_jobs, pgmq.q_jobs_high, pgmq.q_jobs_low, pgmq.a_jobs cascade`,
)
afterEach(() => arena.endSessions())
afterAll(() => arena?.close())

interface Job {
  job_id: string
  lease_token: string
}

const enqueue = async (owner: string | null, count = 1, priority: string | null = null): Promise<string[]> => {
  const [row] = await arena.sql`
    select private.enqueue_jobs(
      'erase', ${owner}, array_fill('{}'::jsonb, array[${count}::integer]), priority => ${priority}
    ) as ids`
  return row!.ids
}
const claim = (session: Session, slots: number, worker: string = randomUUID()) =>
  session.call<Job[]>('service_role', 'select service.claim_jobs($1, $2)', [worker, slots])
const completed = { status: 'completed' }
const finish = (session: Session, job: Job, outcome: object = completed) =>
  session.call<{ status: string }>('service_role', 'select service.finish_job($1, $2, $3)', [
    job.job_id,
    job.lease_token,
    outcome,
  ])
/** The same inside the session's open transaction. */
const finishWithin = (session: Session, job: Job) =>
  session.value<{ status: string }>('select service.finish_job($1, $2, $3)', [job.job_id, job.lease_token, completed])
const stages = async (owner: string) => {
  const rows = await arena.sql`
    select stage, count(*)::int as count from private.job_work where owner_id = ${owner} group by stage`
  return Object.fromEntries(rows.map((row) => [row.stage, row.count]))
}
const ids = (jobs: Job[]) => jobs.map((job) => job.job_id)

describe('seats', () => {
  it('let another person’s job start among the first three, whoever has ten thousand before it', async () => {
    const [many, few, worker] = [await arena.person(), await arena.person(), randomUUID()]
    await enqueue(many, 10_000)
    const [theirs] = await enqueue(few)
    const session = await arena.session()

    const started: string[] = []
    for (let n = 0; n < 4; n++) {
      const [job] = await claim(session, 1, worker)
      started.push(job!.job_id)
      await finish(session, job!)
    }

    expect(started.indexOf(theirs!)).toBeGreaterThanOrEqual(0)
    expect(started.indexOf(theirs!)).toBeLessThan(3)
    expect(await stages(many)).toEqual({ queued: 2, waiting: 10_000 - 2 - 3 })
  })

  it('are two, also when eight sessions enqueue for one person at once', async () => {
    const person = await arena.person()
    const [first, ...others] = await Promise.all(Array.from({ length: 8 }, () => arena.session()))
    const statement = `select private.enqueue_job('erase', '${person}', '{}')`
    await first!.begin('postgres')
    await first!.value(statement)
    const answers = others.map((session) => session.call('postgres', statement))
    await arena.blocked(...others)

    await first!.commit()
    await Promise.all(answers)

    expect(await stages(person)).toEqual({ queued: 2, waiting: 6 })
  })

  it('are given on once each when both are left in the same moment', async () => {
    const person = await arena.person()
    await enqueue(person, 10)
    const [one, two] = [await arena.session(), await arena.session()]
    const [a, b] = await claim(one, 5)
    await one.begin('service_role')
    await finishWithin(one, a!)
    const second = finish(two, b!)
    await arena.blocked(two)

    await one.commit()
    await second

    expect(await stages(person)).toEqual({ queued: 2, waiting: 6 })
    expect(ids(await claim(one, 5))).toHaveLength(2)
  })

  it('are given on in the transaction that leaves them: a crash before its commit loses nothing', async () => {
    const person = await arena.person()
    const made = await enqueue(person, 3)
    const [dying, other] = [await arena.session(), await arena.session()]
    const [job] = await claim(dying, 1)
    await dying.begin('service_role')
    await finishWithin(dying, job!)
    expect(await stages(person)).toEqual({ queued: 2, waiting: 1 })

    await arena.sql`select pg_terminate_backend(${dying.pid})`
    await arena.sql`update pgmq.q_jobs set vt = clock_timestamp() - interval '1 second'`

    const done: string[] = []
    for (let jobs = await claim(other, 5); jobs.length > 0; jobs = await claim(other, 5)) {
      for (const next of jobs) await finish(other, next)
      done.push(...ids(jobs))
    }
    expect(done.sort()).toEqual(made.sort())
  })

  it('do not deadlock transactions that leave those of two people in opposite order; the sweep makes good', async () => {
    const people = [await arena.person(), await arena.person()] as const
    await enqueue(people[0], 5)
    await enqueue(people[1], 5)
    const [one, two] = [await arena.session(), await arena.session()]
    const jobs = await claim(one, 4)
    const [a1, a2, b1, b2] = jobs as [Job, Job, Job, Job]
    await one.begin('service_role')
    await two.begin('service_role')
    await finishWithin(one, a1)
    await finishWithin(two, b1)

    // Each wants the seats that the other one holds.
    const answers = await Promise.all([finishWithin(one, b2), finishWithin(two, a2)])
    await Promise.all([one.commit(), two.commit()])

    expect(answers).toEqual([completed, completed])
    await arena.sql`select private.sweep_jobs()`
    expect([await stages(people[0]), await stages(people[1])]).toEqual([
      { queued: 2, waiting: 1 },
      { queued: 2, waiting: 1 },
    ])
  })

  it('do not deadlock whoever holds them and waits for a lock of somebody who waits for them', async () => {
    const person = await arena.person()
    const [holding, waiting] = [await arena.session(), await arena.session()]
    await waiting.begin('postgres')
    await waiting.value(`select 1 from public.profiles where id = '${person}' for update`)
    await holding.begin('postgres')
    await holding.value(`select private.hold_seats('${person}')`)
    // As a reaper does, which goes from one conversation to the next.
    const reaped = holding.value(`select 1 from public.profiles where id = '${person}' for update`)
    await arena.blocked(holding)

    const job = await waiting.value<string>(`select private.enqueue_job('erase', '${person}', '{}')`)
    await waiting.commit()
    await reaped
    await holding.commit()

    expect(await stages(person)).toEqual({ waiting: 1 })
    await arena.sql`select private.sweep_jobs()`
    expect(ids(await claim(await arena.session(), 1))).toEqual([job])
  })

  it('hold through any order of ends, retries and cancels, and nothing is lost on the way', async () => {
    const step = fc.record({
      what: fc.constantFrom('enqueue', 'claim', 'complete', 'retry', 'retry later', 'fail', 'cancel', 'release', 'due'),
      pick: fc.nat(20),
    })
    const session = await arena.session()
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 30 }), async (steps) => {
        const [person, worker, made] = [await arena.person(), randomUUID(), new Set<string>()]
        await arena.sql`truncate public.jobs, private.job_work, private.workers, pgmq.q_jobs cascade`
        let held: Job[] = []
        for (const { what, pick } of steps) {
          const job = held[pick % Math.max(held.length, 1)]
          const end = async (outcome: object) => {
            if (!job) return
            held = held.filter((other) => other !== job)
            await finish(session, job, outcome)
          }
          if (what === 'enqueue') for (const id of await enqueue(person, 1 + (pick % 4))) made.add(id)
          else if (what === 'claim') held.push(...(await claim(session, 1 + (pick % 3), worker)))
          else if (what === 'complete') await end(completed)
          else if (what === 'retry') await end({ status: 'retry', retry_after_seconds: 0 })
          else if (what === 'retry later') await end({ status: 'retry', retry_after_seconds: 60 })
          else if (what === 'fail') await end({ status: 'failed', error: { code: 'test' } })
          else if (what === 'cancel') {
            const id = [...made][pick % Math.max(made.size, 1)]
            if (id) await session.call(person, 'select public.cancel_job($1)', [id])
          } else if (what === 'release') {
            held = []
            await session.call('service_role', 'select service.release_jobs($1)', [worker])
          } else await arena.sql`select private.admit_due_jobs(clock_timestamp() + interval '2 minutes')`

          const now: Record<string, number> = await stages(person)
          expect(now.queued ?? 0).toBeLessThanOrEqual(2)
          if (now.waiting) expect(now.queued).toBe(2)
          const [sum] = await arena.sql`
            select (select count(*)::int from public.jobs) as jobs,
              (select count(*)::int from public.jobs as j left join private.job_work as w on w.job_id = j.id
               where (j.finished_at is null) <> coalesce(w.stage <> 'dead', false)) as torn,
              (select count(*)::int from pgmq.q_jobs as q
               full join (select * from private.job_work where stage = 'queued') as w on w.msg_id = q.msg_id
               where q.msg_id is null or w.job_id is null) as unmatched`
          expect(sum).toEqual({ jobs: made.size, torn: 0, unmatched: 0 })
        }
      }),
      { numRuns: 25 },
    )
  }, 60_000)
})

describe('priorities', () => {
  const allot = async (slots: number, turn: number): Promise<number[]> =>
    (await arena.sql`select private.allot_slots(${slots}, ${turn}) as share`)[0]!.share

  it('share slots 8 to 3 to 1, each within one of its part', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: 1000 }), fc.nat(1_000_000_000), async (slots, turn) => {
        const share = await allot(slots, turn)
        expect(share.reduce((sum, part) => sum + part)).toBe(slots)
        for (const [index, weight] of [8, 3, 1].entries()) {
          expect(share[index]).toBeGreaterThanOrEqual(0)
          expect(Math.abs(share[index]! - (slots * weight) / 12)).toBeLessThanOrEqual(1)
        }
      }),
      { numRuns: 100 },
    )
  })

  it('starve nobody: of twelve claims in a row of one slot one is for low priority', async () => {
    for (const name of ['high', 'normal', 'low']) await enqueue(null, 100, name)
    const session = await arena.session()
    const worker = randomUUID()

    const taken: Record<number, number> = { 1: 0, 2: 0, 3: 0 }
    for (let n = 0; n < 24; n++) {
      const [job] = await claim(session, 1, worker)
      const [work] = await arena.sql`select priority from private.job_work where job_id = ${job!.job_id}`
      taken[work!.priority]!++
    }

    expect(taken).toEqual({ 1: 16, 2: 6, 3: 2 })
  })

  it('leave no slot empty while any of them has work', async () => {
    await enqueue(null, 3, 'low')
    await enqueue(null, 2, 'high')

    expect(await claim(await arena.session(), 5)).toHaveLength(5)
  })
})

describe('retries', () => {
  it('wait twice as long each time, with jitter in the upper half, and never more than five minutes', async () => {
    const backoff = async (attempt: number, random: number): Promise<number> =>
      (await arena.sql`select extract(epoch from private.backoff(${attempt}, ${random}))::float8 as s`)[0]!.s

    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 100 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        async (attempt, random) => {
          const most = Math.min(300, 2 ** (attempt - 1))
          expect(await backoff(attempt, random)).toBeCloseTo(most * (0.5 + random / 2), 3)
          expect(await backoff(attempt + 1, random)).toBeGreaterThanOrEqual(await backoff(attempt, random))
        },
      ),
      { numRuns: 60 },
    )
  })

  it('wait as long as the service asks for, be it shorter or longer than their own schedule, and within it without a word', async () => {
    const asked = fc.option(fc.double({ min: 0, max: 200_000, noNaN: true }), { nil: null })
    const session = await arena.session()

    await fc.assert(
      fc.asyncProperty(asked, fc.integer({ min: 1, max: 12 }), async (retry_after_seconds, attempts) => {
        const [id] = await enqueue(null)
        await arena.sql`update public.jobs set attempts = ${attempts - 1}, max_attempts = 20 where id = ${id!}`
        const [job] = await claim(session, 1)
        await finish(session, job!, { status: 'retry', retry_after_seconds })

        const [wait] = await arena.sql`
          select extract(epoch from q.vt - clock_timestamp())::float8 as seconds, j.status, j.attempts
          from pgmq.q_jobs as q, public.jobs as j where j.id = ${id!}`
        await arena.sql`select private.end_job(${id!}, 'cancelled')`
        expect(wait).toMatchObject({ status: 'waiting', attempts })
        const own = Math.min(300, 2 ** (attempts - 1))
        const [least, most] =
          retry_after_seconds === null ? [own / 2, own] : Array(2).fill(Math.min(retry_after_seconds, 86_400))
        // Messages count in whole seconds, rounded up; a moment has passed since.
        expect(wait!.seconds).toBeGreaterThan(least - 1)
        expect(wait!.seconds).toBeLessThanOrEqual(Math.ceil(most))
      }),
      { numRuns: 40 },
    )
  })

  it('end after the last attempt, as a dead letter', async () => {
    const session = await arena.session()
    const [id] = await enqueue(null)
    await arena.sql`update public.jobs set max_attempts = 2`
    const [job] = await claim(session, 1)
    await finish(session, job!, { status: 'retry', retry_after_seconds: 90 })
    await arena.sql`update pgmq.q_jobs set vt = clock_timestamp()`
    const [again] = await claim(session, 1)
    expect(await finish(session, again!, { status: 'retry' })).toEqual({ status: 'failed' })
    expect(await arena.sql`select id from admin.dead_letters`).toEqual([{ id }])
  })
})

describe('batches', () => {
  it('end as one by one, whatever stands in them', async () => {
    const session = await arena.session()
    const person = await arena.person()
    await enqueue(person, 4)
    await enqueue(null, 4)
    const jobs = await claim(session, 10)
    const outcomes = ['completed', 'failed', 'completed', 'retry', 'completed', 'cancelled'].map((status) => ({
      status,
    }))

    const answer = await session.call<{ job_id: string; status: string }[]>(
      'service_role',
      'select service.finish_jobs($1)',
      [
        [
          ...jobs.map((job, index) => ({ ...job, outcome: outcomes[index] })),
          { job_id: jobs[0]!.job_id, lease_token: randomUUID(), outcome: completed },
          { job_id: randomUUID(), lease_token: randomUUID(), outcome: completed },
        ],
      ] as never,
    )

    const statuses = Object.fromEntries(answer.map((entry) => [entry.job_id, entry.status]))
    expect(jobs.map((job) => statuses[job.job_id])).toEqual([
      'completed',
      'failed',
      'completed',
      'waiting',
      'completed',
      'cancelled',
    ])
    expect(answer.filter((entry) => entry.status === 'lost_lease')).toHaveLength(1)
    // Two of the person's ended, so their other two are admitted.
    expect(await stages(person)).toMatchObject({ queued: 2 })
  })

  it('of two workers at once neither deadlock nor lose a job', async () => {
    const [one, two] = [await arena.session(), await arena.session()]
    const people = await Promise.all([1, 2, 3].map(() => arena.person()))
    for (const person of people) await enqueue(person, 40)
    await enqueue(null, 100)
    const drain = async (session: Session) => {
      const worker = randomUUID()
      let count = 0
      for (let jobs = await claim(session, 7, worker); jobs.length > 0; jobs = await claim(session, 7, worker)) {
        const batch = jobs.map((job) => ({ ...job, outcome: completed }))
        await session.call('service_role', 'select service.finish_jobs($1)', [batch] as never)
        count += jobs.length
      }
      return count
    }

    await Promise.all([drain(one), drain(two)])
    await arena.sql`select private.sweep_jobs()`
    await drain(one)

    const rows = await arena.sql`select status, count(*)::int as count from public.jobs group by status`
    expect([...rows]).toEqual([{ status: 'completed', count: 220 }])
    expect(await arena.sql`select 1 from private.job_work`).toHaveLength(0)
  })
})
