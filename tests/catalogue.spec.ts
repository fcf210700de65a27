import { readdirSync, readFileSync } from 'node:fs'
import { afterAll, describe, expect, it } from 'vitest'
import { openArena } from './support/races.ts'

/**
 * What must hold of every object in our schemas, whoever adds one. Each answer lists the offenders, in a database where
 * no other spec makes objects.
 */
const arena = await openArena('catalogue')
const { sql } = arena
afterAll(() => arena.close())
const ours = ['public', 'service', 'admin', 'private']

const read = (folder: string, ends: string) =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith(ends))
    .map((file) => readFileSync(`${folder}/${file}`, 'utf8'))
    .join('\n')

const functionName = sql`format('%I.%I(%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes))`
const names = (rows: { name: string }[]) => rows.map((row) => row.name)

describe('functions', () => {
  it('pin an empty search path, every one', async () => {
    const loose = await sql`
      select ${functionName} as name from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
      where n.nspname in ${sql(ours)} and not coalesce('search_path=""' = any(p.proconfig), false)
      order by 1`

    expect(names(loose as never)).toEqual([])
  })

  it('that avoid reading tables whole are compiled for no plan: one that cannot avoid it seems dear enough', async () => {
    const compiled = await sql`
      select ${functionName} as name from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
      where n.nspname in ${sql(ours)} and 'enable_seqscan=off' = any(p.proconfig) and 'jit=off' <> all(p.proconfig)
      order by 1`

    expect(names(compiled as never)).toEqual([])
  })

  it('run with the rights of their owner only outside of the exposed schemas', async () => {
    const definers = await sql`
      select ${functionName} as name from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
      where n.nspname in ('public', 'service') and p.prosecdef
      order by 1`

    expect(names(definers as never)).toEqual([])
  })

  it('that others call are commented, every one', async () => {
    const silent = await sql`
      select ${functionName} as name from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
      where n.nspname in ('public', 'service', 'admin') and obj_description(p.oid, 'pg_proc') is null
      order by 1`

    expect(names(silent as never)).toEqual([])
  })

  it('of public and service take no time that a rule could depend on', async () => {
    const timed = await sql`
      select ${functionName} as name from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
      where n.nspname in ('public', 'service')
        and p.proargtypes::oid[] && array['timestamptz', 'timestamp', 'date']::regtype[]::oid[]
      order by 1`

    expect(names(timed as never)).toEqual([])
  })
})

describe('tables', () => {
  it('of public have row level security on and at least one policy', async () => {
    const open = await sql`
      select c.relname as name from pg_class as c
      where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
        and (not c.relrowsecurity or not exists (select from pg_policy as p where p.polrelid = c.oid))
      order by 1`

    expect(names(open as never)).toEqual([])
  })

  it('and views are commented, every one', async () => {
    const silent = await sql`
      select c.oid::regclass::text as name from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
      where n.nspname in ${sql(ours)} and c.relkind in ('r', 'p', 'v', 'm')
        and obj_description(c.oid, 'pg_class') is null
      order by 1`

    expect(names(silent as never)).toEqual([])
  })

  it('have a primary key, and an index for every foreign key', async () => {
    const bare = await sql`
      select c.oid::regclass::text || ' has no primary key' as name
      from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
      where n.nspname in ${sql(ours)} and c.relkind in ('r', 'p')
        and not exists (select from pg_index as i where i.indrelid = c.oid and i.indisprimary)
      union all
      select k.conrelid::regclass::text || ' has no index for ' || k.conname
      from pg_constraint as k join pg_namespace as n on n.oid = k.connamespace
      where n.nspname in ${sql(ours)} and k.contype = 'f'
        and not exists (
          select from pg_index as i
          where i.indrelid = k.conrelid
            and (i.indkey::smallint[])[0:cardinality(k.conkey) - 1] @> k.conkey
        )
      order by 1`

    expect(names(bare as never)).toEqual([])
  })

  it('keep states as text, not as enums', async () => {
    const enums = await sql`
      select t.oid::regtype::text as name from pg_type as t join pg_namespace as n on n.oid = t.typnamespace
      where n.nspname in ${sql(ours)} and t.typtype = 'e'`

    expect(names(enums as never)).toEqual([])
  })

  it('with a column that names a person stand in the list that drives deletion and export', async () => {
    const rows = await sql`
      with named as (
        -- Whatever points to a person, and whatever is called as if it did.
        select k.conrelid as relid, a.attname
        from pg_constraint as k
        join pg_attribute as a on a.attrelid = k.conrelid and a.attnum = any(k.conkey)
        where k.contype = 'f' and cardinality(k.conkey) = 1
          and k.confrelid in ('auth.users'::regclass, 'public.profiles'::regclass, 'private.owners'::regclass)
        union
        select a.attrelid, a.attname
        from pg_attribute as a
        join pg_class as c on c.oid = a.attrelid and c.relkind in ('r', 'p')
        where a.attnum > 0 and not a.attisdropped and a.atttypid = 'uuid'::regtype
          and a.attname ~ '^(user|owner|author|creator|profile|sender|recipient|inviter|invited_by|created_by)(_id)?$'
      )
      select format('%s.%s.%s', n.nspname, c.relname, named.attname) as name
      from named
      join pg_class as c on c.oid = named.relid
      join pg_namespace as n on n.oid = c.relnamespace
      where n.nspname in ${sql(ours)}
      order by 1`
    const listed = await sql`
      select format('%s.%s.%s', schema_name, table_name, owner_column) as name from private.owned_data order by 1`

    expect(names(listed as never)).toEqual(names(rows as never))
  })
})

describe('policies', () => {
  it('name no other table that has row level security', async () => {
    // The dependencies of a policy's expression: every relation it names, its own table apart.
    const nested = await sql`
      select format('%s on %s names %s', p.polname, p.polrelid::regclass, d.refobjid::regclass) as name
      from pg_policy as p
      join pg_class as own on own.oid = p.polrelid
      join pg_depend as d on d.classid = 'pg_policy'::regclass and d.objid = p.oid
        and d.refclassid = 'pg_class'::regclass and d.refobjid <> p.polrelid
      join pg_class as c on c.oid = d.refobjid and c.relrowsecurity
      order by 1`

    expect(names(nested as never)).toEqual([])
  })

  it('are written for one command and for named roles', async () => {
    const broad = await sql`
      select schemaname || '.' || tablename || ': ' || policyname as name from pg_policies
      where schemaname in ('public', 'storage', 'realtime') and (cmd = 'ALL' or 'public' = any(roles))`

    expect(names(broad as never)).toEqual([])
  })

  it('are one per table, role and command', async () => {
    const doubled = await sql`
      select format('%s %s %s', tablename, cmd, role) as name
      from pg_policies, unnest(roles) as role
      where schemaname = 'public' and permissive = 'PERMISSIVE'
      group by tablename, cmd, role having count(*) > 1`

    expect(names(doubled as never)).toEqual([])
  })
})

describe('the error vocabulary', () => {
  const sources = read('sql', '.sql').replaceAll(/--.*$/gm, '')
  const raised = [...sources.matchAll(/raise\s+sqlstate\s+'PT(\d{3})'\s+using\s+message\s*=\s*'([^']+)'/g)]

  it('holds every code that sql/ raises, with its status, and no other', async () => {
    const rows = await sql`select code, status from private.error_codes`
    const listed = rows.map((row) => `${row.status} ${row.code}`).sort()

    expect([...new Set(raised.map(([, status, code]) => `${status} ${code}`))].sort()).toEqual(listed)
  })

  it('is used by every refusal: none has an SQLSTATE without a code', () => {
    expect([...sources.matchAll(/\braise\s+sqlstate\b/g)].length).toBe(raised.length)
  })

  it('is named by tests, every code', () => {
    const tests = read('tests', '.ts') + read('tests', '.sql')
    const untested = [...new Set(raised.map(([, , code]) => code!))].filter((code) => !tests.includes(code))

    expect(untested.sort()).toEqual([])
  })

  it('is told of in docs/, every code, and so are those of the functions', () => {
    const docs = new Set(read('docs', '.md').match(/\w+/g))
    const thrown = [...read('functions', '.ts').matchAll(/(?:new Problem\(\s*\d{3},|\brefuse\(|: \[\d{3},)\s*'(\w+)'/g)]
    const codes = new Set([...raised.map(([, , code]) => code!), ...thrown.map(([, code]) => code!)])
    const untold = [...codes].filter((code) => !docs.has(code))

    expect(thrown.length).toBeGreaterThan(0)
    expect(untold.sort()).toEqual([])
  })
})
