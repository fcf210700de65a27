import { describe, expect, it } from 'vitest'
import { startTalk } from './support/chat.ts'
import { database, signUp, until } from './support/local.ts'

/** Tasks that run by the clock, as an admin types and reads them in the dashboard and as people see what they do. */
const sql = database()

const runsOf = async (name: string) =>
  await sql<{ status: string; username: string; return_message: string }[]>`
    select d.status, d.username, d.return_message
    from cron.job as j join cron.job_run_details as d using (jobid)
    where j.jobname = ${name} and d.end_time is not null order by d.runid`

describe.concurrent('the schedules that Parlor brings', () => {
  it('S-10 are listed with when and what, are switched on, and what they call works', async () => {
    const jobs = await sql`
      select jobname as name, schedule, command, active, username from cron.job
      where jobname not like 'test-%' order by jobname`

    const names = jobs.map(({ name }) => name)
    expect(names).toEqual(expect.arrayContaining(['deliver-events', 'prune-jobs', 'reap-generations', 'sweep-jobs']))
    for (const { name, command, active, username } of jobs) {
      expect({ name, active, username }).toEqual({ name, active: true, username: 'postgres' })
      // The nightly ones too: a function that was renamed is found today.
      await expect(sql.unsafe(command), name).resolves.toBeDefined()
    }
  })

  it('S-10 run by themselves, and each run leaves its record', async () => {
    const often = await sql`
      select jobname as name from cron.job where schedule ~ 'seconds?$' and jobname not like 'test-%'`

    for (const { name } of often) {
      const runs = await until(async () => {
        const runs = await runsOf(name)
        return runs.length > 0 ? runs : null
      }, 20_000)
      expect(runs.filter(({ status, username }) => status !== 'succeeded' || username !== 'postgres')).toEqual([])
    }
    expect(often.length).toBeGreaterThanOrEqual(3)
  }, 60_000)

  it('S-10 bring an answer to its end whose runner died, while nobody asks for it', async () => {
    const { person, conversationId: conversation_id } = await startTalk({ model: 'sandbox-small' })
    const sent = await person.client.rpc('send_message', { conversation_id, content: 'Are you there?' })
    expect(sent.error).toBeNull()
    const { generation } = sent.data as unknown as { generation: { id: string } }
    const answer = async () =>
      (await person.client.from('generations').select('status, attempt').eq('id', generation.id).single()).data!
    await sql`select service.claim_generation(${generation.id})`
    expect(await answer()).toEqual({ status: 'running', attempt: 1 })

    await sql`
      update private.generation_leases set lease_until = clock_timestamp() - interval '1 second'
      where generation_id = ${generation.id}`

    const ended = await until(async () => {
      const now = await answer()
      return now.status === 'completed' ? now : null
    }, 25_000)
    expect(ended).toEqual({ status: 'completed', attempt: 2 })
  }, 45_000)
})

describe('a schedule of an admin', () => {
  it('S-10 sends dead letters again on its own, fails in the open when it is wrong, and ends when it is taken away', async () => {
    const owner = await signUp()
    const name = `test-redrive-${owner.id}`
    // A kind that no worker knows: a job of it dies of its first attempt.
    const kind = `test_${owner.id.replaceAll('-', '')}`
    await sql`insert into private.job_kinds (kind, max_attempts, meaning) values (${kind}, 1, 'For a test.')`
    const [job] = await sql`select private.enqueue_job(${kind}, ${owner.id}, '{}') as id`
    const diedAt = async () => {
      const { data } = await owner.client.from('jobs').select('status, finished_at').eq('id', job!.id).single()
      return data!.status === 'failed' ? data!.finished_at : null
    }
    const first = await until(diedAt, 20_000)

    await sql`select cron.schedule(${name}, '1 second', ${`select admin.redrive_jobs('${kind}')`})`
    await until(async () => ((await diedAt()) ?? first) > first, 20_000)

    await sql`select cron.schedule(${name}, '1 second', 'select admin.no_such_function()')`
    const failed = await until(async () => (await runsOf(name)).find(({ status }) => status === 'failed'))
    expect(failed.return_message).toContain('no_such_function')

    const [gone] = await sql`select cron.unschedule(${name}) as gone`
    expect(gone).toEqual({ gone: true })
    expect(await sql`select from cron.job where jobname = ${name}`).toHaveLength(0)
  }, 60_000)
})
