import postgres from 'postgres'
import { databaseUrl, type Stack } from '../stack.ts'
import { startCron } from './cron.ts'
import { startDispatcher } from './net.ts'

/**
 * Runs what hosted Supabase leaves to pg_cron and pg_net, each only where its stand-in is in use: the real extensions
 * have workers of their own.
 */
export async function startScheduler({ stack }: { stack: Stack }): Promise<{ stop(): Promise<void> }> {
  const sql = postgres(databaseUrl(stack, 'supabase_admin'), {
    max: 4,
    onnotice: () => {},
    connection: { application_name: 'scheduler' },
    // The stand-ins' rows are few and their tables may be made anew under us.
    prepare: false,
  })
  const [standIn] = await sql`
    select to_regprocedure('cron._check_schedule(text)') is not null as cron,
      to_regprocedure('net._enqueue(text, text, jsonb, bytea, integer)') is not null as net`
  const parts = [
    ...(standIn!.cron ? [startCron(stack, sql, reporter('cron'))] : []),
    ...(standIn!.net ? [startDispatcher(sql, reporter('net'))] : []),
  ]
  return {
    async stop() {
      await Promise.all(parts.map((part) => part.stop()))
      await sql.end({ timeout: 1 })
    },
  }
}

/** Says what is wrong once, not every second of a database restart. */
function reporter(part: string): (error: unknown) => void {
  let said = ''
  let at = 0
  return (error) => {
    const message = error instanceof Error ? error.message : String(error)
    if (message === said && Date.now() - at < 60_000) return
    said = message
    at = Date.now()
    console.error(`${part}: ${message}`)
  }
}
