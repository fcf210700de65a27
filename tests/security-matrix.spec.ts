import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import type postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { apiRoles, type Callable, type Domain, type Expectations, type Persona, personas } from './security/format.ts'
import { openArena } from './support/races.ts'

/**
 * The security matrix: what the catalogue grants and what policies let through, against tests/security/<domain>.ts.
 * Everything runs in one transaction, each trial inside a savepoint, in a database where no other spec makes objects.
 */
const folder = join(import.meta.dirname!, 'security')
const domains: Domain[] = []
for (const file of readdirSync(folder).filter((file) => file !== 'format.ts' && file.endsWith('.ts'))) {
  domains.push(...(Object.values(await import(join(folder, file))) as Domain[]))
}
const tables = Object.assign({}, ...domains.map((domain) => domain.tables)) as NonNullable<Domain['tables']>
const functions = Object.assign({}, ...domains.map((domain) => domain.functions)) as NonNullable<Domain['functions']>

const arena = await openArena('security_matrix')
const { sql } = await arena.session()
const ids = Object.fromEntries(
  personas
    .filter((name) => name !== 'anon' && name !== 'service_role')
    .map((name, i) => [name, `00000000-0000-4000-a000-${String(i + 1).padStart(12, '0')}`]),
) as Record<Persona, string>

/** Puts ids in the place of `:owner`, `:me`, … */
const fill = (text: string, me?: Persona) =>
  text.replace(/(?<!:):([a-z_]+)\b/g, (whole, name: Persona | 'me') => {
    const id = ids[name === 'me' ? (me ?? 'owner') : name]
    return name === 'me' || id ? `'${id ?? ids.owner}'::uuid` : whole
  })

beforeAll(async () => {
  await sql.unsafe('begin')
  for (const [name, id] of Object.entries(ids)) {
    await sql`insert into auth.users (id, email, aud, role) values (${id}, ${`matrix-${name}@example.com`}, 'authenticated', 'authenticated')`
  }
  await sql.unsafe(
    fill(`
      create temporary table scene_ids (name text primary key, id uuid);
      grant select on scene_ids to public;
      select admin.grant_role(:creator, 'creator'), admin.grant_role(:moderator, 'moderator'), admin.grant_role(:admin, 'admin');
      insert into public.blocks (blocker_id, blocked_id) values (:owner, :blocked);
    `),
  )
  for (const domain of domains) if (domain.scene) await sql.unsafe(fill(domain.scene))
  await sql.unsafe(
    fill(`
      select admin.set_account_status(:suspended, 'suspended');
      select private.tombstone_user(:deleted);
    `),
  )
})
afterAll(() => arena.close())

/** Runs one statement as a persona and says what came of it; nothing of it remains. */
async function attempt(persona: Persona, statement: string): Promise<string> {
  const id = ids[persona]
  const role = id ? 'authenticated' : persona
  const claims = JSON.stringify(id ? { sub: id, role, aud: 'authenticated' } : { role })
  await sql.unsafe('savepoint trial')
  try {
    await sql`select set_config('request.jwt.claims', ${claims}, true), set_config('role', ${role}, true)`
    const result = (await sql.unsafe(fill(statement, persona))) as postgres.RowList<postgres.Row[]>
    return result.count > 0 ? 'yes' : 'none'
  } catch (error) {
    const { code, message } = error as postgres.PostgresError
    if (code === '42501') return 'denied'
    return code?.startsWith('PT') ? message : String(code ?? error)
  } finally {
    await sql.unsafe('rollback to savepoint trial')
  }
}

const expected = (expectations: Expectations, persona: Persona) =>
  expectations[persona] ?? expectations.rest ?? 'not mentioned'

/** `select, update(a, b)` as a sorted list of `select`, `update(a)`, `update(b)`. */
function parseGrants(text = ''): string[] {
  return [...text.matchAll(/([a-z]+)(?:\(([^)]*)\))?/g)]
    .flatMap(([, verb, columns]) => columns?.split(',').map((column) => `${verb}(${column.trim()})`) ?? [verb!])
    .sort()
}

describe('tables and views', () => {
  it('mentions every table and view of public, and every other one that an API role may touch', async () => {
    const rows = await sql`
      select format('%I.%I', n.nspname, c.relname) as name
      from pg_class as c
      join pg_namespace as n on n.oid = c.relnamespace
      where c.relkind in ('r', 'p', 'v', 'm', 'f')
        and (
          n.nspname in ('public', 'service')
          or n.nspname in ('private', 'admin') and exists (
            select from unnest(${[...apiRoles]}::text[]) as role(name),
              unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger']) as verb(name)
            where has_table_privilege(role.name, c.oid, verb.name)
              or verb.name in ('select', 'insert', 'update', 'references')
                and has_any_column_privilege(role.name, c.oid, verb.name)
          )
        )
      order by 1`

    expect(Object.keys(tables).sort()).toEqual(rows.map((row) => row.name))
  })

  describe.each(Object.entries(tables))('%s', (name, table) => {
    it.each(apiRoles)('grants %s exactly what is written down', async (role) => {
      const rows = await sql`
        select verb.name as grant
        from unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger', 'maintain'])
          as verb(name)
        where has_table_privilege(${role}, ${name}::regclass, verb.name)
        union all
        select format('%s(%I)', verb.name, a.attname)
        from unnest(array['select', 'insert', 'update', 'references']) as verb(name)
        cross join pg_attribute as a
        where a.attrelid = ${name}::regclass and a.attnum > 0 and not a.attisdropped
          and has_column_privilege(${role}, a.attrelid, a.attnum, verb.name)
          and not has_table_privilege(${role}, ${name}::regclass, verb.name)`

      expect(rows.map((row) => row.grant).sort()).toEqual(parseGrants(table.grants[role]))
    })

    it.each(personas)('answers %s as written down', async (persona) => {
      const role = ids[persona] ? 'authenticated' : persona
      const writable = parseGrants(table.grants[role as 'anon']).find((grant) => grant.startsWith('update('))
      const [first] = await sql`
        select quote_ident(attname) as name from pg_attribute where attrelid = ${name}::regclass and attnum = 1`
      const column = writable?.slice('update('.length, -1) ?? first!.name
      const select = await attempt(persona, `select from ${name} where ${table.where}`)
      const insert = await attempt(persona, table.insert ?? `insert into ${name} default values`)
      const update = await attempt(
        persona,
        `update ${name} set ${table.set ?? `${column} = ${column}`} where ${table.where}`,
      )
      const remove = await attempt(persona, `delete from ${name} where ${table.where}`)

      expect([select, insert, update, remove].join(' ')).toBe(expected(table.personas, persona))
    })
  })
})

describe('schemas and sequences', () => {
  it('lets API roles use public and private, the service role service as well, and create in none', async () => {
    const rows = await sql`
      select format('%s: %s %s', role.name, privilege.name, n.nspname) as grant
      from pg_namespace as n, unnest(${[...apiRoles]}::text[]) as role(name),
        unnest(array['usage', 'create']) as privilege(name)
      where n.nspname in ('public', 'service', 'admin', 'private')
        and has_schema_privilege(role.name, n.oid, privilege.name)
      order by 1`

    expect(rows.map((row) => row.grant)).toEqual([
      'anon: usage private',
      'anon: usage public',
      'authenticated: usage private',
      'authenticated: usage public',
      'service_role: usage private',
      'service_role: usage public',
      'service_role: usage service',
    ])
  })

  it('lets no API role touch a sequence', async () => {
    const rows = await sql`
      select c.oid::regclass::text as name
      from pg_class as c
      join pg_namespace as n on n.oid = c.relnamespace
      cross join unnest(${[...apiRoles]}::text[]) as role(name)
      where c.relkind = 'S' and n.nspname in ('public', 'service', 'admin', 'private')
        and has_sequence_privilege(role.name, c.oid, 'usage, select, update')`

    expect(rows.map((row) => row.name)).toEqual([])
  })
})

describe('functions', () => {
  it('lets each role execute exactly the functions that are written down', async () => {
    const rows = await sql`
      select format('%I.%I(%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes)) as name,
        coalesce(string_agg(role.name, ' ' order by role.ord), 'nobody') as roles
      from pg_proc as p
      join pg_namespace as n on n.oid = p.pronamespace
      left join unnest(${[...apiRoles, 'supabase_auth_admin']}::text[]) with ordinality as role(name, ord)
        on has_function_privilege(role.name, p.oid, 'execute')
      where n.nspname in ('public', 'service', 'admin', 'private')
      group by p.oid, n.nspname, p.proname
      having n.nspname in ('public', 'service') or count(role.name) > 0`
    const actual = Object.fromEntries(rows.map((row) => [row.name, row.roles]))
    const written = Object.entries(functions).map(([name, entry]) => [
      name,
      typeof entry === 'string' ? entry : entry.execute,
    ])

    expect(actual).toEqual(Object.fromEntries(written))
  })

  const callable = Object.entries(functions).filter(([, entry]) => typeof entry !== 'string') as [string, Callable][]
  it.each(callable)('%s answers each persona as written down', async (_name, entry) => {
    const answers: Record<string, string> = {}
    for (const persona of personas) answers[persona] = await attempt(persona, entry.call)

    expect(answers).toEqual(Object.fromEntries(personas.map((persona) => [persona, expected(entry.personas, persona)])))
  })
})
