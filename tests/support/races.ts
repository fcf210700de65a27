import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { promisify } from 'node:util'
import postgres from 'postgres'
import { setEventsPerSecond } from './events-per-second.ts'
import { stack, until } from './local.ts'

/**
 * Races between database sessions, in a database of their own that no gateway, worker or scheduler serves. A session
 * acts step by step, so a test decides who holds what; `blocked` shows that the others really were waiting meanwhile.
 */
export interface Arena {
  /** The dashboard: role postgres, several connections. */
  sql: postgres.Sql
  session(): Promise<Session>
  /** Ends the sessions opened so far; for `afterEach`, since a server has few connections. */
  endSessions(): Promise<unknown>
  /** Signs somebody up, as Auth would insert them; on the plan without limits, unless another one is named. */
  person(name?: string, plan?: string): Promise<string>
  /** Resolves once all these sessions wait for a lock: the proof that they overlap with its holder. */
  blocked(...sessions: Session[]): Promise<unknown>
  close(): Promise<void>
}

export interface Session {
  pid: number
  sql: postgres.Sql
  /** Opens a transaction as a user (by id), as `service_role` or as `postgres`. */
  begin(who: string): Promise<void>
  commit(): Promise<unknown>
  /** Runs one statement as somebody, in a transaction of its own, and returns its first column of the first row. */
  call<T = never>(who: string, statement: string, values?: unknown[]): Promise<T>
  /** The same inside the open transaction. */
  value<T = never>(statement: string, values?: unknown[]): Promise<T>
}

export async function openArena(name: string): Promise<Arena> {
  const database = `${name}_${process.pid}`
  const deno = join('node_modules', '.bin', 'deno')
  await promisify(execFile)(deno, ['run', '-A', 'supabase/local/prepare.ts', join(stack.data, 'stack.json'), database])
  const opened: postgres.Sql[] = []
  const connect = (role: 'postgres' | 'supabase_admin', max: number, to = database) => {
    const { host, port, passwords } = stack.database
    const sql = postgres({ host, port, database: to, user: role, password: passwords[role], max, onnotice: () => {} })
    opened.push(sql)
    return sql
  }
  const sql = connect('postgres', 4)
  // Nobody listens here, so there is no limit on what is sent.
  await setEventsPerSecond(sql, 1_000_000)
  const sessions: postgres.Sql[] = []
  return {
    sql,
    session() {
      sessions.push(connect('postgres', 1))
      return openSession(sessions.at(-1)!)
    },
    endSessions: () => Promise.all(sessions.splice(0).map((connection) => connection.end({ timeout: 1 }))),
    async person(label = 'person', plan = 'enterprise') {
      const id = randomUUID()
      await sql`
        insert into auth.users (id, email, aud, role)
        values (${id}, ${`${label}-${id}@example.com`}, 'authenticated', 'authenticated')`
      await sql`select admin.set_plan(${id}, ${plan})`
      return id
    },
    blocked: (...sessions) =>
      until(async () => {
        const pids = sessions.map((session) => session.pid)
        const [row] = await sql`
          select count(*)::int as waiting from pg_stat_activity
          where pid = any (${pids}) and wait_event_type = 'Lock' and cardinality(pg_blocking_pids(pid)) > 0`
        return row!.waiting === sessions.length
      }),
    async close() {
      await Promise.all(opened.map((connection) => connection.end({ timeout: 1 })))
      const admin = connect('supabase_admin', 1, stack.database.name)
      await admin.unsafe(`drop database if exists ${database} with (force)`)
      await admin.end()
    },
  }
}

async function openSession(sql: postgres.Sql): Promise<Session> {
  const [row] = await sql`select pg_backend_pid() as pid`
  const begin = async (who: string) => {
    const role = who === 'service_role' || who === 'postgres' ? who : 'authenticated'
    await sql.unsafe('begin')
    await sql`
      select set_config('role', ${role}, true),
        set_config('request.jwt.claims', ${role === 'authenticated' ? JSON.stringify({ sub: who, role }) : ''}, true)`
  }
  const value = async <T>(statement: string, values: unknown[] = []) => {
    const [first] = await sql.unsafe(statement, values as never[])
    return (first && Object.values(first)[0]) as T
  }
  return {
    pid: row!.pid,
    sql,
    begin,
    value,
    commit: () => sql.unsafe('commit'),
    async call<T>(who: string, statement: string, values: unknown[] = []) {
      await begin(who)
      try {
        const answer = await value<T>(statement, values)
        await sql.unsafe('commit')
        return answer
      } catch (error) {
        await sql.unsafe('rollback')
        throw error
      }
    },
  }
}

/** The code of a refusal, for `await expect(refusal(promise)).resolves.toBe('…')`. */
export const refusal = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    (value) => `no refusal, but ${JSON.stringify(value)}`,
    (error) => (String(error.code).startsWith('PT') ? error.message : String(error.code ?? error)),
  )
