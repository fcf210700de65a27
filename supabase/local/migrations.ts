import { resolve } from 'node:path'
import { isFile, type Project } from './config.ts'
import { exitCode, Failure } from './failure.ts'
import { splitStatements } from './split.ts'
import { type Sql, withConnection } from './sql.ts'
import type { Stack } from './stack.ts'

interface Migration {
  version: string
  name: string
  file: string
  text: string
}

type Connection = Pick<Stack, 'database'>
type Notice = (text: string) => void

/** The project's migrations in order of version. Other files are named and left out, as the CLI does. */
function readMigrations(project: Project, notice: Notice): Migration[] {
  const folder = `${project.dir}/supabase/migrations`
  let names: string[]
  try {
    names = [...Deno.readDirSync(folder)]
      .filter((entry) => entry.isFile)
      .map((entry) => entry.name)
      .sort()
  } catch {
    return []
  }
  const migrations: Migration[] = []
  for (const entry of names) {
    const match = /^(\d+)_(.*)\.sql$/.exec(entry)
    if (!match) {
      if (entry.endsWith('.sql')) notice(`supabase/migrations/${entry} is skipped: its name is not <number>_<name>.sql`)
      continue
    }
    const [, version, name] = match as unknown as [string, string, string]
    const other = migrations.find((migration) => migration.version === version)
    if (other)
      throw new Failure(`Two migrations have the version ${version}: ${other.file} and ${entry}`, exitCode.migration)
    migrations.push({
      version,
      name,
      file: `supabase/migrations/${entry}`,
      text: Deno.readTextFileSync(`${folder}/${entry}`),
    })
  }
  return migrations.sort((a, b) => (a.version < b.version ? -1 : 1))
}

/**
 * Brings the database up to the project's migrations, as `postgres`, recorded as the Supabase CLI records them. Each file
 * is one transaction together with its record. Returns how many were applied.
 */
export function migrate(stack: Connection, project: Project, notice: Notice, database?: string): Promise<number> {
  const migrations = project.db.migrations.enabled ? readMigrations(project, notice) : []
  return withConnection(
    stack,
    'postgres',
    async (sql) => {
      await sql.unsafe(`
      create schema if not exists supabase_migrations;
      create table if not exists supabase_migrations.schema_migrations (version text primary key);
      alter table supabase_migrations.schema_migrations add column if not exists statements text[];
      alter table supabase_migrations.schema_migrations add column if not exists name text;
      create table if not exists supabase_migrations.seed_files (path text primary key, hash text not null);`)
      const applied = await sql`select version, statements from supabase_migrations.schema_migrations order by version`
      const pending = compare(migrations, applied as unknown as Applied[])
      for (const migration of pending) await apply(sql, migration)
      return pending.length
    },
    database,
  )
}

interface Applied {
  version: string
  statements: string[] | null
}

/** What is still to be applied; refuses data that was made from other files than the ones of today. */
function compare(migrations: Migration[], applied: Applied[]): Migration[] {
  const remedy = 'Run `npm run reset` to make the data anew.'
  const refuse = (why: string) =>
    new Failure(`The data was made from other migrations: ${why}.`, exitCode.migration, remedy)
  const known = new Map(applied.map((row) => [row.version, row]))
  for (const { version, statements } of applied) {
    const migration = migrations.find((candidate) => candidate.version === version)
    if (!migration) throw refuse(`version ${version} was applied and its file is gone`)
    if (statements && essence(statements) !== essence(splitStatements(migration.text).map(({ text }) => text))) {
      throw refuse(`${migration.file} has changed since it was applied`)
    }
  }
  const pending = migrations.filter(({ version }) => !known.has(version))
  const last = applied.at(-1)?.version
  const late = pending.find(({ version }) => last !== undefined && version < last)
  if (late) throw refuse(`${late.file} is older than ${last}, which was applied`)
  return pending
}

/** Statements without what another splitter may treat otherwise. */
const essence = (statements: string[]) => statements.join('').replace(/[\s;]+/g, '')

async function apply(sql: Sql, migration: Migration): Promise<void> {
  await sql.begin(async (transaction) => {
    await execute(transaction, migration.file, migration.text)
    await transaction`
      insert into supabase_migrations.schema_migrations (version, name, statements)
      values (${migration.version}, ${migration.name}, ${splitStatements(migration.text).map(({ text }) => text)})`
  })
  // A migration may have changed settings of the session; the next one starts afresh.
  await sql.unsafe('reset session authorization; reset all')
}

/** Runs a file statement by statement. The file is one transaction, so its own begin and commit mean nothing. */
async function execute(sql: Sql | import('postgres').TransactionSql, file: string, text: string): Promise<void> {
  for (const statement of splitStatements(text)) {
    if (/^(begin|commit|start\s+transaction|end)(\s+(work|transaction))?$/i.test(withoutComments(statement.text)))
      continue
    try {
      await sql.unsafe(statement.text)
    } catch (error) {
      throw failedStatement(file, statement, error)
    }
  }
}

const withoutComments = (text: string) => text.replace(/--[^\n]*|\/\*[\s\S]*?\*\//g, '').trim()

function failedStatement(file: string, statement: { text: string; line: number }, error: unknown): Failure {
  const { message, code, detail, hint, position } = error as {
    message: string
    code?: string
    detail?: string
    hint?: string
    position?: string
  }
  const leading = statement.text.split('\n').length - statement.text.trimStart().split('\n').length
  const offset = position ? firstLineOffset(statement.text, Number(position)) : 0
  return new Failure(
    [
      `${file}, line ${statement.line + leading + offset}: ${message}${code ? ` (${code})` : ''}`,
      detail,
      hint && `Hint: ${hint}`,
    ]
      .filter(Boolean)
      .join('\n  '),
    exitCode.migration,
    'Nothing of this file was applied.',
  )
}

/** Lines between the statement's first own line and the character Postgres points at. */
function firstLineOffset(text: string, position: number): number {
  const own = /^(?:\s|--[^\n]*\n|\/\*[\s\S]*?\*\/)*/.exec(text)?.[0].length ?? 0
  return Math.max(0, text.slice(own, position - 1).split('\n').length - 1)
}

/** Writes `[db.vault]` before the migrations run, as `supabase db push` does. Unset variables are left out. */
export function upsertVault(stack: Connection, project: Project): Promise<void> {
  const secrets = Object.entries(project.db.vault).filter(([, value]) => value !== '')
  return withConnection(stack, 'postgres', async (sql) => {
    for (const [name, value] of secrets) {
      const [known] = await sql`select id, decrypted_secret from vault.decrypted_secrets where name = ${name}`
      if (!known) await sql`select vault.create_secret(${value}, ${name})`
      else if (known.decrypted_secret !== value) await sql`select vault.update_secret(${known.id}, ${value})`
    }
  })
}

/** Runs each seed file that this database has not seen, in one transaction with its record; makes configured buckets. */
export function seed(stack: Connection, project: Project, notice: Notice): Promise<number> {
  return withConnection(stack, 'postgres', async (sql) => {
    for (const [id, bucket] of Object.entries(project.storage.buckets)) {
      await sql`
        insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types)
        values (${id}, ${id}, ${bucket.public}, ${bucket.file_size_limit}, ${bucket.allowed_mime_types})
        on conflict (id) do update set public = excluded.public, file_size_limit = excluded.file_size_limit,
          allowed_mime_types = excluded.allowed_mime_types`
    }
    if (!project.db.seed.enabled) return 0
    let count = 0
    for (const path of project.db.seed.sql_paths.flatMap((pattern) => expand(`${project.dir}/supabase`, pattern))) {
      const text = Deno.readTextFileSync(path)
      const name = path.slice(project.dir.length + 1)
      const hash = await sha256(text)
      const [seen] = await sql`select hash from supabase_migrations.seed_files where path = ${name}`
      if (seen && seen.hash !== hash) notice(`${name} has changed since it ran; \`npm run reset\` runs it again`)
      if (seen) continue
      await sql.begin(async (transaction) => {
        await execute(transaction, name, text)
        await transaction`insert into supabase_migrations.seed_files (path, hash) values (${name}, ${hash})`
      })
      count++
    }
    return count
  })
}

/** Files that match one entry of `sql_paths`, relative to `supabase/`; `*` and `?` within a path segment, sorted. */
function expand(base: string, pattern: string): string[] {
  const parts = resolve(base, pattern).split('/').slice(1)
  return parts.reduce<string[]>(
    (folders, part, at) => {
      const matches = new RegExp(
        `^${part
          .replace(/[.+^${}()|[\]\\]/g, '\\$&')
          .replaceAll('*', '.*')
          .replaceAll('?', '.')}$`,
      )
      return folders
        .flatMap((folder) => {
          if (!/[*?]/.test(part)) return [`${folder}/${part}`]
          try {
            return [...Deno.readDirSync(folder || '/')]
              .map((entry) => entry.name)
              .filter((name) => matches.test(name))
              .sort()
              .map((name) => `${folder}/${name}`)
          } catch {
            return []
          }
        })
        .filter((path) => at < parts.length - 1 || isFile(path))
    },
    [''],
  )
}

async function sha256(text: string): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text))
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('')
}
