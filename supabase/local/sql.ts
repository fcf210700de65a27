import postgres from 'postgres'
import { databaseUrl, type LoginRole, type Stack } from './stack.ts'

export type Sql = postgres.Sql

/** Connects as `role`, with one connection unless more are asked for. Close it with `end()`. */
export function connect(
  stack: Pick<Stack, 'database'>,
  role: LoginRole,
  options: { database?: string; max?: number; onclose?: () => void; lasting?: boolean } = {},
): Sql {
  return postgres(databaseUrl(stack as Stack, role, options.database), {
    max: options.max ?? 1,
    onnotice: () => {},
    connect_timeout: 10,
    onclose: options.onclose,
    // The driver renews its connections within the hour, which would give up a session's locks.
    ...(options.lasting ? { max_lifetime: null } : {}),
    connection: { application_name: 'supabase-local' },
  })
}

/** Runs `work` on a connection of its own and closes it, however it ends. */
export async function withConnection<T>(
  stack: Pick<Stack, 'database'>,
  role: LoginRole,
  work: (sql: Sql) => Promise<T>,
  database?: string,
): Promise<T> {
  const sql = connect(stack, role, { database })
  try {
    return await work(sql)
  } finally {
    await sql.end({ timeout: 2 })
  }
}
