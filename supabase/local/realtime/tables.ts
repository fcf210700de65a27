import type { Sql } from 'postgres'
import type { Claims } from '../gateway/tokens.ts'
import { rolledBack } from './authorize.ts'
import { conditionOf, describe, type Filter, type Subscription } from './filters.ts'

export interface Column {
  name: string
  /** `pg_type.typname`, which clients convert by. */
  type: string
  /** As a cast names it. */
  sqlType: string
  isKey: boolean
  readers: string[]
}

export interface Table {
  name: string
  hasRls: boolean
  columns: Column[]
}

interface FilterColumn extends Column {
  oid: number
  operators: string[]
}

const ROLES = ['anon', 'authenticated', 'service_role']
const MAX_IN_VALUES = 100

/** The type's name for a cast. Written plainly, `character` and `bit` would mean one of them and cut the value. */
const castable = (sql: Sql) => sql`case when t.typname ~ '^_?(bpchar|bit)$'
  then 'pg_catalog.' || ltrim(t.typname, '_') || repeat('[]', (t.typelem <> 0)::int) else format_type(t.oid, null) end`

/** A table as it is now, which may differ from what it was at the change; null when it is gone. */
export async function describeTable(sql: Sql, oid: number): Promise<Table | null> {
  const rows = await sql<(Column & { tableName: string; hasRls: boolean })[]>`
    select format('%I.%I', n.nspname, c.relname) as "tableName", c.relrowsecurity as "hasRls",
      a.attname as name, t.typname as type, ${castable(sql)} as "sqlType",
      coalesce(a.attnum = any (k.conkey), false) as "isKey",
      array(select r from unnest(${ROLES}::text[]) r where has_column_privilege(r, c.oid, a.attnum, 'select')) as readers
    from pg_class c
      join pg_namespace n on n.oid = c.relnamespace
      join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
      join pg_type t on t.oid = a.atttypid
      left join pg_constraint k on k.conrelid = c.oid and k.contype = 'p'
    where c.oid = ${oid} order by a.attnum`
  const first = rows[0]
  return first ? { name: first.tableName, hasRls: first.hasRls, columns: [...rows] } : null
}

/** Oids of the published tables that a subscription names, after checking its columns; throws hosted's texts. */
export async function resolveTables(sql: Sql, subscription: Subscription, role: string): Promise<number[]> {
  try {
    const tables = await sql<{ oid: number }[]>`
      select format('%I.%I', schemaname, tablename)::regclass::oid as oid from pg_publication_tables
      where pubname = 'supabase_realtime'
        and schemaname like (case ${subscription.schema} when '*' then '%' else ${subscription.schema} end) escape ''
        and tablename like (case ${subscription.table} when '*' then '%' else ${subscription.table} end) escape ''`
    const oids = tables.map((table) => table.oid)
    if (oids.length > 0) await checkColumns(sql, oids, subscription, role)
    return oids
  } catch (error) {
    if (!(error instanceof Rejected) && (error as Error).name !== 'PostgresError') throw error
    throw new Rejected(
      `Unable to subscribe to changes with given parameters. An exception happened so please check your connect parameters: [${describe(subscription)}]. Exception: ${exceptionText(error as Error)}`,
    )
  }
}

/** A subscription that the database refuses; to try it again would not help. */
export class Rejected extends Error {}

async function checkColumns(sql: Sql, oids: number[], { filters, select }: Subscription, role: string): Promise<void> {
  if (filters.length === 0 && !select) return
  const columns = await sql<FilterColumn[]>`
    select a.attrelid::oid as oid, a.attname as name, ${castable(sql)} as "sqlType",
      array(select oprname from pg_operator
        where oprleft = a.atttypid and (oprname in ('~~', '~~*') or oprname in ('~', '~*') and oprright = a.atttypid)) as operators
    from pg_attribute a join pg_type t on t.oid = a.atttypid
    where a.attrelid = any (${oids}::oid[]) and a.attnum > 0 and not a.attisdropped
      and has_column_privilege(${role}, a.attrelid, a.attnum, 'select')`
  for (const oid of oids) {
    const find = (name: string) => columns.find((column) => column.oid === oid && column.name === name)
    for (const filter of filters) await checkFilter(sql, filter, find(filter.column))
    for (const name of select ?? []) if (!find(name)) throw new Rejected(`invalid column for select ${name}`)
  }
}

async function checkFilter(sql: Sql, filter: Filter, column: FilterColumn | undefined): Promise<void> {
  const { op, value } = filter
  if (!column) throw new Rejected(`invalid column for filter ${filter.column}`)
  const { sqlType, operators } = column
  if (op === 'is') {
    if (!['null', 'true', 'false', 'unknown'].includes(value)) {
      throw new Rejected('invalid value for is filter: must be null, true, false, or unknown')
    }
    if (value !== 'null' && sqlType !== 'boolean') {
      throw new Rejected(`is ${value} filter requires a boolean column, got ${sqlType}`)
    }
  }
  const needed = { like: '~~', ilike: '~~', match: '~', imatch: '~*' }[op as string]
  if (needed && !operators.includes(needed)) {
    throw new Rejected(`operator ${op} requires a text-compatible column type, got ${sqlType}`)
  }
  if (op === 'match' || op === 'imatch') {
    await sql`select '' ~ ${value}::text`.catch((error: Error) => {
      throw new Rejected(`invalid regular expression for ${op} filter: ${error.message}`)
    })
  }
  if (op === 'in') {
    const [row] = await sql.unsafe(`select coalesce(cardinality($1::text::${sqlType}[]), 0) as n`, [value])
    if (row!.n > MAX_IN_VALUES) throw new Rejected('too many values for `in` filter. Maximum 100')
  }
  // The comparison itself, with no value: it fails here and now rather than at some change.
  await sql.unsafe(`select ${conditionOf(filter, sqlType, `null::${sqlType}`, '$1')}`, [value])
}

/** Names that the driver of hosted's server gives to SQLSTATEs that a bad filter can raise. */
const CONDITIONS: Record<string, string> = {
  '22P02': 'invalid_text_representation',
  '22003': 'numeric_value_out_of_range',
  '22007': 'invalid_datetime_format',
  '22008': 'datetime_field_overflow',
  '42883': 'undefined_function',
}

function exceptionText(error: Error & { code?: string }): string {
  if (error instanceof Rejected) return `ERROR P0001 (raise_exception) ${error.message}`
  const condition = CONDITIONS[error.code ?? '']
  return `ERROR ${error.code}${condition ? ` (${condition})` : ''} ${error.message}`
}

/** One side of a change: each column's text, null, or nothing at all when the change does not carry it. */
export type Cells = Map<string, string | null>

export interface Question {
  filter: Filter
  cells: Cells
}

/** Turns texts into JSON as `to_jsonb` does and answers filters, in one statement. */
export async function evaluate(sql: Sql, columns: Column[], sides: Cells[], questions: Question[]) {
  const types = new Map(columns.map((column) => [column.name, column.sqlType]))
  const parameters: (string | null)[] = []
  const bind = (text: string | null) => `$${parameters.push(text)}`
  const cells = sides.flatMap((side) =>
    columns.flatMap(({ name, sqlType }) => {
      const text = side.get(name)
      return typeof text === 'string' ? [{ side, name, sql: `to_jsonb(${bind(text)}::text::${sqlType})::text` }] : []
    }),
  )
  const conditions = questions.map(({ filter, cells: side }) => {
    const type = types.get(filter.column)
    const text = side.get(filter.column)
    if (!type || text === undefined) return 'false' // a column that the change does not carry is no match
    return conditionOf(filter, type, `${bind(text)}::text::${type}`, bind(filter.value))
  })
  const [row] = await sql.unsafe<{ cells: string[]; answers: boolean[] }[]>(
    `select array[${cells.map((cell) => cell.sql).join()}]::text[] as cells, array[${conditions.join()}]::boolean[] as answers`,
    parameters,
    { prepare: questions.length === 0 },
  )
  const json = sides.map((side) => new Map([...side].map(([name]) => [name, 'null'])))
  for (const [index, { side, name }] of cells.entries()) json[sides.indexOf(side)]!.set(name, row!.cells[index]!)
  return { json, answers: row!.answers }
}

/** Whether the row, as it is now, is visible to these claims: the same question that RLS answers for a query. */
export async function isVisible(sql: Sql, table: Table, row: Cells, claims: Claims): Promise<boolean> {
  const key = table.columns.filter((column) => column.isKey)
  const where = key.map(({ name, sqlType }, index) => `${quoted(name)} = $${index + 1}::text::${sqlType}`).join(' and ')
  const query = `select exists (select 1 from ${table.name} where ${where}) as visible`
  return await rolledBack(sql, async (tx) => {
    const [, rows] = await Promise.all([
      tx`select set_config('role', ${claims.role}, true), set_config('request.jwt.claims', ${JSON.stringify(claims)}, true)`,
      tx.unsafe<{ visible: boolean }[]>(
        query,
        key.map(({ name }) => row.get(name) ?? null),
        { prepare: true },
      ),
    ])
    return rows[0]!.visible
  })
}

const quoted = (name: string) => `"${name.replaceAll('"', '""')}"`
