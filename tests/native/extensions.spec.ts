import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { promisify } from 'node:util'
import postgres from 'postgres'
import { describe, expect, it } from 'vitest'
import { database, stack, superuser, until } from '../support/local.ts'

const product = ['public', 'service', 'private', 'admin']

/** What `work` returns; nothing it did stays. */
async function undone<T>(sql: postgres.Sql, work: (transaction: postgres.TransactionSql) => Promise<T>): Promise<T> {
  const undo = new Error('undo')
  let result: T
  await sql
    .begin(async (transaction) => {
      result = await work(transaction)
      throw undo
    })
    .catch((error) => {
      if (error !== undo) throw error
    })
  return result!
}

it('the real extensions are in use, not their stand-ins', async () => {
  const rows = await superuser()`
    select e.extname as name, e.extnamespace::regnamespace::text as schema
      from pg_extension e
     where e.extname in ('vector', 'pg_cron', 'pgtap', 'plpgsql_check')
       -- A stand-in is a bare catalogue row: no object belongs to it.
       and exists (select from pg_depend d where d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid)
     order by 1`

  expect(Object.fromEntries(rows.map(({ name, schema }) => [name, schema]))).toEqual({
    pg_cron: 'pg_catalog',
    pgtap: 'extensions',
    plpgsql_check: 'extensions',
    vector: 'extensions',
  })
})

it('new tables, sequences and functions are exposed to nobody before they are granted', async () => {
  const exposed = await undone(database(), async (sql) => {
    await sql.unsafe(`create table public.fresh (id serial primary key)`)
    return await sql`
      select role, verb from unnest(array['anon', 'authenticated', 'service_role']) as role,
        unnest(array['select', 'insert', 'update', 'delete']) as verb
       where has_table_privilege(role, 'public.fresh', verb)
          or has_sequence_privilege(role, 'public.fresh_id_seq', 'usage')`
  })

  expect(exposed).toEqual([])
})

describe('pgvector', () => {
  it('gives a base type in schema extensions, which a table narrows and indexes as the role postgres', async () => {
    const found = await undone(database(), async (sql) => {
      const [type] = await sql`
        select typtype, typowner::regrole::text = 'supabase_admin' as platform
          from pg_type where oid = 'extensions.vector'::regtype`
      expect(type).toEqual({ typtype: 'b', platform: true })
      await sql.unsafe(`
        create table private.vectors (id int primary key, embedding extensions.vector(3) not null);
        create index on private.vectors using hnsw (embedding extensions.vector_cosine_ops);
        insert into private.vectors
          select n, array[cos(n::real / 100), sin(n::real / 100), 0]::real[]::extensions.vector
            from generate_series(1, 300) as n;
        set local enable_seqscan = off`)
      const nearest = `select id from private.vectors
        order by embedding operator(extensions.<=>) array[cos(1.5), sin(1.5), 0]::real[]::extensions.vector limit 3`
      const plan = await sql.unsafe(`explain ${nearest}`)
      expect(plan.map((row) => row['QUERY PLAN']).join('\n')).toContain('Index Scan using vectors_embedding_idx')
      return await sql.unsafe(nearest)
    })

    expect(found.map(({ id }) => id).sort()).toEqual([149, 150, 151])
  })

  it('measures what its stand-in measures, and refuses other dimensions with the same code', async () => {
    const sql = database()
    const distance = (a: string, b: string) =>
      sql.unsafe(
        `select '${a}'::real[]::extensions.vector operator(extensions.<=>) '${b}'::real[]::extensions.vector as d`,
      )

    expect((await distance('{1,0}', '{0,2}'))[0]!.d).toBeCloseTo(1)
    expect((await distance('{1,1}', '{2,2}'))[0]!.d).toBeCloseTo(0)
    await expect(distance('{1,1}', '{2,2,2}')).rejects.toMatchObject({ code: '22000' })
    expect((await sql`select extensions.vector_dims('{1,2,3}'::real[]::extensions.vector) as n`)[0]!.n).toBe(3)
  })
})

describe('plpgsql_check', () => {
  const findings = (sql: postgres.Sql | postgres.TransactionSql) => sql<{ name: string; message: string }[]>`
    select p.oid::regprocedure::text as name, c.message
      from pg_proc p
      join pg_language l on l.oid = p.prolang and l.lanname = 'plpgsql'
      left join pg_trigger t on t.tgfoid = p.oid
     cross join lateral extensions.plpgsql_check_function_tb(
       p.oid, coalesce(t.tgrelid, 0), fatal_errors => false, security_warnings => true,
       oldtable => t.tgoldtable, newtable => t.tgnewtable) c
     where p.pronamespace::regnamespace::text = any(${product})
       and (p.prorettype <> 'trigger'::regtype or t.oid is not null)`

  it('finds nothing to say about any function', async () => {
    expect((await findings(superuser())).map(({ name, message }) => `${name}: ${message}`)).toEqual([])
  })

  it('would find a table that does not exist, and SQL made of an argument', async () => {
    const found = await undone(superuser(), async (sql) => {
      await sql.unsafe(`
        create function private.missing() returns void language plpgsql
          as 'begin perform 1 from public.no_such_table; end';
        create function private.injected(name text) returns void language plpgsql
          as 'begin execute ''select '' || name; end'`)
      return await findings(sql)
    })

    expect(new Set(found.map(({ name }) => name))).toEqual(new Set(['private.missing()', 'private.injected(text)']))
  })
})

describe('pg_cron', () => {
  it('has every job of the product, as the role postgres', async () => {
    const jobs = await database()`select username, database, active from cron.job where jobname not like 'test-%'`

    expect(jobs.length).toBeGreaterThan(5)
    for (const job of jobs) expect(job).toEqual({ username: 'postgres', database: 'postgres', active: true })
  })

  it('runs every job’s command without an error, whenever it is due', async () => {
    const sql = database()
    // Their own schedules run some of them at night only: each command once more, under a name of this test's own.
    const prefix = `test-${randomUUID()}`
    const ids = (
      await sql`
        select cron.schedule(${prefix} || jobid, '1 second', command) as id from cron.job where jobname not like 'test-%'`
    ).map(({ id }) => id)
    const runs = await until(async () => {
      const ended = await sql`
        select j.command, d.status, d.return_message, d.username
          from cron.job j join cron.job_run_details d using (jobid)
         where j.jobid = any(${ids}) and d.end_time is not null`
      return new Set(ended.map(({ command }) => command)).size === ids.length ? ended : null
    }, 25_000)
    for (const id of ids) await sql`select cron.unschedule(${id}::bigint)`

    expect(runs.filter(({ status, username }) => status !== 'succeeded' || username !== 'postgres')).toEqual([])
  })

  it('runs the product’s jobs at their own times without an error', async () => {
    const own = await until(async () => {
      const runs = await database()`
        select j.jobname, d.status, d.return_message
          from cron.job j join cron.job_run_details d using (jobid)
         where d.end_time is not null and j.jobname in ('sweep-jobs', 'reap-generations')`
      return new Set(runs.map(({ jobname }) => jobname)).size === 2 ? runs : null
    }, 40_000)

    expect(own.filter(({ status }) => status !== 'succeeded')).toEqual([])
  }, 45_000)

  it('shows the API roles neither jobs nor runs', async () => {
    for (const role of ['anon', 'authenticated', 'service_role']) {
      for (const table of ['cron.job', 'cron.job_run_details']) {
        const reading = database().begin(async (sql) => {
          await sql.unsafe(`set local role ${role}`)
          return await sql.unsafe(`select * from ${table}`)
        })
        await expect(reading, `${role} reads ${table}`).rejects.toMatchObject({ code: '42501' })
      }
    }
  })

  it('has what its stand-in has: the same functions, columns and grants', async () => {
    const describeCron = async (sql: postgres.Sql) => ({
      functions: [
        ...(await sql`
          select proname as name, pg_get_function_arguments(oid) as arguments, pg_get_function_result(oid) as result
            from pg_proc
           where pronamespace = 'cron'::regnamespace and proname ~ '^[a-z]' and prorettype <> 'trigger'::regtype
           order by 1, 2`),
      ],
      columns: [
        ...(await sql`
          select attrelid::regclass::text as table, attname as name, atttypid::regtype::text as type, attnotnull as required
            from pg_attribute
           where attrelid in ('cron.job'::regclass, 'cron.job_run_details'::regclass) and attnum > 0 and not attisdropped
           order by 1, attnum`),
      ],
      allowed: [
        ...(await sql`
          select role, c.oid::regclass::text as table, verb
            from unnest(array['postgres', 'anon', 'authenticated', 'service_role']) as role, pg_class c,
              unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger']) as verb
           where c.oid in ('cron.job'::regclass, 'cron.job_run_details'::regclass)
             and has_schema_privilege(role, 'cron', 'usage') and has_table_privilege(role, c.oid, verb)
           order by 1, 2, 3`),
      ],
    })
    // pg_cron lives in one database of a server; in all others our stand-in is used.
    const name = `stand_in_${process.pid}`
    const prepare = ['run', '-A', '--quiet', 'supabase/local/prepare.ts', join(stack.data, 'stack.json'), name]
    const deno = join('node_modules', '.bin', 'deno')
    const { stdout } = await promisify(execFile)(deno, [...prepare, '--bootstrap-only'])
    const sql = postgres(stdout.trim(), { max: 1, onnotice: () => {} })

    try {
      const real = await describeCron(database())
      expect(real.functions.map(({ name }) => name)).toContain('schedule_in_database')
      expect(real.allowed.length).toBeGreaterThan(0)
      expect(await describeCron(sql)).toEqual(real)
    } finally {
      await sql.end()
      await superuser().unsafe(`drop database ${name} with (force)`)
    }
  })
})
