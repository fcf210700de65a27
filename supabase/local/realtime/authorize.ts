import type { Sql, TransactionSql } from 'postgres'
import type { Claims } from '../gateway/tokens.ts'

export type Extension = 'broadcast' | 'presence'

/** What policies may look at: the sub-topic, the caller's claims and some headers. */
export interface Caller {
  topic: string
  claims: Claims
  headers: Record<string, string>
}

const ROLLBACK = Symbol('rollback')

/** Runs `work` in a transaction that is always rolled back: probes leave no row. */
export async function rolledBack<T>(sql: Sql, work: (tx: TransactionSql) => Promise<T>): Promise<T> {
  let result!: T
  try {
    await sql.begin(async (tx) => {
      result = await work(tx)
      throw ROLLBACK
    })
  } catch (error) {
    if (error !== ROLLBACK) throw error
  }
  return result
}

/**
 * Which of `extensions` the caller may receive: one probe row each is inserted by the owner and looked for as the caller.
 * Probe rows have no payload and no event, and `private` is false, as on hosted; policies go by `realtime.topic()`.
 */
export function readable(sql: Sql, caller: Caller, extensions: Extension[]): Promise<Set<Extension>> {
  return rolledBack(sql, async (tx) => {
    const ids = extensions.map(() => crypto.randomUUID())
    const [, , rows] = await Promise.all([
      tx`insert into realtime.messages (id, topic, extension, inserted_at, updated_at)
         select id, ${caller.topic}, extension, now(), now()
         from unnest(${ids}::uuid[], ${extensions}::text[]) as probe (id, extension)`,
      become(tx, caller),
      tx<{ extension: Extension }[]>`select extension from realtime.messages where id = any (${ids}::uuid[])`,
    ])
    return new Set(rows.map((row) => row.extension))
  })
}

/** Whether the caller may send: an insert as the caller, without `returning`, which would ask for the read policy too. */
export async function writable(sql: Sql, caller: Caller, extension: Extension): Promise<boolean> {
  try {
    await rolledBack(sql, async (tx) => {
      await Promise.all([
        become(tx, caller),
        tx`insert into realtime.messages (topic, extension, inserted_at, updated_at)
           values (${caller.topic}, ${extension}, now(), now())`,
      ])
    })
    return true
  } catch (error) {
    if ((error as { code?: string }).code === '42501') return false
    throw error
  }
}

function become(tx: TransactionSql, { topic, claims, headers }: Caller) {
  return tx`select
    set_config('role', ${claims.role}, true),
    set_config('realtime.topic', ${topic}, true),
    set_config('request.jwt.claims', ${JSON.stringify(claims)}, true),
    set_config('request.jwt.claim.sub', ${claims.sub ?? ''}, true),
    set_config('request.jwt.claim.role', ${claims.role}, true),
    set_config('request.headers', ${JSON.stringify(headers)}, true)`
}
