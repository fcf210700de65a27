import postgres from 'postgres'
import { databaseUrl, type LoginRole, type Stack } from '../stack.ts'
import { parseSchedule, type Schedule } from './schedule.ts'

interface Job {
  jobid: string
  schedule: string
  command: string
  database: string
  username: string
}

interface State {
  running: boolean
  /** A minute came while the job was still running: it runs once more afterwards. */
  owed: boolean
  lastStart: number
}

/** pg_cron's cron.max_running_jobs. */
const mostRunning = 32
const applicationName = 'pg_cron'

/**
 * Runs the jobs of `cron.job` when they are due, each in a connection of its own as the user who scheduled it, never two
 * runs of one job at a time, and keeps `cron.job_run_details`.
 */
export function startCron(
  stack: Stack,
  sql: postgres.Sql,
  report: (error: unknown) => void,
): { stop(): Promise<void> } {
  const states = new Map<string, State>()
  const runs = new Set<Promise<void>>()
  const open = new Set<postgres.Sql>()
  let lastMinute = minuteOf(Date.now())
  let recovered = false
  let stopped = false
  let timer: ReturnType<typeof setTimeout>

  async function tick() {
    try {
      if (!recovered) await recover()
      const now = Date.now()
      const minute = minuteOf(now)
      const jobs = await sql<
        Job[]
      >`select jobid, schedule, command, database, username from cron.job where active order by jobid`
      if (stopped) return
      for (const job of jobs) {
        const state = states.get(job.jobid) ?? { running: false, owed: false, lastStart: now }
        states.set(job.jobid, state)
        if (isDue(job, state, now, minute)) state.owed = true
        if (state.owed && !state.running && runs.size < mostRunning) launch(job, state, now)
      }
      for (const jobid of states.keys()) if (!jobs.some((job) => job.jobid === jobid)) states.delete(jobid)
      // After the jobs were read: a database that was away does not cost the minute.
      lastMinute = minute
    } catch (error) {
      report(error)
    } finally {
      if (!stopped) timer = setTimeout(tick, 1000 - (Date.now() % 1000))
    }
  }

  function isDue(job: Job, state: State, now: number, minute: number): boolean {
    const schedule = schedules.get(job.schedule)
    if (!schedule) return false
    if ('seconds' in schedule) return !state.running && now - state.lastStart >= schedule.seconds * 1000 - 50
    return minute !== lastMinute && schedule.matches(new Date(minute * 60_000))
  }

  /** What a scheduler that was killed left behind: statements that still run, and rows that say so. */
  async function recover() {
    await sql`
      with left_behind as (
        update cron.job_run_details
        set status = 'failed', return_message = 'server restarted', end_time = clock_timestamp()
        where status in ('starting', 'connecting', 'sending', 'running') returning job_pid)
      select pg_terminate_backend(pid) from pg_stat_activity
      where application_name = ${applicationName} and pid in (select job_pid from left_behind)`
    recovered = true
  }

  function launch(job: Job, state: State, now: number) {
    Object.assign(state, { running: true, owed: false, lastStart: now })
    const run = perform(job)
      .catch(report)
      .finally(() => {
        state.running = false
        runs.delete(run)
      })
    runs.add(run)
  }

  async function perform(job: Job): Promise<void> {
    const [row] = await sql`
      insert into cron.job_run_details (jobid, database, username, command, status, start_time)
      values (${job.jobid}, ${job.database}, ${job.username}, ${job.command}, 'starting', clock_timestamp()) returning runid`
    const connection = connect(stack, job)
    open.add(connection)
    let outcome: { status: string; message: string }
    try {
      await assumeRole(connection, job.username)
      const [session] = await connection`select pg_backend_pid() as pid`
      await sql`update cron.job_run_details set status = 'running', job_pid = ${session!.pid} where runid = ${row!.runid}`
      outcome = { status: 'succeeded', message: tagOf(await connection.unsafe(job.command)) }
    } catch (error) {
      outcome = { status: 'failed', message: stopped ? 'server restarted' : messageOf(error) }
    } finally {
      open.delete(connection)
      await connection.end({ timeout: 1 }).catch(() => {})
    }
    await settle(row!.runid, outcome)
  }

  /** The database may be restarting, which is why the run failed: its record is worth waiting for. */
  async function settle(runid: string, { status, message }: { status: string; message: string }) {
    for (let attempt = 1; ; attempt++) {
      try {
        await sql`
          update cron.job_run_details set status = ${status}, return_message = ${message}, end_time = clock_timestamp()
          where runid = ${runid}`
        return
      } catch (error) {
        if (stopped || attempt === 20) throw error
        await new Promise((resolve) => setTimeout(resolve, 500))
      }
    }
  }

  timer = setTimeout(tick, 0)
  return {
    async stop() {
      stopped = true
      clearTimeout(timer)
      for (const connection of open) connection.end({ timeout: 0 }).catch(() => {})
      await Promise.race([Promise.all(runs), new Promise((resolve) => setTimeout(resolve, 1000))])
    },
  }
}

const minuteOf = (ms: number) => Math.floor(ms / 60_000)

/** Parsed once each; a schedule that cannot be read is said once and never due. */
const schedules = new (class {
  #parsed = new Map<string, Schedule | null>()
  get(text: string): Schedule | null {
    if (!this.#parsed.has(text)) {
      try {
        this.#parsed.set(text, parseSchedule(text))
      } catch (error) {
        console.error('cron:', (error as Error).message)
        this.#parsed.set(text, null)
      }
    }
    return this.#parsed.get(text)!
  }
})()

const isLoginRole = (stack: Stack, name: string): name is LoginRole => Object.hasOwn(stack.database.passwords, name)

function connect(stack: Stack, job: Job): postgres.Sql {
  const role = isLoginRole(stack, job.username) ? job.username : 'supabase_admin'
  return postgres(databaseUrl(stack, role, job.database), {
    max: 1,
    connect_timeout: 10,
    connection: { application_name: applicationName },
    onnotice: () => {},
  })
}

/** A role without a password of its own here: pg_cron would log in as it without one. */
async function assumeRole(connection: postgres.Sql, username: string): Promise<void> {
  const [row] = await connection`select session_user as name`
  if (row!.name !== username) await connection`set session authorization ${connection(username)}`
}

/** What pg_cron notes: the command tag, or the number of rows of a query. */
function tagOf(result: unknown): string {
  const last = (
    Array.isArray((result as unknown[])[0]) ? (result as postgres.RowList<postgres.Row[]>[]).at(-1) : result
  ) as postgres.RowList<postgres.Row[]> | undefined
  if (!last?.command) return ''
  if (last.columns?.length) return `${last.length} row${last.length === 1 ? '' : 's'}`
  return /^(UPDATE|DELETE|MERGE)$/.test(last.command)
    ? `${last.command} ${last.count}`
    : last.command === 'INSERT'
      ? `INSERT 0 ${last.count}`
      : last.command
}

function messageOf(error: unknown): string {
  if (error instanceof postgres.PostgresError) {
    return `${error.severity}:  ${error.message}${error.detail ? `\nDETAIL:  ${error.detail}` : ''}\n`
  }
  return `${error instanceof Error ? error.message : String(error)}\n`
}
