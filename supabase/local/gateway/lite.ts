import { App } from '@supabase/lite'
import { createPostgresConnection } from '@supabase/lite/postgres'
import {
  type CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  Kysely,
  PostgresAdapter,
  PostgresIntrospector,
  PostgresQueryCompiler,
} from 'kysely'
import { databaseUrl, type Stack } from '../stack.ts'
import { Refusal, tooDeep, unmark } from './body.ts'
import { restError } from './errors.ts'
import type { Session } from './session.ts'
import { isDeeperThan, MAX_DEPTH } from './values.ts'

/** What lite's schema cache knows; only the parts read here. */
export interface Schema {
  tables: { name: string; schema: string }[]
  views: { name: string; schema: string }[]
  columns: { table: string; name: string; schema: string; type: string; pg_type?: string }[]
  functions?: { schema: string; name: string; arg_names: string[]; arg_types: string[] }[]
  indexes?: { schema: string; name: string }[]
  foreign_keys: { schema: string; fk_def: string }[]
  timezones?: readonly string[]
}

/** Members of lite that are private or may change: the hardening hangs on each of them. */
interface Connection {
  rlsState: string
  introspect(options?: { useCache?: boolean }): Promise<Schema>
  clearSchemaCache(): Promise<void>
  normalizeDbError(error: unknown): unknown
  withContext(
    vars: { auth: { jwt: object } },
    answer: (db: Kysely<unknown>) => Promise<unknown>,
    options?: object,
  ): Promise<unknown>
  close(): Promise<void>
}

interface Middleware {
  env: { caller: object }
  set(name: string, value: unknown): void
}

export interface Lite {
  /** Answers one request of the Data API; `caller` comes back in `Options.transaction`. */
  fetch(request: Request, caller: object): Promise<Response>
  schema(): Promise<Schema>
  reloadSchema(): Promise<void>
  stop(): Promise<void>
}

export interface Options {
  stack: Stack
  schemas: string[]
  maxRows: number
  /** Runs `answer` in a transaction that belongs to `caller`. */
  transaction(caller: object, answer: (session: Session) => Promise<Response>): Promise<Response>
}

/**
 * `@supabase/lite` as the translator of PostgREST's language, with every connection to the outside taken away: it sees
 * no key and no token (the gateway has checked them), and its statements run only inside `transaction`.
 */
export function createLite({ stack, schemas, maxRows, transaction }: Options): Lite {
  // Only the schema is read here, and by a role that sees every table: what the caller may not touch must be refused
  // with 42501 rather than look absent. Requests never run on this connection.
  const connection = createPostgresConnection({
    url: databaseUrl(stack, 'postgres'),
    postgresOptions: { max: 1, onnotice: () => {}, connection: { default_transaction_read_only: true } },
  }) as object
  checkConnection(connection)
  // Without this its first request grants ALL on every table to anon, authenticated and service_role.
  connection.rlsState = 'active'

  const introspect = connection.introspect.bind(connection)
  let cached: Promise<Schema> | undefined
  const schema = () => {
    cached ??= readSchema(introspect, new Set(schemas)).catch((error) => {
      cached = undefined
      throw error
    })
    return cached
  }
  connection.introspect = schema

  connection.withContext = (vars, answer) =>
    transaction(vars.auth.jwt, (session) => answer(new Kysely({ dialect: dialectOf(session) })) as Promise<Response>)

  quietly(connection)
  const app = new App({
    connection: connection as never,
    api: { enabled: true, schemas, max_rows: maxRows },
    auth: { enabled: false },
    storage: { enabled: false },
    studio: { enabled: false },
    db: { migrations: { enabled: false } },
    options: {
      server: {
        admin: false,
        apiKeys: false,
        middlewares: [
          (async (c: Middleware, next: () => Promise<void>) => {
            c.set('apiKeyType', 'secret')
            c.set('ignoreAuthorization', true)
            c.set('jwt', c.env.caller)
            await next()
          }) as never,
        ],
      },
    },
  } as never)
  const { server } = checkApp(app)

  return {
    fetch: async (request, caller) => await server.fetch(request, { caller }),
    schema,
    async reloadSchema() {
      await connection.clearSchemaCache()
      cached = undefined
    },
    stop: () => connection.close(),
  }
}

/** What one statement can carry in Postgres's protocol. PostgREST sends a whole body as one value. */
const MAX_VALUES = 65_534
const tooManyValues = () =>
  new Refusal(
    restError(413, '54000', `more than ${MAX_VALUES} values in one request`, null, 'Send fewer rows at once.'),
  )

/** Throws unless everything is there that the hardening takes hold of. */
export function checkConnection(connection: object): asserts connection is Connection {
  const members = connection as Partial<Connection>
  for (const member of ['introspect', 'clearSchemaCache', 'normalizeDbError', 'withContext', 'close'] as const) {
    if (typeof members[member] !== 'function') throw incompatible(`connection.${member}`)
  }
  if (members.rlsState !== 'unknown') throw incompatible('connection.rlsState')
}

interface Server {
  fetch(request: Request, env: object): Promise<Response>
}

/** The application's own handler, behind the listener that it would bring. */
export function checkApp(app: object): { server: Server } {
  const { server } = app as { server?: Partial<Server> }
  if (typeof server?.fetch !== 'function') throw incompatible('app.server.fetch')
  return { server: server as Server }
}

const incompatible = (member: string) =>
  new Error(`@supabase/lite has no ${member}: this version is not the one that the gateway hardens.`)

/**
 * Leaves in the schema cache only what the API exposes: lookups get shorter, and neither hints nor embedding can name
 * private tables.
 * lite answers a failed introspection with an empty schema, which must not be taken for the truth.
 */
async function readSchema(introspect: Connection['introspect'], exposed: Set<string>): Promise<Schema> {
  const all = await introspect({ useCache: false })
  if (all.timezones === undefined) throw new Error('The schema cache could not be read.')
  const visible = <T extends { schema: string }>(items: T[]) => items.filter((item) => exposed.has(item.schema))
  return {
    ...all,
    tables: visible(all.tables),
    views: visible(all.views),
    columns: visible(all.columns),
    functions: visible(all.functions ?? []),
    // lite takes a unique index for a one-to-one relation, also a partial one; PostgREST goes by constraints alone.
    indexes: [],
    foreign_keys: visible(all.foreign_keys).filter((key) => exposed.has(targetSchema(key))),
  }
}

/** lite keeps the schema of the table that a key refers to in the definition alone, and there only where it is needed. */
const targetSchema = ({ schema, fk_def: definition }: Schema['foreign_keys'][number]) =>
  / REFERENCES "?([^".(]+)"?\./.exec(definition)?.[1] ?? schema

/** lite writes every refused request to the error log with a stack; those are answers, not faults of this process. */
function quietly(connection: Connection) {
  const log = console.error
  let expected: unknown
  connection.normalizeDbError = (error) => {
    expected = error
    return error
  }
  console.error = (...values) => {
    if (values.length === 1 && values[0] === expected && expected !== undefined) expected = undefined
    else log(...values)
  }
}

/** Kysely over one session that already is inside its transaction. */
function dialectOf(session: Session): Dialect {
  const connection: DatabaseConnection = {
    async executeQuery<R>({ sql, parameters }: CompiledQuery) {
      const values = parameters.map(unmark)
      // The driver would serialise them by recursion; an overflow there leaves the statement without an answer for ever.
      if (values.some((value) => isDeeperThan(value, MAX_DEPTH))) throw tooDeep()
      if (values.length > MAX_VALUES) throw tooManyValues()
      const rows = await session.query(sql, values)
      const writes = /^(INSERT|UPDATE|DELETE|MERGE)$/.test(rows.command)
      return { numAffectedRows: writes ? BigInt(rows.count) : undefined, rows: Array.from(rows) as R[] }
    },
    // biome-ignore lint/correctness/useYield: the interface wants a generator; nothing here streams from Postgres
    async *streamQuery() {
      throw new Error('Streaming from the database is not supported.')
    },
  }
  const nothing = async () => {}
  return {
    createAdapter: () => new PostgresAdapter(),
    createDriver: () => ({
      init: nothing,
      acquireConnection: async () => connection,
      beginTransaction: () => Promise.reject(new Error('The request already has its transaction.')),
      commitTransaction: nothing,
      rollbackTransaction: nothing,
      releaseConnection: nothing,
      destroy: nothing,
    }),
    createIntrospector: (db) => new PostgresIntrospector(db),
    createQueryCompiler: () => new PostgresQueryCompiler(),
  }
}
