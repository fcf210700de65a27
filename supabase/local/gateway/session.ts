import postgres from 'postgres'
import { databaseUrl, type Stack } from '../stack.ts'
import type { Claims } from './tokens.ts'
import { numberOrBigInt, numberOrText, parseJson } from './values.ts'

/** Whom and what one transaction of the Data API or of Storage runs for. */
export interface Caller {
  claims: Claims
  readOnly: boolean
  /** Further settings that hold for the transaction: `request.method`, `search_path`, `storage.operation` … */
  settings: Record<string, string>
}

/** All connections were busy for too long. */
export class PoolTimeout extends Error {}
/** The connection ended in the middle of the transaction; nothing of it is kept. */
export class ConnectionLost extends Error {
  readonly code = 'CONNECTION_CLOSED'
}

/** Rolls the transaction back and becomes the result of `run`. */
export class Rollback<T> {
  constructor(readonly result: T) {}
}

export interface Sessions {
  sql: postgres.Sql
  /** Runs `work` in one transaction as the caller's role; commits unless it throws or returns a Rollback. */
  run<T>(caller: Caller, work: (session: Session) => Promise<T | Rollback<T>>): Promise<T>
  /** Reads the settings of the API roles again (`alter role authenticated set statement_timeout = …`). */
  reloadSettings(): Promise<void>
  /** Forgets prepared statements: their result types may have changed with the schema. */
  forgetStatements(): void
  stop(): Promise<void>
}

export interface Session {
  query(text: string, parameters?: readonly unknown[]): Promise<postgres.RowList<postgres.Row[]>>
}

/** Distinct statements that each connection keeps prepared, and that are watched for coming again. */
const PREPARED = 256
const SEEN = 1_000
const ACQUIRE_MS = 10_000
const POOL = 10

const iso = (text: string) => text.replace(' ', 'T').replace(/([+-]\d\d)$/, '$1:00')
const same = (value: unknown) => (typeof value === 'string' ? value : String(value))
const json = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value))

/**
 * How values cross the wire, so that answers carry them as PostgREST writes them. JSON arguments arrive here as text
 * already; serialising them again would store a JSON string.
 */
const wireTypes: Record<string, postgres.PostgresType> = {
  bigint: { to: 20, from: [20], serialize: same, parse: numberOrBigInt },
  date: { to: 1082, from: [1082], serialize: same, parse: (text: string) => text },
  json: { to: 114, from: [114], serialize: json, parse: parseJson },
  jsonb: { to: 3802, from: [3802], serialize: json, parse: parseJson },
  timestamptz: { to: 1184, from: [1184], serialize: same, parse: iso },
  timestamp: { to: 1114, from: [1114], serialize: same, parse: (text: string) => text.replace(' ', 'T') },
  numeric: { to: 1700, from: [1700], serialize: same, parse: numberOrText },
  float: { to: 701, from: [700, 701], serialize: same, parse: numberOrText },
  bytea: { to: 17, from: [17], serialize: same, parse: (text: string) => text },
}

/** Connections of the login role `rest`, and the one way in which requests use them. */
export function createSessions(stack: Stack): Sessions {
  const sql = postgres(databaseUrl(stack, 'rest'), {
    max: POOL,
    onnotice: () => {},
    connection: { application_name: 'gateway', TimeZone: 'UTC' },
    types: wireTypes,
    // Connections end with the server only, and are then made again at once.
    max_lifetime: null,
    backoff: () => 0.1,
    onclose: (id) => whenClosed.get(id)?.(),
  })
  const whenClosed = new Map<number, () => void>()
  let roleSettings: Promise<Map<string, Record<string, string>>> | undefined
  const seen = new Set<string>()
  const prepared = new Set<string>()
  let generation = 0

  /** A statement is prepared when it comes a second time: long `in` lists and bulk inserts rarely do. */
  function worthPreparing(text: string): boolean {
    if (prepared.has(text)) return true
    if (!seen.has(text)) {
      if (seen.size >= SEEN) seen.clear()
      seen.add(text)
      return false
    }
    if (prepared.size >= PREPARED) return false
    prepared.add(text)
    return true
  }

  async function settingsOf(role: string): Promise<Record<string, string> | undefined> {
    roleSettings ??= readRoleSettings(sql)
    const reading = roleSettings
    try {
      return (await reading).get(role)
    } catch (error) {
      if (roleSettings === reading) roleSettings = undefined
      throw error
    }
  }

  /** A connection of its own, or an error when all are busy for too long. */
  async function reserve(): Promise<postgres.ReservedSql> {
    const reserving = sql.reserve()
    let timer: ReturnType<typeof setTimeout> | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new PoolTimeout()), ACQUIRE_MS)
    })
    try {
      return await Promise.race([reserving, late])
    } catch (error) {
      reserving.then((reserved) => reserved.release()).catch(() => {})
      throw error
    } finally {
      clearTimeout(timer)
    }
  }

  async function run<T>(caller: Caller, work: (session: Session) => Promise<T | Rollback<T>>): Promise<T> {
    const settings = {
      role: caller.claims.role,
      'request.jwt.claims': JSON.stringify(caller.claims),
      ...(await settingsOf(caller.claims.role)),
      ...caller.settings,
    }
    const context = `select ${Object.keys(settings)
      .map((_, i) => `set_config($${2 * i + 1}, $${2 * i + 2}, true)`)
      .join(', ')}`
    const reserved = await reserve()
    const lost = Promise.withResolvers<never>()
    lost.promise.catch(() => {})
    let id: number | undefined
    let isLost = false
    const query = (text: string, parameters: readonly unknown[] = [], options = {}) => {
      // A statement after the connection's end would reach the next one: outside this transaction, as nobody.
      if (isLost) return lost.promise
      // `execute` puts it in line at once; left alone, it would go in line only when somebody awaits it.
      return reserved.unsafe(text, parameters as never[], options).execute()
    }
    const session: Session = {
      query: (text, parameters) => {
        const prepare = worthPreparing(text)
        // A comment makes statements of an older schema different ones, so that none of their plans is used again.
        return query(prepare && generation > 0 ? `${text} /* ${generation} */` : text, parameters, { prepare })
      },
    }
    const onexecute = (connection: { id: number }) => {
      id = connection.id
      whenClosed.set(id, () => {
        isLost = true
        lost.reject(new ConnectionLost())
      })
      return true
    }
    try {
      // Sent together with the first statement of `work`: three messages, one round trip. When one of the first two
      // fails, what follows fails as well ("transaction is aborted"), and the first error is the one that matters.
      const begun = Promise.all([
        query(caller.readOnly ? 'begin read only' : 'begin', [], { onexecute }),
        session.query(context, Object.entries(settings).flat()),
      ])
      begun.catch(() => {})
      const outcome = await Promise.race([work(session), lost.promise]).catch(async (error) => {
        await begun
        throw error
      })
      await begun
      if (outcome instanceof Rollback) {
        await query('rollback')
        return outcome.result
      }
      const committed = query('commit')
      // Nothing of a read-only transaction can fail to be kept, so its answer need not wait.
      if (caller.readOnly) committed.catch(() => {})
      else await committed
      return outcome
    } catch (error) {
      await query('rollback').catch(() => {})
      throw error
    } finally {
      if (id !== undefined) whenClosed.delete(id)
      if (!isLost) reserved.release()
    }
  }

  return {
    sql,
    run,
    async reloadSettings() {
      roleSettings = undefined
      await settingsOf('anon')
    },
    forgetStatements() {
      generation += 1
      prepared.clear()
    },
    stop: () => sql.end({ timeout: 2 }),
  }
}

/**
 * Settings of anon, authenticated and service_role over those of authenticator, as PostgREST applies them: `set role`
 * alone does not bring a role's settings with it.
 */
async function readRoleSettings(sql: postgres.Sql): Promise<Map<string, Record<string, string>>> {
  const rows = await sql<{ rolname: string; rolconfig: string[] | null }[]>`
    select rolname, to_jsonb(rolconfig) as rolconfig from pg_roles
    where rolname in ('authenticator', 'anon', 'authenticated', 'service_role')`
  const settings = new Map(
    rows.map(({ rolname, rolconfig }) => [
      rolname,
      Object.fromEntries((rolconfig ?? []).map((entry) => splitOnce(entry, '='))),
    ]),
  )
  const base = settings.get('authenticator')
  return new Map([...settings].map(([role, own]) => [role, { ...base, ...own }]))
}

function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator)
  return [text.slice(0, at), text.slice(at + 1)]
}
