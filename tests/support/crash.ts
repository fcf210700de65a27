import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import type postgres from 'postgres'
import type { LoginRole, Stack } from '../../supabase/local/stack.ts'
import { afterThis, type Run, until } from '../local/fixtures/processes.ts'
import { attach, events, named, type StreamEvent, send, type Talk } from './chat.ts'

/** What tests of crashes do to a stack of their own: kill and freeze its children, hold its rows, let its time pass. */

/** What each child answers, well or not, as soon as it serves. */
const probes = {
  platform: '/rest/v1/',
  functions: '/functions/v1/health/live',
  worker: '/functions/v1/worker',
  sandbox: '/sandbox/openai/log',
}
export type Child = keyof typeof probes

/** Ends a child at once, and waits until another one serves in its place. */
export async function kill(running: Run, child: Child): Promise<void> {
  const before = running.pids()[child]!
  const sql = running.sql()
  const sessions = await sql`select pid from pg_stat_activity where application_name = 'parlor-functions'`
  process.kill(before, 'SIGKILL')
  await until(() => running.pids()[child] !== before)
  // A claim that waits for work waits on, and may take a job for the dead.
  const pids = sessions.map(({ pid }) => pid)
  await until(async () => {
    const claims = await sql`
      select from pg_stat_activity where pid = any (${pids}) and state = 'active' and query ~ 'service\\.claim_jobs'`
    return child !== 'worker' || claims.length === 0
  })
  await serving(running, child)
}

/** Resolves when a child that has just started serves. */
export const serving = (running: Run, child: Child) =>
  until(async () => (await fetch(running.stack().url + probes[child])).status < 500)

/** Stops a child as a busy machine would: it does nothing, and knows nothing of it when it goes on. */
export function freeze(running: Run, child: Child): () => void {
  const pid = running.pids()[child]!
  process.kill(pid, 'SIGSTOP')
  const thaw = () => {
    try {
      process.kill(pid, 'SIGCONT')
    } catch {
      // It was killed meanwhile.
    }
  }
  afterThis(thaw)
  return thaw
}

/** Holds what `statement` locks, in a session of its own, until it is let go. */
export async function hold(running: Run, statement: string, values: string[] = [], role: LoginRole = 'postgres') {
  const holder = running.sql(role)
  await holder.unsafe('begin')
  await holder.unsafe(statement, values)
  return (): Promise<unknown> => holder.unsafe('commit')
}

/** Resolves, with the session, when a function of schema service that a child has called waits for a lock. */
export const waiting = (sql: postgres.Sql, call: string) =>
  until(async () => {
    const [session] = await sql<{ pid: number }[]>`
      select pid from pg_stat_activity
      where application_name = 'parlor-functions' and query ~ ${`service\\.${call}\\(`} and wait_event_type = 'Lock'`
    return session?.pid
  })

/** Rolls back what a dead child had asked for: while it waits for a lock, Postgres does not notice that nobody listens. */
export async function rollBack(sql: postgres.Sql, pid: number): Promise<void> {
  await sql`select pg_terminate_backend(${pid})`
  await until(async () => (await sql`select from pg_stat_activity where pid = ${pid}`).length === 0)
}

/** Half a minute later: leases of the dead have run out, and nobody has heard of their worker for a while. */
export async function halfAMinutePasses(sql: postgres.Sql): Promise<void> {
  await sql`update pgmq.q_jobs set vt = vt - interval '31 seconds'`
  await sql`update private.workers set seen_at = seen_at - interval '31 seconds'`
  await sql`update private.worker_wake_up set called_at = called_at - interval '31 seconds'`
  await sql`select private.reap_generations(clock_timestamp() + interval '31 seconds')`
  await sql`select private.admit_due_jobs(clock_timestamp() + interval '31 seconds')`
  await sql`select private.sweep_jobs()`
}

/** Has the sweep, which finds work that nobody is at, come every second. */
export async function sweepOften(sql: postgres.Sql): Promise<void> {
  await sql`select cron.schedule(jobname, '1 second', command) from cron.job where jobname = 'sweep-jobs'`
}

/** The next sweep, now, long after the last call of a worker. */
export async function sweep(sql: postgres.Sql): Promise<void> {
  await sql`update private.worker_wake_up set called_at = '-infinity'`
  await sql`select private.sweep_jobs()`
}

/**
 * Asks, and reads as a client does: with the same key until it is told the answer's name, then on from the last event
 * seen, until the answer has ended.
 */
export function asking(talk: Talk, content: string, run: string, { url }: Stack) {
  const functions = `${url}/functions/v1`
  const headers = { 'idempotency-key': content }
  const all: StreamEvent[] = []
  const done = until(async () => {
    const { generation_id } = named(all, 'connected')?.data ?? {}
    const seen = all.findLast(({ id }) => id)?.id
    const response = generation_id
      ? await attach(talk.person, generation_id, seen, functions)
      : await send(talk, { content, headers, body: { run }, functions })
    for await (const event of events(response)) all.push(event)
    return all.at(-1)?.data === '[DONE]'
  }, 60_000)
  // A test that fails before it waits for the end has said why.
  done.catch(() => {})
  return { all, done }
}

/** What a program that has just started reads of a conversation, as the person: messages, answers and jobs. */
export async function readAfresh({ person, conversationId }: Talk, { url, keys }: Stack) {
  const read = `
    const [base, apikey, token, id] = process.argv.slice(1)
    const get = async (path) => (await fetch(base + '/rest/v1/' + path, { headers: { apikey, authorization: 'Bearer ' + token } })).json()
    const messages = await get('messages?select=role,content,status&order=id&conversation_id=eq.' + id)
    const generations = await get('generations?select=id,status,attempt,usage,job_id&conversation_id=eq.' + id)
    const jobs = await get('jobs?select=status,result&id=in.(' + generations.map(({ job_id }) => job_id) + ')')
    console.log(JSON.stringify({ messages, generations, jobs }))`
  const args = ['--input-type=module', '-e', read, url, keys.publishable, person.token, conversationId]
  const { stdout } = await promisify(execFile)(process.execPath, args)
  return JSON.parse(stdout)
}
