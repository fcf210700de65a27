import type postgres from 'postgres'
import { isConnectionError } from './errors.ts'
import type { Connection, Pool } from './pool.ts'
import type { Claims } from './tokens.ts'

/** Whom and what one transaction of the Data API or of Storage runs for. */
export interface Caller {
  claims: Claims
  readOnly: boolean
  /** Further settings that hold for the transaction: `request.method`, `search_path`, `storage.operation` … */
  settings: Record<string, string>
}

/** Rolls the transaction back and becomes the result of `run`. */
export class Rollback<T> {
  constructor(readonly result: T) {}
}

export interface Sessions {
  /** Runs `work` in one transaction as the caller's role; commits unless it throws or returns a Rollback. */
  run<T>(caller: Caller, work: (session: Session) => Promise<T | Rollback<T>>): Promise<T>
  /** Reads the settings of the API roles again (`alter role authenticated set statement_timeout = …`). */
  reloadSettings(): Promise<void>
  /** Forgets plans and types that a changed schema may have made wrong. */
  forget(): void
}

export interface Session {
  query(text: string, parameters?: readonly unknown[]): Promise<postgres.RowList<postgres.Row[]>>
}

/** Distinct statements that each connection keeps prepared, and that are watched for coming again. */
const PREPARED = 256
const SEEN = 1_000

/** The one way in which requests use the database. */
export function createSessions(pool: Pool): Sessions {
  let roleSettings: Promise<Map<string, Record<string, string>>> | undefined
  const seen = new Set<string>()
  const worth = new Set<string>()

  /** A statement is prepared when it comes a second time: long `in` lists and bulk inserts rarely do. */
  function worthPreparing(text: string): boolean {
    if (worth.has(text)) return true
    if (!seen.has(text)) {
      if (seen.size >= SEEN) seen.clear()
      seen.add(text)
      return false
    }
    if (worth.size >= PREPARED) return false
    worth.add(text)
    return true
  }

  async function settingsOf(role: string): Promise<Record<string, string> | undefined> {
    roleSettings ??= readRoleSettings(pool)
    const reading = roleSettings
    try {
      return (await reading).get(role)
    } catch (error) {
      if (roleSettings === reading) roleSettings = undefined
      throw error
    }
  }

  async function transact<T>(
    connection: Connection,
    settings: Record<string, string>,
    readOnly: boolean,
    work: (session: Session) => Promise<T | Rollback<T>>,
  ): Promise<T> {
    const query = (text: string, parameters: readonly unknown[] = [], prepare = false) => {
      // The driver would connect again, and the statement reach a session outside this transaction, as nobody.
      if (connection.isLost) return connection.lost
      // `execute` puts it in line at once; left alone, it would go in line only when somebody awaits it.
      return connection.sql.unsafe(text, parameters as never[], { prepare }).execute()
    }
    const session: Session = {
      query(text, parameters) {
        return query(text, parameters, worthPreparing(text))
      },
    }
    const names = Object.keys(settings)
    const context = `select ${names.map((_, i) => `set_config($${2 * i + 1}, $${2 * i + 2}, true)`).join(', ')}`
    try {
      // In one message, and before anything of `work` is in line: a value that the driver fails to serialise rejects
      // whatever statement is under way, which then must not be another one.
      await Promise.all([
        query(readOnly ? 'begin read only' : 'begin'),
        query(context, Object.entries(settings).flat(), true),
      ])
      const outcome = await work(session)
      if (outcome instanceof Rollback) {
        await query('rollback')
        return outcome.result
      }
      const committed = query('commit')
      // Nothing of a read-only transaction can fail to be kept, so its answer need not wait.
      if (readOnly) committed.catch(() => {})
      else await committed
      return outcome
    } catch (error) {
      await query('rollback').catch(() => {})
      throw error
    }
  }

  return {
    async run(caller, work) {
      const { claims, readOnly } = caller
      const settings = {
        role: claims.role,
        'request.jwt.claims': JSON.stringify(claims),
        ...(await settingsOf(claims.role)),
        ...caller.settings,
      }
      let hasBegun = false
      const attempt = () =>
        pool.use((connection) =>
          transact(connection, settings, readOnly, (session) => {
            hasBegun = true
            return work(session)
          }),
        )
      try {
        return await attempt()
      } catch (error) {
        // An idle connection that the database has closed shows it only when it is used.
        if (hasBegun || !isConnectionError(error)) throw error
        return await attempt()
      }
    },
    async reloadSettings() {
      roleSettings = undefined
      await settingsOf('anon')
    },
    forget() {
      worth.clear()
      pool.renew()
    },
  }
}

/**
 * Settings of anon, authenticated and service_role over those of authenticator, as PostgREST applies them: `set role`
 * alone does not bring a role's settings with it.
 */
async function readRoleSettings(pool: Pool): Promise<Map<string, Record<string, string>>> {
  const rows = await pool.use(
    ({ sql }) => sql<{ rolname: string; rolconfig: string[] | null }[]>`
    select rolname, to_jsonb(rolconfig) as rolconfig from pg_roles
    where rolname in ('authenticator', 'anon', 'authenticated', 'service_role')`,
  )
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
