import { resolve } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { shared } from './local/fixtures/processes.ts'
import { marker, modelRequests, releaseModel, send, signUpAt, startTalk } from './support/chat.ts'
import { serving, sweep, sweepOften } from './support/crash.ts'
import { client, database, type Person, session, signUp, until } from './support/local.ts'
import { disconnectAll, join, PRIVATE, realtimeClient, received } from './support/realtime.ts'

/** Jobs as their owner sees them, with the stack's own worker at work. */
const sql = database()

/** A job of `owner` that this worker cannot end before `release`: it erases an account whose row in Auth is locked. */
async function heldJob(owner: Person) {
  const victim = await signUp()
  await sql`update public.profiles set status = 'deleted' where id = ${victim.id}`
  const holder = session('supabase_admin')
  await holder`begin`
  await holder`select from auth.users where id = ${victim.id} for update`
  const [job] = await sql`select private.enqueue_job('erase', ${owner.id}, ${sql.json({ user_id: victim.id })}) as id`
  return { id: job!.id as string, victim, release: () => holder`rollback` }
}

/** What the person's topic says of their jobs from now on. */
async function jobEvents(person: Person) {
  const { data, error } = await person.client.rpc('me')
  if (error) throw error
  const { topic } = (Array.isArray(data) ? data[0] : data) as { topic: string }
  const channel = (await realtimeClient({ token: person.token })).channel(topic, PRIVATE)
  const events = received(channel, 'broadcast')
  await join(channel)
  return events as { event: string; payload: { job_id: string; status: string; error: { code: string } | null } }[]
}

const jobOf = async (person: Person, id: string) => {
  const { data, error } = await person.client.from('jobs').select('*').eq('id', id).maybeSingle()
  if (error) throw error
  return data!
}
const whenStatus = (person: Person, id: string, status: string) =>
  until(async () => {
    const job = await jobOf(person, id)
    return job.status === status ? job : null
  }, 40_000)

afterEach(() => disconnectAll())

describe('the owner of a job', () => {
  it('B-20 watches it start, cancels it while it runs, and hears of both', async () => {
    const [owner, stranger] = [await signUp(), await signUp()]
    const events = await jobEvents(owner)
    const job = await heldJob(owner)
    await whenStatus(owner, job.id, 'active')

    const refused = await stranger.client.rpc('cancel_job', { job_id: job.id })
    const answer = await owner.client.rpc('cancel_job', { job_id: job.id })
    const asked = await jobOf(owner, job.id)
    // The next heartbeat tells the worker, whose handler then stops at its next step.
    const hiddenUntil = async () =>
      (await sql`select vt from pgmq.q_jobs where message ->> 'job_id' = ${job.id}`)[0]!.vt.getTime() as number
    const before = await hiddenUntil()
    await until(async () => (await hiddenUntil()) > before)
    await job.release()

    expect(refused.error).toMatchObject({ message: 'job_not_found' })
    expect(answer.data).toEqual({ job_id: job.id, status: 'active', cancel_requested: true })
    expect(asked).toMatchObject({ status: 'active', cancel_requested: true })
    await whenStatus(owner, job.id, 'cancelled')
    const told = await until(() => {
      const statuses = events.filter(({ payload }) => payload.job_id === job.id).map(({ payload }) => payload.status)
      return statuses.includes('cancelled') ? statuses : null
    })
    expect(told[0]).toBe('active')
  }, 60_000)

  it('B-20 cancels it at once while it waits for their other two', async () => {
    const owner = await signUp()
    const held = [await heldJob(owner), await heldJob(owner), await heldJob(owner)]
    await whenStatus(owner, held[1]!.id, 'active')

    const answer = await owner.client.rpc('cancel_job', { job_id: held[2]!.id })
    for (const job of held) await job.release()

    expect(answer.data).toMatchObject({ status: 'cancelled', cancel_requested: false })
    for (const job of held.slice(0, 2)) await whenStatus(owner, job.id, 'completed')
  }, 60_000)

  it('K-10 hears that it failed and why, while other jobs go on; S-09 an admin sends it again', async () => {
    const [owner, other] = [await signUp(), await signUp()]
    const events = await jobEvents(owner)
    const good = await heldJob(other)
    // A payload that the handler cannot read: it fails at every attempt.
    const [bad] = await sql`select private.enqueue_job('erase', ${owner.id}, '{}', delay => '1 second') as id`
    await sql`update public.jobs set max_attempts = 2 where id = ${bad!.id}`

    const failed = await whenStatus(owner, bad!.id, 'failed')
    await good.release()

    expect(failed).toMatchObject({ attempts: 2, error: { code: 'internal_error' } })
    await until(() => events.some(({ payload }) => payload.job_id === bad!.id && payload.status === 'failed'))
    await whenStatus(other, good.id, 'completed')
    const [letter] = await sql`select kind, error from admin.dead_letters where id = ${bad!.id}`
    expect(letter).toMatchObject({ kind: 'erase', error: { code: 'internal_error' } })

    await sql`update private.job_work set payload = ${sql.json({ user_id: good.victim.id })} where job_id = ${bad!.id}`
    await sql`select admin.redrive_job(${bad!.id})`
    expect(await whenStatus(owner, bad!.id, 'completed')).toMatchObject({ attempts: 1, error: null })
  }, 90_000)
})

describe('a live worker', () => {
  it('starts a job in the moment in which it is committed, not at its next look', async () => {
    const waits: number[] = []
    for (let n = 0; n < 12; n++) {
      const [job] =
        await sql`select private.enqueue_job('erase', null, ${sql.json({ user_id: crypto.randomUUID() })}) as id`
      const row = await until(async () => {
        const [now] = await sql`
          select extract(epoch from started_at - created_at)::float8 * 1000 as ms, status from public.jobs where id = ${job!.id}`
        return now!.status === 'completed' ? now : null
      }, 40_000)
      // The first one may have woken the worker.
      if (n > 1) waits.push(row.ms)
    }
    // 20 ms of looking and a round trip, on a machine that is busy with other specs; the figure itself is the benchmark's.
    expect(waits.sort((a, b) => a - b)[5]).toBeLessThan(250)
  }, 60_000)

  it('tells a person’s other device of a changed document within moments', async () => {
    const person = await signUp()
    const events = (await jobEvents(person)) as unknown as { event: string; payload: { events: { kind: string }[] } }[]

    const { error } = await client(person.token)
      .from('documents')
      .insert({ collection: 'notes', data: { a: 1 } })

    expect(error).toBeNull()
    const heard = await until(() => events.find(({ event }) => event === 'event.recorded'), 15_000)
    expect(heard.payload.events).toMatchObject([{ kind: 'document.created', payload: { collection: 'notes' } }])
  }, 30_000)
})

describe('a worker of its own stack', () => {
  const own = shared({ project: resolve('.') })

  it('is woken by the sweep when the call that should have woken it was lost', async () => {
    const sql = own.running.sql()
    await sweepOften(sql)
    const id = await sql.begin(async (transaction) => {
      const payload = transaction.json({ user_id: crypto.randomUUID() })
      const [job] = await transaction`select private.enqueue_job('erase', null, ${payload}) as id`
      const lost = await transaction`delete from net.http_request_queue returning id`
      expect(lost).toHaveLength(1)
      return job!.id
    })

    await until(
      async () => (await sql`select from public.jobs where id = ${id} and status = 'completed'`).length,
      40_000,
    )
  }, 60_000)

  it('K-08 makes five answers at a time, and hands them on when it is stopped', async () => {
    const { running } = own
    const [stack, sql] = [running.stack(), running.sql()]
    // No model of the seed: theirs run at a provider whose answers cannot be gone on with by another worker.
    const talks = await Promise.all(
      Array.from({ length: 7 }, async () =>
        startTalk({ person: await signUpAt(stack), model: 'sandbox/stall+slow-1', sql }),
      ),
    )
    const functions = `${stack.url}/functions/v1`
    const said = marker()
    await Promise.all(
      talks.map((talk) => send(talk, { content: said, body: { run: 'queued', stream: false }, functions })),
    )
    const stalled = async () => (await modelRequests(said, stack)).filter(({ state }) => state === 'stalled').length
    await until(async () => (await stalled()) === 5, 30_000)
    const held = await sql`select job_id from private.job_work where lease_token is not null`

    const before = running.pids().worker!
    process.kill(before, 'SIGTERM')
    const after = await until(() => running.pids().worker !== before && running.pids().worker)

    expect(held).toHaveLength(5)
    const handedOver = await sql`select from private.generation_attempts where outcome = 'handed_over'`
    expect(handedOver).toHaveLength(5)
    // Who hands on wakes somebody, here the one who goes: the sweep tries again, a while later.
    await serving(running, 'worker')
    await sweep(sql)
    const answers = await until(async () => {
      await releaseModel(said, stack)
      const rows = await sql`
        select g.status, g.attempt, m.content from public.generations as g join public.messages as m on m.id = g.message_id`
      return rows.every((row) => row.status === 'completed') ? rows : null
    }, 90_000)
    expect(answers).toHaveLength(7)
    // Handed on, not lost: no answer had to begin anew.
    for (const { attempt, content } of answers) {
      expect(attempt).toBe(1)
      expect(content).toContain(said.slice(0, 40))
    }
    expect(running.pids().worker).toBe(after)
  }, 120_000)
})
