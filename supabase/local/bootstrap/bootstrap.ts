import { createRequire } from 'node:module'
import { gunzipSync } from 'node:zlib'
import { exitCode, Failure } from '../failure.ts'
import { type Sql, withConnection } from '../sql.ts'
import { databaseUrl, type Stack } from '../stack.ts'

const files = (...names: string[]) =>
  names.map((name) => Deno.readTextFileSync(new URL(`./${name}`, import.meta.url))).join('\n')

/** Bumped with every change of a bootstrap file: a database of an older one is brought up to date at the next start. */
const version = 2

type Connection = Pick<Stack, 'database' | 'keys'>

/**
 * Gives one database what hosted Supabase gives a project, so that migrations run unmodified as a `postgres` that is no
 * superuser. Safe to repeat and to be interrupted; a finished bootstrap is remembered by its version in the database.
 */
export async function bootstrap(stack: Connection, database = stack.database.name): Promise<void> {
  const admin = <T>(work: (sql: Sql) => Promise<T>) => withConnection(stack, 'supabase_admin', work, database)

  const done = await admin(async (sql) => {
    const [row] = await sql`select current_setting('supabase_local.version', true)::int as version`
    return row?.version ?? 0
  })
  if (done > version) {
    throw new Failure(
      'This data was made by a newer version of the local stack.',
      exitCode.data,
      'Update the project, or run `npm run reset` to make the data anew.',
    )
  }
  if (done === version) return await admin((sql) => setPasswords(sql, stack))

  await admin(async (sql) => {
    await sql.unsafe(files('10_roles.sql'))
    await setPasswords(sql, stack)
    await sql.unsafe(files('20_schemas.sql'))
  })
  await createAuthTables(stack, database)
  await admin(async (sql) => {
    await sql.unsafe(files('30_auth.sql', '40_storage.sql', '50_realtime.sql'))
    const standIns: Record<string, { schema: string; version: string }> = {}
    for (const { extension, schema, version, install, afterCreate } of extensions) {
      if (await createReal(sql, extension, schema)) {
        await sql.unsafe(afterCreate ?? '')
        continue
      }
      await install(sql)
      standIns[extension] = { schema, version }
    }
    await registerStandIns(sql, standIns)
    await sql.unsafe(files('70_guard.sql'))
    await sql.unsafe(`alter database "${database}" set supabase_local.version = '${version}'`)
  })
}

/** At each start: a server that DATABASE_URL names may have been used with another data folder, and so other passwords. */
async function setPasswords(sql: Sql, { database }: Connection): Promise<void> {
  for (const [role, password] of Object.entries(database.passwords)) {
    await sql.unsafe(`alter role ${role} with login password '${password.replaceAll("'", "''")}'`)
  }
}

/**
 * Extensions of hosted Supabase that a bare Postgres may lack: what stands in for each, and what hosted grants after it
 * has made the real one.
 */
const extensions: Extension[] = [
  {
    extension: 'supabase_vault',
    schema: 'vault',
    version: '0.3.1',
    install: script('60_vault.sql'),
    afterCreate: `grant usage on schema vault to postgres with grant option;
      grant usage on schema vault to service_role;
      grant select, delete on vault.secrets, vault.decrypted_secrets to postgres with grant option;
      grant select, delete on vault.secrets, vault.decrypted_secrets to service_role;
      grant execute on function vault.create_secret, vault.update_secret to postgres with grant option;
      grant execute on function vault.create_secret, vault.update_secret to service_role`,
  },
  {
    extension: 'pg_cron',
    schema: 'cron',
    version: '1.6.4',
    install: script('61_cron.sql'),
    afterCreate: `grant usage on schema cron to postgres with grant option;
      grant execute on all functions in schema cron to postgres with grant option;
      grant select on cron.job to postgres with grant option;
      grant select, insert, update, delete, truncate, references on cron.job_run_details to postgres with grant option`,
  },
  {
    extension: 'pg_net',
    schema: 'net',
    version: '0.20.0',
    install: script('62_net.sql'),
    afterCreate: 'grant usage on schema net to postgres, anon, authenticated, service_role',
  },
  { extension: 'vector', schema: 'extensions', version: '0.8.0', install: script('63_vector.sql') },
  {
    extension: 'pgmq',
    schema: 'pgmq',
    version: '1.5.1',
    install: installPgmq,
    afterCreate: files('64_pgmq_owner.sql'),
  },
  { extension: 'pgtap', schema: 'extensions', version: '1.3.5', install: installPgtap },
]

interface Extension {
  extension: string
  schema: string
  version: string
  install(sql: Sql): Promise<void>
  afterCreate?: string
}

function script(name: string) {
  return async (sql: Sql) => {
    await sql.unsafe(files(name))
  }
}

/** Whether the real extension is here or can be made here; pg_cron for one refuses all databases but one. */
async function createReal(sql: Sql, extension: string, schema: string): Promise<boolean> {
  const [row] = await sql`
    select exists (select from pg_extension where extname = ${extension}) as made,
      exists (select from pg_available_extensions where name = ${extension}) as available`
  if (!row?.available) return false
  if (row.made) return true
  try {
    await sql.unsafe(`create extension ${extension}${schema === 'extensions' ? ' with schema extensions' : ''}`)
    return true
  } catch {
    return false
  }
}

/** Unpacks one file of a .tar.gz that an npm package carries (ustar: 512-byte blocks, name at 0, octal size at 124). */
function fromTarball(packageName: string, tarball: string, wanted: string): string {
  const require = createRequire(createRequire(import.meta.url).resolve(packageName))
  const root = require.resolve(packageName).replace(/([\\/]dist[\\/]).*$/, '$1')
  const bytes = gunzipSync(Deno.readFileSync(`${root}${tarball}`))
  const text = (from: number, length: number) => new TextDecoder().decode(bytes.subarray(from, from + length))
  for (let at = 0; at < bytes.length; ) {
    const name = text(at, 100).replace(/\0.*$/s, '')
    const size = Number.parseInt(text(at + 124, 12), 8) || 0
    if (name.endsWith(wanted)) return text(at + 512, size)
    at += 512 + Math.ceil(size / 512) * 512
  }
  throw new Failure(`${wanted} is missing from ${packageName}`, exitCode.engine)
}

/** As on hosted, postgres owns pgmq and everything in it. */
async function installPgmq(sql: Sql): Promise<void> {
  const [row] = await sql`select to_regclass('pgmq.meta') is not null as made`
  if (row?.made) return
  const source = fromTarball('@electric-sql/pglite-pgmq', 'pgmq.tar.gz', 'pgmq--1.11.1.sql')
  await sql.unsafe(
    `begin; create schema if not exists pgmq authorization postgres; set local role postgres; ${source}; commit`,
  )
}

async function installPgtap(sql: Sql): Promise<void> {
  const [row] = await sql`select to_regprocedure('extensions.no_plan()') is not null as made`
  if (row?.made) return
  const source = fromTarball('@electric-sql/pglite', 'pgtap.tar.gz', 'extension/pgtap--1.3.5.sql')
  await sql.unsafe(`begin; set local search_path = extensions; ${source}; commit`)
}

/**
 * A row in pg_extension lets `create extension if not exists` of a migration pass, as it does on hosted. The superuser owns
 * it: to drop the row without what it stands for would leave a riddle.
 */
async function registerStandIns(sql: Sql, standIns: Record<string, { schema: string; version: string }>) {
  await sql.unsafe('set allow_system_table_mods = on')
  for (const [name, { schema, version }] of Object.entries(standIns)) {
    await sql`
      insert into pg_catalog.pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
      select pg_catalog.pg_nextoid('pg_catalog.pg_extension', 'oid', 'pg_catalog.pg_extension_oid_index'),
        ${name}, 'supabase_admin'::regrole, ${schema}::regnamespace, false, ${version}
      where not exists (select from pg_catalog.pg_extension where extname = ${name})`
  }
  await sql.unsafe('reset allow_system_table_mods')
}

/** lite makes the tables it serves, logged in as hosted's owner of them. It swallows every error, so we look ourselves. */
async function createAuthTables(stack: Connection, database: string): Promise<void> {
  const expected = ['users', 'sessions', 'refresh_tokens', 'identities', 'flow_state', 'audit_log_entries']
  const missing = () =>
    withConnection(
      stack,
      'supabase_admin',
      async (sql) => {
        const rows = await sql`select tablename from pg_tables where schemaname = 'auth'`
        const made = new Set(rows.map((row) => row.tablename))
        return expected.filter((table) => !made.has(table))
      },
      database,
    )
  if ((await missing()).length === 0) return
  const [{ App }, { createPostgresConnection }] = await Promise.all([
    import('@supabase/lite'),
    import('@supabase/lite/postgres'),
  ])
  const connection = createPostgresConnection({
    url: databaseUrl(stack as Stack, 'supabase_auth_admin', database),
    postgresOptions: { onnotice: () => {} },
  })
  try {
    const app = new App({
      connection,
      db: { migrations: { enabled: false } },
      auth: { enabled: true, jwt_secret: stack.keys.jwtSecret },
    })
    await app.ensureSystemSchema()
  } finally {
    await connection.close()
  }
  const lacking = await missing()
  if (lacking.length > 0)
    throw new Failure(`@supabase/lite did not create auth.${lacking.join(', auth.')}`, exitCode.engine)
}

/**
 * Hosted's default privileges for new objects in `public`, in either of its two states: with `autoExpose` the API roles
 * get everything, without it what remains after Studio's and the CLI's three revokes. Done at each start: config may change.
 */
export async function setDefaultPrivileges(stack: Connection, autoExpose: boolean, database = stack.database.name) {
  const kinds = ['tables', 'sequences', 'functions']
  const grants = ['postgres', 'supabase_admin'].flatMap((owner) =>
    kinds.map(
      (kind) =>
        `alter default privileges for role ${owner} in schema public grant all on ${kind} to postgres, anon, authenticated, service_role;`,
    ),
  )
  const revoked = { tables: 'select, insert, update, delete', sequences: 'usage, select', functions: 'execute' }
  const revokes = Object.entries(revoked).map(
    ([kind, verbs]) =>
      `alter default privileges for role postgres in schema public revoke ${verbs} on ${kind} from anon, authenticated, service_role;`,
  )
  await withConnection(
    stack,
    'supabase_admin',
    (sql) => sql.unsafe([...grants, ...(autoExpose ? [] : revokes)].join('\n')),
    database,
  )
}
