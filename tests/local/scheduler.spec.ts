import { execFile, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseSchedule } from '../../supabase/local/scheduler/schedule.ts'
import { database, session, stack, superuser, until } from '../support/local.ts'
import { denoExecutable } from './fixtures/functions-host.ts'

/** Whether cron's stand-in runs the jobs; on a server with the real pg_cron they are its own. */
const [standIn] = await superuser()`select to_regprocedure('cron._check_schedule(text)') is not null as cron`

const unique = () => randomUUID().replaceAll('-', '')

/** Schedules a job of this file's own and returns its id. */
async function schedule(when: string, command: string, name = `test-${unique()}`): Promise<string> {
  const [row] = await database()`select cron.schedule(${name}, ${when}, ${command}) as id`
  return row!.id
}

const runsOf = (id: string) => database()`select * from cron.job_run_details where jobid = ${id} order by runid`
const unschedule = (id: string) => database()`select cron.unschedule(${id}::bigint)`

describe('a schedule', () => {
  const at = (text: string) => new Date(`${text}Z`)
  const matches = (schedule: string, when: string) => {
    const parsed = parseSchedule(schedule)
    return 'matches' in parsed && parsed.matches(at(when))
  }

  it.each([
    ['* * * * *', '2026-03-01T12:34', true],
    ['*/15 * * * *', '2026-03-01T12:30', true],
    ['*/15 * * * *', '2026-03-01T12:31', false],
    ['5-10/2,59 3 * * *', '2026-03-01T03:09', true],
    ['5-10/2,59 3 * * *', '2026-03-01T03:10', false],
    ['0 0 $ * *', '2024-02-29T00:00', true],
    ['0 0 $ * *', '2024-02-28T00:00', false],
    ['0 0 * jan-mar mon', '2026-02-02T00:00', true],
    ['0 0 * jan-mar mon', '2026-04-06T00:00', false],
    // Sunday is 0 and 7.
    ['0 0 * * 7', '2026-03-01T00:00', true],
    ['0 0 * * 0', '2026-03-01T00:00', true],
    // With both days restricted one is enough; with a star, even a stepped one, both count.
    ['0 0 13 * 5', '2026-03-06T00:00', true],
    ['0 0 13 * 5', '2026-04-13T00:00', true],
    ['0 0 */2 * 5', '2026-03-06T00:00', false],
  ])('%s at %s is due: %s', (schedule, when, due) => {
    expect(matches(schedule, when)).toBe(due)
  })

  it.each([
    '',
    '* * * *',
    '60 * * * *',
    '* * 0 * *',
    '*/0 * * * *',
    '5/10 * * * *',
    '* * * foo *',
    '1,,2 * * * *',
    '0 seconds',
    '60 seconds',
    'often',
  ])('“%s” is refused, by the reader as by cron.schedule', async (text) => {
    expect(() => parseSchedule(text)).toThrow(/invalid schedule/)
    await expect(schedule(text, 'select 1')).rejects.toMatchObject({
      code: '22023',
      message: `invalid schedule: ${text}`,
    })
  })

  it.each(['$ * * * *', '* * $,1 * *', '9-5 * * * *'])('“%s” is not read', (text) => {
    expect(() => parseSchedule(text)).toThrow(/invalid schedule/)
  })

  it.each(['* * * * *', '*/15 0-6/2 1,15 jan-mar,dec mon', '0 0 $ * *', '59 seconds', '1 second'])(
    '“%s” is accepted by both',
    async (text) => {
      expect(parseSchedule(text)).toBeTruthy()
      await unschedule(await schedule(text, 'select 1'))
    },
  )

  it('is read from N seconds', () => {
    expect(parseSchedule('30 seconds')).toEqual({ seconds: 30 })
  })
})

describe('a cron job', () => {
  let everyMinute: string
  beforeAll(async () => {
    everyMinute = await schedule('* * * * *', 'select 1, 2 union all select 3, 4')
  })

  it('runs in a session of its own as the user who scheduled it, and leaves its record', async () => {
    const id = await schedule('1 second', 'select session_user')
    const [run] = await until(async () => {
      const runs = await runsOf(id)
      return runs[0]?.status === 'succeeded' ? runs : null
    })

    expect(run).toMatchObject({
      status: 'succeeded',
      return_message: '1 row',
      username: 'postgres',
      command: 'select session_user',
    })
    expect(run!.job_pid).toBeGreaterThan(0)
    expect(run!.end_time.getTime()).toBeGreaterThanOrEqual(run!.start_time.getTime())
    await unschedule(id)
  })

  it('that fails is recorded with the error, and runs again', async () => {
    const id = await schedule('1 second', 'select 1/0')
    const runs = await until(async () => {
      const runs = await runsOf(id)
      return runs.length > 1 ? runs : null
    })

    expect(runs[0]).toMatchObject({ status: 'failed', return_message: 'ERROR:  division by zero\n' })
    await unschedule(id)
  })

  it('never runs twice at a time', async () => {
    const lock = 1_000_000 + Math.floor(Math.random() * 1_000_000)
    const id = await schedule(
      '1 second',
      `do $$ begin assert pg_try_advisory_lock(${lock}), 'overlap'; perform pg_sleep(1.6); end $$`,
    )
    const runs = await until(async () => {
      const runs = (await runsOf(id)).filter((run) => run.end_time)
      return runs.length > 1 ? runs : null
    })
    await unschedule(id)

    expect(runs.map((run) => run.status)).toEqual(runs.map(() => 'succeeded'))
    expect(runs[1]!.start_time.getTime()).toBeGreaterThanOrEqual(runs[0]!.end_time.getTime())
  })

  it('runs no more once it is unscheduled', async () => {
    const id = await schedule('1 second', 'select 1')
    await until(async () => (await runsOf(id)).length > 0)
    await unschedule(id)
    const witness = await schedule('1 second', 'select 2')
    // A round that was under way may still have seen the job; the second one of a later job has not.
    await until(async () => (await runsOf(witness)).length > 1)
    const before = (await runsOf(id)).length

    await until(async () => (await runsOf(witness)).length > 3)

    expect((await runsOf(id)).length).toBe(before)
    await unschedule(witness)
  })

  it('goes on after the scheduler lost its connections', async () => {
    const id = await schedule('1 second', 'select 1')
    await until(async () => (await runsOf(id)).length > 0)

    await superuser()`select pg_terminate_backend(pid) from pg_stat_activity where application_name in ('scheduler', 'pg_cron')`

    const before = (await runsOf(id)).length
    await until(async () => (await runsOf(id)).filter((run) => run.status === 'succeeded').length > before + 1)
    await unschedule(id)
  })

  it('whose connection is ended is recorded as failed', async () => {
    const id = await schedule('1 second', 'select pg_sleep(60)')
    const pid = await until(async () => (await runsOf(id))[0]?.job_pid)

    await superuser()`select pg_terminate_backend(${pid})`

    const run = await until(async () => (await runsOf(id)).find((run) => run.status === 'failed'))
    expect(run.return_message).toMatch(/terminat|closed/i)
    await unschedule(id)
    await superuser()`select pg_terminate_backend(pid) from pg_stat_activity where query = 'select pg_sleep(60)'`
  })

  // Only the stand-in lets a role without a login have jobs: pg_cron refuses to schedule them.
  it.runIf(standIn!.cron)(
    'diff-cron-1: of a role that the stack has no password for runs without that role’s own settings',
    async () => {
      const role = `cron_${unique().slice(0, 12)}`
      await superuser().unsafe(`create role ${role}; alter role ${role} set statement_timeout = '77s'`)
      const command = `do $$ begin raise exception '% %', session_user, current_setting('statement_timeout'); end $$`
      const [row] =
        await superuser()`select cron.schedule_in_database(${role}, '1 second', ${command}, current_database(), ${role}) as id`

      const run = await until(async () => (await runsOf(row!.id)).find((run) => run.status === 'failed'))

      expect(run.return_message).toBe(`ERROR:  ${role} 0\n`)
      await superuser()`select cron.unschedule(${row!.id}::bigint)`
      await superuser().unsafe(`drop role ${role}`)
    },
  )

  it('of five fields runs at the full minute', { timeout: 70_000 }, async () => {
    const run = await until(async () => (await runsOf(everyMinute)).find((run) => run.status === 'succeeded'), 65_000)

    expect(run.start_time.getUTCSeconds()).toBeLessThan(3)
    expect(run.return_message).toBe('2 rows')
    await unschedule(everyMinute)
  })
})

describe('a net request', () => {
  interface Received {
    method: string
    url: string
    headers: IncomingHttpHeaders
    body: string
  }
  const received: Received[] = []
  let server: Server
  let base: string
  beforeAll(async () => {
    server = createServer(async (request, response) => {
      let body = ''
      for await (const chunk of request) body += chunk
      received.push({ method: request.method!, url: request.url!, headers: request.headers, body })
      if (request.url!.startsWith('/never')) return
      response.writeHead(request.url!.startsWith('/teapot') ? 418 : 200, {
        'content-type': 'text/x-test',
        'x-from': 'test',
      })
      response.end('answer with \0 NUL')
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    base = `http://127.0.0.1:${(server.address() as { port: number }).port}`
  })
  afterAll(() => {
    server.closeAllConnections()
    server.close()
  })
  const responseTo = (id: string) =>
    until(async () => (await database()`select * from net._http_response where id = ${id}`)[0])
  const seen = (path: string) => received.filter(({ url }) => url.startsWith(path))

  it('is sent with its headers and body after the commit, and its answer kept', async () => {
    const path = `/post-${unique()}`
    const [row] = await database()`
      select net.http_post(${base + path}, '{"a":"ö"}', '{"q":"1 2"}', '{"Content-Type":"application/json","x-own":"yes"}') as id`

    const response = await responseTo(row!.id)

    expect(response).toMatchObject({
      status_code: 200,
      content_type: 'text/x-test',
      content: 'answer with  NUL',
      timed_out: false,
      error_msg: null,
    })
    expect(response.headers).toMatchObject({ 'x-from': 'test' })
    expect(seen(path)).toEqual([
      expect.objectContaining({
        method: 'POST',
        url: `${path}?q=1%202`,
        body: '{"a": "ö"}',
        headers: expect.objectContaining({ 'x-own': 'yes', 'content-type': 'application/json' }),
      }),
    ])
  })

  it('is not sent before the commit, nor after a rollback', async () => {
    const path = `/rolled-back-${unique()}`
    const sql = session()
    await sql.unsafe(`begin; select net.http_get('${base}${path}')`)
    const [other] = await database()`select net.http_get(${base}) as id`
    await responseTo(other!.id)
    expect(seen(path)).toEqual([])

    await sql.unsafe('rollback')

    const [later] = await database()`select net.http_get(${base}) as id`
    await responseTo(later!.id)
    expect(seen(path)).toEqual([])
  })

  it('keeps the status of a refusal', async () => {
    const [row] = await database()`select net.http_delete(${`${base}/teapot`}) as id`

    expect(await responseTo(row!.id)).toMatchObject({ status_code: 418 })
  })

  it('that takes too long is given up and marked', async () => {
    const [row] = await database()`select net.http_get(${`${base}/never`}, timeout_milliseconds => 150) as id`

    expect(await responseTo(row!.id)).toMatchObject({
      timed_out: true,
      status_code: null,
      error_msg: 'Timeout of 150 ms reached.',
    })
  })

  it.each(['http://127.0.0.1:1/refused', 'ftp://127.0.0.1/', 'nonsense', 'http://no-such-host.invalid/'])(
    'to %s leaves the reason and harms nobody',
    async (target) => {
      const [row] = await database()`select net.http_get(${target}) as id`

      const response = await responseTo(row!.id)

      expect(response).toMatchObject({ status_code: null, timed_out: false })
      expect(response.error_msg).toBeTruthy()
    },
  )

  it('is one of many: each of several hundred is sent once', async () => {
    const path = `/many-${unique()}`
    await database()`select net.http_get(${base + path} || '?n=' || n) from generate_series(1, 450) n`

    await until(() => seen(path).length >= 450)

    expect(new Set(seen(path).map(({ url }) => url)).size).toBe(450)
    expect(seen(path).length).toBe(450)
  })

  it('is sent soon after the dispatcher lost its connections', async () => {
    await superuser()`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'scheduler'`
    const path = `/after-${unique()}`
    await database()`select net.http_get(${base + path})`

    await until(() => seen(path).length === 1)
  })
})

describe('a scheduler that is killed', () => {
  const name = `scheduler_${unique().slice(0, 12)}`
  const file = join(tmpdir(), `${name}.json`)
  let sql: postgres.Sql
  beforeAll(async () => {
    const prepare = [
      'run',
      '-A',
      '--quiet',
      'supabase/local/prepare.ts',
      join(stack.data, 'stack.json'),
      name,
      '--bootstrap-only',
    ]
    await promisify(execFile)(denoExecutable(), prepare)
    writeFileSync(file, JSON.stringify({ ...stack, database: { ...stack.database, name } }))
    const { host, port, passwords } = stack.database
    sql = postgres({ host, port, database: name, user: 'postgres', password: passwords.postgres, onnotice: () => {} })
  })
  afterAll(async () => {
    await sql.end()
    rmSync(file)
    await superuser().unsafe(`drop database ${name} with (force)`)
  })
  const start = () => spawn(denoExecutable(), ['run', '-A', '--quiet', 'tests/local/fixtures/scheduler-child.ts', file])
  const killed = async (child: ReturnType<typeof start>) => {
    child.kill('SIGKILL')
    await new Promise((resolve) => child.once('exit', resolve))
  }

  it('leaves no run behind, and runs and sends what is due when it is back', async () => {
    const first = start()
    const [row] = await sql`select cron.schedule('long', '1 second', 'select pg_sleep(300)') as id`
    const run = await until(async () => (await sql`select * from cron.job_run_details where status = 'running'`)[0])
    await killed(first)
    const [request] = await sql`select net.http_get('http://127.0.0.1:1/') as id`
    await sql`select cron.schedule('long', '1 second', 'select 1')`

    const second = start()

    await until(async () => (await sql`select from net._http_response where id = ${request!.id}`).length === 1)
    await until(
      async () =>
        (await sql`select from cron.job_run_details where jobid = ${row!.id} and status = 'succeeded'`).length > 0,
    )
    const [left] = await sql`select status, return_message from cron.job_run_details where runid = ${run.runid}`
    expect(left).toEqual({ status: 'failed', return_message: 'server restarted' })
    expect(await superuser()`select from pg_stat_activity where pid = ${run.job_pid}`).toHaveLength(0)
    await killed(second)
  })
})
