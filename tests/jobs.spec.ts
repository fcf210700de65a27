import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { until } from './support/local.ts'
import { type Arena, openArena, refusal, type Session } from './support/races.ts'

/** The queue under real concurrency, in a database that no worker serves. */
let arena: Arena
beforeAll(async () => {
  arena = await openArena('races_jobs')
})
beforeEach(
  () =>
    arena.sql`truncate public.jobs, private.job_work, private.workers, pgmq.q_jobs, pgmq.q_jobs_high, pgmq.q_jobs_low, pgmq.a_jobs cascade`,
)
afterEach(() => arena.endSessions())
afterAll(() => arena?.close())

interface Job {
  job_id: string
  msg_id: number
  attempt: number
  lease_token: string
}

const enqueue = async (count = 1, delay = '0') => {
  const rows = await arena.sql`
    select private.enqueue_job('erase', null, '{}', delay => ${delay}::interval) as id from generate_series(1, ${count})`
  return rows.map((row) => row.id as string)
}
const claim = (session: Session, worker: string, slots = 5) =>
  session.call<Job[]>('service_role', 'select service.claim_jobs($1, $2)', [worker, slots])
const finish = (session: Session, job: Job, outcome: object = { status: 'completed' }) =>
  session.call<{ status: string }>('service_role', 'select service.finish_job($1, $2, $3)', [
    job.job_id,
    job.lease_token,
    outcome,
  ])
const finishAndClaim = (session: Session, job: Job, worker: string, outcome: object = { status: 'completed' }) =>
  session.call<{ status: string; next: Job[] }>('service_role', 'select service.finish_and_claim($1, $2, $3, $4)', [
    job.job_id,
    job.lease_token,
    outcome,
    worker,
  ] as never)
const statusOf = async (id: string) => (await arena.sql`select status from public.jobs where id = ${id}`)[0]?.status
const ids = (jobs: Job[]) => jobs.map((job) => job.job_id)

describe('claiming', () => {
  it('gives each of a hundred jobs to one of ten workers', async () => {
    const made = await enqueue(100)
    const sessions = await Promise.all(Array.from({ length: 10 }, () => arena.session()))
    // Every worker claims before any of them commits: ten open transactions, each with its own jobs.
    await Promise.all(sessions.map((session) => session.begin('service_role')))

    const claimed: Job[][] = []
    for (const session of sessions) {
      claimed.push(await session.value<Job[]>('select service.claim_jobs($1, 10)', [randomUUID()]))
    }
    const [open] = await arena.sql`
      select count(*)::int as count from pg_stat_activity
      where pid = any (${sessions.map((session) => session.pid)}) and state = 'idle in transaction'`
    await Promise.all(sessions.map((session) => session.commit()))

    expect(open!.count).toBe(10)
    expect(claimed.flatMap(ids).sort()).toEqual(made.sort())
  })

  it('does so when they all come at the same moment', async () => {
    const made = await enqueue(200)
    const sessions = await Promise.all(Array.from({ length: 8 }, () => arena.session()))

    const claimed = await Promise.all(
      sessions.map(async (session) => {
        const [worker, mine] = [randomUUID(), [] as Job[]]
        for (let next = await claim(session, worker, 3); next.length > 0; next = await claim(session, worker, 3)) {
          mine.push(...next)
        }
        return mine
      }),
    )

    expect(claimed.flatMap(ids).sort()).toEqual(made.sort())
  })

  it('reads the jobs that it gives out and no others, also by a plan that was made while there were few', async () => {
    const session = await arena.session()
    await enqueue(3)
    await arena.sql`analyze private.job_work, public.jobs, pgmq.q_jobs`
    expect(await claim(session, randomUUID())).toHaveLength(3)
    await enqueue(1000)

    await session.begin('service_role')
    const given = await session.value<Job[]>('select service.claim_jobs($1, 100)', [randomUUID()])
    const read = await session.value<string>(
      `select sum(idx_tup_fetch) from pg_stat_xact_all_tables where relname in ('job_work', 'jobs')`,
    )
    await session.commit()

    expect(given).toHaveLength(100)
    // Each row of both tables is read to be found and to be changed; those in flight are met on the way.
    expect(Number(read)).toBeLessThan(500)
  })

  it('gives back at once what a session held that died in the middle of its claim', async () => {
    const [made] = await enqueue()
    const [dying, other] = [await arena.session(), await arena.session()]
    await dying.begin('service_role')
    expect(ids(await dying.value<Job[]>('select service.claim_jobs($1, 1)', [randomUUID()]))).toEqual([made])
    expect(await claim(other, randomUUID())).toEqual([])

    await arena.sql`select pg_terminate_backend(${dying.pid})`

    const worker = randomUUID()
    // The server may need a moment to notice.
    const again = await until(async () => {
      const given = await claim(other, worker)
      return given.length > 0 && given
    })
    expect(again).toMatchObject([{ job_id: made, attempt: 1 }])
  })

  it('gives a job whose worker fell silent to another one, and the first can change nothing more', async () => {
    const [made] = await enqueue()
    const session = await arena.session()
    const [stale] = await claim(session, randomUUID())
    await arena.sql`update pgmq.q_jobs set vt = clock_timestamp() - interval '1 second'`
    const [fresh] = await claim(session, randomUUID())

    expect(fresh).toMatchObject({ job_id: made, attempt: 2 })
    expect(await finish(session, stale!)).toEqual({ status: 'lost_lease' })
    expect(await finish(session, fresh!)).toEqual({ status: 'completed' })
    expect(await finish(session, stale!, { status: 'failed' })).toEqual({ status: 'completed' })
  })

  it('does not deadlock with a worker that finishes in the moment in which its job became visible again', async () => {
    await enqueue()
    const [finishing, claiming] = [await arena.session(), await arena.session()]
    const [job] = await claim(finishing, randomUUID())
    await arena.sql`update pgmq.q_jobs set vt = clock_timestamp() - interval '1 second'`
    await finishing.begin('postgres')
    await finishing.value('select 1 from private.job_work where job_id = $1 for update', [job!.job_id])
    await claiming.begin('service_role')
    // The claim has the message and finds the job taken: it must pass over it, not wait.
    expect(await claiming.value<Job[]>('select service.claim_jobs($1, 1)', [randomUUID()])).toEqual([])
    const finished = finishing.value<{ status: string }>('select private.finish_job($1, $2, $3)', [
      job!.job_id,
      job!.lease_token,
      { status: 'completed' } as never,
    ])
    await arena.blocked(finishing)

    await claiming.commit()

    expect(await finished).toEqual({ status: 'completed' })
    await finishing.commit()
    expect(await statusOf(job!.job_id)).toBe('completed')
  })

  it('and finishing do not deadlock with the end of the account whose job it is', async () => {
    const person = await arena.person()
    await arena.sql`select private.enqueue_job('erase', ${person}, '{}')`
    const [finishing, deleting] = [await arena.session(), await arena.session()]
    const [job] = await claim(finishing, randomUUID())
    await finishing.begin('postgres')
    await finishing.value('select 1 from private.job_work where job_id = $1 for update', [job!.job_id])
    const deleted = deleting.call('postgres', 'delete from auth.users where id = $1', [person])
    await arena.blocked(deleting)

    const finished = finishing.value<{ status: string }>('select private.finish_job($1, $2, $3)', [
      job!.job_id,
      job!.lease_token,
      { status: 'completed' } as never,
    ])

    expect(await finished).toEqual({ status: 'completed' })
    await finishing.commit()
    await deleted
    expect(await arena.sql`select status, owner_id from public.jobs where id = ${job!.job_id}`).toEqual([
      { status: 'completed', owner_id: null },
    ])
  })
})

describe('making a job', () => {
  it('reads no other, also in a session that made its first while there were few', async () => {
    const session = await arena.session()
    const make = () => session.value(`select private.enqueue_job('erase', null, '{}')`)
    await enqueue(3)
    await arena.sql`analyze private.job_work, public.jobs`
    await make()
    await enqueue(300)

    await session.begin('postgres')
    await make()
    const read = await session.value<string>(
      `select sum(seq_tup_read) from pg_stat_xact_all_tables where relname in ('job_work', 'jobs')`,
    )
    await session.commit()

    expect(Number(read)).toBe(0)
  })
})

describe('a slot that takes its next job with the end of one', () => {
  it('gives each job to one of eight workers that come at the same moment, and ends each', async () => {
    const made = await enqueue(300)
    const sessions = await Promise.all(Array.from({ length: 8 }, () => arena.session()))

    const ended = await Promise.all(
      sessions.map(async (session) => {
        const [worker, mine] = [randomUUID(), [] as string[]]
        for (let [job] = await claim(session, worker, 1); job; ) {
          const answer = await finishAndClaim(session, job, worker)
          if (answer.status === 'completed') mine.push(job.job_id)
          job = answer.next[0] ?? (await claim(session, worker, 1))[0]
        }
        return mine
      }),
    )

    expect(ended.flat().sort()).toEqual(made.sort())
    const left = await arena.sql`
      select from pgmq.q_jobs union all select from private.job_work
      union all select from public.jobs where status <> 'completed' or attempts <> 1`
    expect(left).toHaveLength(0)
  })

  it('changes nothing with a stale token, and gets a job all the same', async () => {
    const [session, worker] = [await arena.session(), randomUUID()]
    const [first, second] = await enqueue(2)
    const [job] = await claim(session, worker, 1)

    const answer = await finishAndClaim(session, { ...job!, lease_token: randomUUID() }, worker)

    expect(answer).toMatchObject({ status: 'lost_lease', next: [{ job_id: second, attempt: 1 }] })
    expect(await statusOf(first!)).toBe('active')
    expect(await finishAndClaim(session, job!, worker)).toEqual({ status: 'completed', next: [] })
  })

  it('puts a job back that is to be tried again, or ends it, as one that is finished alone', async () => {
    const [session, worker] = [await arena.session(), randomUUID()]
    await enqueue(2)
    const [one] = await claim(session, worker, 1)

    const retried = await finishAndClaim(session, one!, worker, { status: 'retry', retry_after_seconds: 60 })
    const failed = await finishAndClaim(session, retried.next[0]!, worker, { status: 'failed' })

    expect([retried.status, failed.status, failed.next]).toEqual(['waiting', 'failed', []])
    expect(await statusOf(one!.job_id)).toBe('waiting')
  })
})

describe('the floor', () => {
  /** Claims everything visible, so that the worker's floor rises, and returns how far. */
  async function drain(session: Session, worker: string): Promise<number> {
    while ((await claim(session, worker, 100)).length > 0) {}
    const [row] = await arena.sql`select floors[2]::int as floor from private.workers where id = ${worker}`
    return row!.floor
  }
  const messageOf = async (id: string): Promise<number> =>
    (await arena.sql`select msg_id::int from private.job_work where job_id = ${id}`)[0]!.msg_id
  const nextJobs = (session: Session, worker: string) =>
    until(async () => {
      const jobs = await claim(session, worker)
      return jobs.length > 0 && ids(jobs)
    })

  it('does not lose a job whose transaction commits after later ones were taken', async () => {
    const [slow, session, worker] = [await arena.session(), await arena.session(), randomUUID()]
    await slow.begin('postgres')
    const late = await slow.value<string>(`select private.enqueue_job('erase', null, '{}')`)
    await enqueue(2000)
    const floor = await drain(session, worker)

    await slow.commit()

    // The hint has passed the late message; the beat of the next second lowers it.
    expect(floor).toBeGreaterThan(await messageOf(late))
    expect(await nextJobs(session, worker)).toEqual([late])
  })

  it('is lowered for a delayed job that becomes visible below it', async () => {
    const [session, worker] = [await arena.session(), randomUUID()]
    const [delayed] = await enqueue(1, '1 hour')
    await enqueue(2000)
    const floor = await drain(session, worker)

    const message = await messageOf(delayed!)

    await arena.sql`update pgmq.q_jobs set vt = clock_timestamp() where msg_id = ${message}`

    expect(floor).toBeGreaterThan(message)
    expect(await nextJobs(session, worker)).toEqual([delayed])
  })

  it('delays and never loses when it is wrong: once a minute a worker looks at everything', async () => {
    const [session, worker] = [await arena.session(), randomUUID()]
    await claim(session, worker)
    const [made] = await enqueue()
    await arena.sql`update pgmq.q_jobs set vt = vt - interval '1 hour'`
    await arena.sql`update private.workers set floors = array[1000000000, 1000000000, 1000000000], seen_at = clock_timestamp()`
    expect(await claim(session, worker)).toEqual([])

    await arena.sql`update private.workers set swept_at = swept_at - interval '1 minute'`

    expect(ids(await claim(session, worker))).toEqual([made])
  })
})

describe('enqueueing', () => {
  it('makes one job for one dedupe key from ten sessions at once', async () => {
    const sessions = await Promise.all(Array.from({ length: 10 }, () => arena.session()))
    const [first, ...others] = sessions as [Session, ...Session[]]
    const statement = `select private.enqueue_job('erase', null, '{}', dedupe_key => 'same')`
    await first.begin('postgres')
    const made = await first.value<string>(statement)
    const answers = others.map((session) => session.call<string>('postgres', statement))
    await arena.blocked(...others)

    await first.commit()

    expect(new Set(await Promise.all(answers))).toEqual(new Set([made]))
    expect(await arena.sql`select 1 from pgmq.q_jobs`).toHaveLength(1)
  })

  it('leaves nothing when its transaction is rolled back', async () => {
    const session = await arena.session()
    await session.begin('postgres')
    const id = await session.value<string>(`select private.enqueue_job('erase', null, '{}')`)
    await session.sql.unsafe('rollback')

    expect(await statusOf(id)).toBeUndefined()
    expect(await arena.sql`select 1 from pgmq.q_jobs`).toHaveLength(0)
  })

  it('calls one worker when many sessions enqueue at once and none is alive', async () => {
    await arena.sql`
      select vault.create_secret('http://127.0.0.1:9/worker', 'worker_url')
      where not exists (select from vault.secrets where name = 'worker_url')`
    await arena.sql`
      select vault.create_secret('a secret', 'worker_secret')
      where not exists (select from vault.secrets where name = 'worker_secret')`
    await arena.sql`update private.worker_wake_up set called_at = '-infinity'`
    await arena.sql`delete from net.http_request_queue`
    const sessions = await Promise.all(Array.from({ length: 8 }, () => arena.session()))
    await Promise.all(sessions.map((session) => session.begin('postgres')))

    // All eight transactions are open while each enqueues: nobody waits for the one that calls.
    for (const session of sessions) await session.value(`select private.enqueue_job('erase', null, '{}')`)
    await Promise.all(sessions.map((session) => session.commit()))

    const calls = await arena.sql`select url, headers from net.http_request_queue`
    expect(calls).toHaveLength(1)
    expect(Object.values(calls[0]!.headers as object).join()).toContain('Bearer ')
  })
})

describe('states', () => {
  it('move along their edges only, whoever writes', async () => {
    const edges: Record<string, string[]> = {
      waiting: ['active', 'completed', 'failed', 'cancelled'],
      active: ['waiting', 'completed', 'failed', 'cancelled'],
      failed: ['waiting'],
    }
    const states = ['waiting', 'active', 'completed', 'failed', 'cancelled']
    const [job] = await enqueue()

    await fc.assert(
      fc.asyncProperty(fc.array(fc.constantFrom(...states), { minLength: 1, maxLength: 8 }), async (path) => {
        await arena.sql
          .begin(async (sql) => {
            let now = 'waiting'
            for (const next of path) {
              const over = next !== 'waiting' && next !== 'active'
              const moved = await refusal(
                sql.savepoint(
                  (point) => point`
                    update public.jobs set status = ${next}, finished_at = ${over ? new Date() : null} where id = ${job!}`,
                ),
              )
              const allowed = next === now || (edges[now] ?? []).includes(next)
              expect(moved, `${now} to ${next}`).toMatch(allowed ? /^no refusal/ : /^status_edge_forbidden$/)
              if (allowed) now = next
            }
            throw new Error('undo')
          })
          .catch((error) => {
            if (error.message !== 'undo') throw error
          })
      }),
      { numRuns: 60 },
    )
  })
})
