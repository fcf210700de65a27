import { execFileSync } from 'node:child_process'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { projectStack } from '../support/project.ts'
import { otherProject } from './fixtures/processes.ts'

const served = projectStack(otherProject)
let sql: postgres.Sql
beforeAll(() => {
  sql = served.sql()
})

/** Runs statements as `role` and takes everything back. Gives the error's code, or 'passes'. */
async function attempt(statements: string, as: postgres.Sql = sql): Promise<string> {
  const undo = new Error('undo')
  try {
    await as.begin(async (transaction) => {
      await transaction.unsafe(statements)
      throw undo
    })
  } catch (error) {
    return error === undo ? 'passes' : ((error as { code?: string }).code ?? String(error))
  }
  return 'committed'
}

describe('the role postgres, as which migrations run', () => {
  it('has the attributes of hosted', async () => {
    const rows = await sql`
      select rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls, rolconfig
      from pg_roles where rolname in ('postgres', 'anon', 'authenticated', 'service_role', 'supabase_auth_admin')`
    const roles = Object.fromEntries(rows.map(({ rolname, ...role }) => [rolname, role]))
    expect(roles.postgres).toMatchObject({
      rolsuper: false,
      rolcreaterole: true,
      rolcreatedb: true,
      rolreplication: true,
      rolbypassrls: true,
    })
    expect(roles.service_role).toMatchObject({ rolcanlogin: false, rolbypassrls: true, rolinherit: true })
    expect(roles.anon).toMatchObject({ rolcanlogin: false, rolbypassrls: false, rolconfig: ['statement_timeout=3s'] })
    expect(roles.authenticated).toMatchObject({ rolcanlogin: false, rolconfig: ['statement_timeout=8s'] })
    expect(roles.supabase_auth_admin).toMatchObject({ rolsuper: false, rolinherit: false })
  })

  it.each([
    'alter role postgres superuser',
    'create role other superuser',
    'set session authorization supabase_admin',
    'set role supabase_admin',
    'set role supabase_auth_admin',
    'set role supabase_storage_admin',
    'set role supabase_realtime_admin',
    "copy (select 1) to program 'true'",
    "select pg_read_file('/etc/passwd')",
    'create event trigger t on ddl_command_end execute function postgres_fdw_handler()',
    'alter table auth.users add column nickname text',
    'alter table auth.users disable row level security',
    'create index on auth.users (created_at)',
    'create table auth.mine (id int)',
    'create function auth.mine() returns int language sql as $$ select 1 $$',
    'create or replace function auth.uid() returns uuid language sql stable as $$ select null::uuid $$',
    'drop table auth.sessions',
    'create table storage.mine (id int)',
    'create function storage.mine() returns int language sql as $$ select 1 $$',
    'create or replace function storage.filename(name text) returns text language sql as $$ select name $$',
    'create table realtime.mine (id int)',
    'create function realtime.mine() returns int language sql as $$ select 1 $$',
    'create table cron.mine (id int)',
    'insert into cron.job (schedule, command) values (null, null)',
    "delete from cron.job where jobname = 'x'",
    'create table vault.mine (id int)',
    "insert into vault.secrets (secret) values ('x')",
    'drop extension pgmq',
    'drop extension vector',
  ])('may not: %s', async (statement) => {
    expect(await attempt(statement)).toMatch(/^(42501|42P01|42883)$/)
  })

  it('may not change settings of the server, nor pass on its use of the schema auth', async () => {
    await expect(sql.unsafe('alter system set work_mem = 1')).rejects.toMatchObject({ code: '42501' })
    await sql.unsafe('create role helper; grant usage on schema auth to helper')
    const [row] = await sql`select has_schema_privilege('helper', 'auth', 'usage') as granted`
    await sql.unsafe('drop role helper')
    expect(row!.granted).toBe(false)
  })

  it('may not delete stored files past the Storage API', async () => {
    expect(await attempt('delete from storage.objects where true')).toBe('42501')
    expect(await attempt("set local storage.allow_delete_query = 'true'; delete from storage.objects where true")).toBe(
      'passes',
    )
  })

  it.each([
    'create schema mine; create table mine.t (id int); create function mine.f() returns int language sql as $$ select 1 $$',
    'create table public.t (id int); alter table public.t enable row level security',
    'create role helper; grant helper to postgres; grant select on public.notes to helper',
    "alter role authenticated set statement_timeout = '20s'",
    'alter default privileges for role postgres revoke execute on functions from public',
    `create function public.hook() returns trigger language plpgsql security definer as $$ begin return new; end $$;
     create or replace trigger on_sign_up after insert on auth.users for each row execute function public.hook();
     create or replace trigger on_sign_up after insert on auth.users for each row execute function public.hook()`,
    'create table public.t (user_id uuid references auth.users (id) on delete cascade)',
    "insert into auth.users (id, email) values (gen_random_uuid(), 'someone@example.com')",
    `create policy "p" on storage.objects for select to authenticated using (bucket_id = 'x');
     comment on policy "p" on storage.objects is 'c'; drop policy "p" on storage.objects`,
    `create policy "p" on realtime.messages for select to authenticated using ((select realtime.topic()) = 'x');
     create policy "q" on realtime.messages for insert to authenticated with check (extension = 'presence')`,
    "insert into storage.buckets (id, name, public) values ('b', 'b', true) on conflict (id) do update set public = true",
    'create extension if not exists pg_cron; create extension if not exists pg_cron with schema pg_catalog',
    'create extension if not exists pg_net schema extensions',
    'create extension if not exists supabase_vault with schema vault cascade',
    'create extension if not exists vector with schema extensions; create extension if not exists pgtap with schema extensions',
    'create extension if not exists moddatetime schema extensions; create extension if not exists pg_stat_statements',
    'create extension if not exists pg_trgm with schema extensions; create extension if not exists unaccent schema extensions',
    'create extension if not exists "uuid-ossp" schema extensions; select extensions.uuid_generate_v4()',
    "select extensions.digest('x', 'sha256')",
    'create publication mine for table public.notes; alter publication supabase_realtime add table public.notes',
    "select pgmq.create('q'); select pgmq.send('q', '{}'::jsonb); select pgmq.archive('q', r.msg_id) from pgmq.read('q', 30, 1) r; select pgmq.metrics('q'), pgmq.purge_queue('q'), pgmq.drop_queue('q')",
    "select cron.schedule('j', '*/5 * * * *', 'select 1'); select cron.schedule('j', '10 seconds', 'select 2'); select cron.unschedule('j')",
    "select cron.alter_job(cron.schedule('0 0 $ jan mon-fri', 'select 1'), active => false)",
    "select net.http_post('http://127.0.0.1:1', '{}'::jsonb), net.http_get('http://127.0.0.1:1'), net.http_delete('http://127.0.0.1:1')",
    "select vault.update_secret(vault.create_secret('s', 'n', 'd'), 's2'); select decrypted_secret from vault.decrypted_secrets; delete from vault.secrets where name = 'n'",
    "select realtime.send('{}'::jsonb, 'e', 't', false), realtime.send_binary('x'::bytea, 'e', 't', false)",
    "set search_path = public, extensions; select plan(1); select ok(true, 'pgTAP runs'); select * from finish()",
    "select '[1,2]'::text, extensions.vector_dims('{1,2}'::real[]::extensions.vector), '{1,0}'::real[]::extensions.vector operator(extensions.<=>) '{0,1}'::real[]::extensions.vector",
    'set local statement_timeout = 0',
  ])('may: %s', async (statements) => {
    expect(await attempt(statements)).toBe('passes')
  })
})

describe('the stand-ins', () => {
  it('keep a job of the same name and owner as one job, under the role that scheduled it', async () => {
    const jobs = await sql.begin(async (transaction) => {
      await transaction`select cron.schedule('nightly', '0 3 * * *', 'select 1')`
      await transaction`select cron.schedule('nightly', '0 4 * * *', 'select 2')`
      const rows = await transaction`select schedule, command, username, active from cron.job where jobname = 'nightly'`
      await transaction`select cron.unschedule('nightly')`
      return rows
    })
    expect(jobs).toEqual([{ schedule: '0 4 * * *', command: 'select 2', username: 'postgres', active: true }])
  })

  it('refuse what pg_cron refuses', async () => {
    expect(await attempt("select cron.schedule('j', 'sometimes', 'select 1')")).toBe('22023')
    expect(await attempt("select cron.schedule('j', '60 seconds', 'select 1')")).toBe('22023')
    expect(await attempt("select cron.unschedule('no such job')")).toBe('XX000')
    expect(await attempt('select cron.alter_job(4711, active => false)')).toBe('XX000')
    expect(
      await attempt("select cron.schedule_in_database('j', '* * * * *', 'select 1', 'postgres', 'supabase_admin')"),
    ).toBe('XX000')
  })

  it('put parameters into the url of a request, and queue it only when the transaction commits', async () => {
    const queued = await sql.begin(async (transaction) => {
      await transaction`select net.http_get('http://127.0.0.1:1/x?a=1', ${transaction.json({ q: 'ü &' })}::jsonb)`
      const rows = await transaction`select method, url, timeout_milliseconds from net.http_request_queue`
      await transaction`delete from net.http_request_queue where true`
      return rows
    })
    expect(queued).toEqual([
      { method: 'GET', url: 'http://127.0.0.1:1/x?a=1&q=%C3%BC%20%26', timeout_milliseconds: 5000 },
    ])
    expect(
      await attempt("select net.http_post('http://x', '{}'::jsonb, headers => '{\"content-type\": \"text/plain\"}')"),
    ).toBe('P0001')
  })

  it('never let realtime.send break the transaction it is called in', async () => {
    const asAnon = "set local role anon; select realtime.send('{}'::jsonb, 'e', 't', true)"
    expect(await attempt(asAnon)).toBe('passes')
  })

  it('compare vectors as pgvector does', async () => {
    const distance = (a: string, b: string) =>
      sql.unsafe(
        `select '${a}'::real[]::extensions.vector operator(extensions.<=>) '${b}'::real[]::extensions.vector as d`,
      )
    expect((await distance('{1,0}', '{0,2}'))[0]!.d).toBeCloseTo(1)
    expect((await distance('{1,1}', '{2,2}'))[0]!.d).toBeCloseTo(0)
    await expect(distance('{1,1}', '{2,2,2}')).rejects.toMatchObject({ code: '22000' })
  })

  it('give the API roles no secret and no way into the platform', async () => {
    for (const role of ['anon', 'authenticated']) {
      for (const statement of [
        'select * from vault.decrypted_secrets',
        "select vault.create_secret('x')",
        'select * from cron.job',
        "select cron.schedule('* * * * *', 'select 1')",
        "select pgmq.send('errands', '{}'::jsonb)",
        'select * from auth.users',
        "insert into storage.buckets (id, name) values ('x', 'x')",
      ]) {
        expect(`${statement}: ${await attempt(`set local role ${role}; ${statement}`)}`).toBe(`${statement}: 42501`)
      }
    }
  })
})

describe("the gateway's login", () => {
  it('is a member of the API roles alone, and sees no row of auth.users', async () => {
    const rest = served.sql('rest')
    await served.sql()`insert into auth.users (id, email) values (gen_random_uuid(), 'somebody@example.com')`
    expect(await rest`select count(*)::int from auth.users`).toEqual([{ count: 0 }])
    for (const role of ['anon', 'authenticated', 'service_role'])
      expect(await attempt(`set role ${role}`, rest)).toBe('passes')
    for (const role of ['postgres', 'supabase_admin', 'supabase_auth_admin', 'pg_read_all_data']) {
      expect(await attempt(`set role ${role}`, rest)).toBe('42501')
    }
    expect(await attempt('select * from auth.refresh_tokens', rest)).toBe('42501')
  })
})

describe('new objects in public', () => {
  const databases: Record<string, postgres.Sql> = {}
  beforeAll(() => {
    for (const [name, flag] of [
      ['exposed', '--auto-expose'],
      ['closed', '--no-auto-expose'],
    ]) {
      const file = `${served.stack.data}/stack.json`
      const args = [
        'run',
        '-A',
        '--quiet',
        'supabase/local/prepare.ts',
        file,
        `engine_${name}`,
        '--bootstrap-only',
        flag!,
      ]
      const url = execFileSync('node_modules/.bin/deno', args, { encoding: 'utf8' }).trim()
      databases[name!] = postgres(url, { max: 1, onnotice: () => {} })
    }
  })
  afterAll(() => Promise.all(Object.values(databases).map((database) => database.end())))

  const privileges = async (database: postgres.Sql, statements: string) => {
    const undo = new Error('undo')
    let rows: postgres.Row[] = []
    await database
      .begin(async (transaction) => {
        await transaction.unsafe(statements)
        rows = await transaction`
          select relname::text as name, relacl::text as acl from pg_class where relname in ('t', 't_id_seq')
          union all select proname, proacl::text from pg_proc where proname = 'f' order by 1`
        throw undo
      })
      .catch((error) => {
        if (error !== undo) throw error
      })
    return Object.fromEntries(rows.map(({ name, acl }) => [name, acl]))
  }
  const plain = `create table public.t (id serial primary key);
    create function public.f() returns int language sql as 'select 1'`
  const careful = `${plain}; revoke all on table public.t from public, anon, authenticated, service_role;
    revoke all on sequence public.t_id_seq from public, anon, authenticated, service_role;
    revoke all on function public.f() from public, anon, authenticated, service_role;
    grant select on table public.t to anon; grant execute on function public.f() to authenticated`

  it('are granted to the API roles as hosted grants them while it exposes new tables', async () => {
    const { t, f, t_id_seq } = await privileges(databases.exposed!, plain)
    expect(t).toContain('anon=arwdDxtm/postgres')
    expect(t_id_seq).toContain('service_role=rwU/postgres')
    expect(f).toContain('authenticated=X/postgres')
  })

  it('keep what hosted leaves when it does not expose new tables', async () => {
    const { t, f, t_id_seq } = await privileges(databases.closed!, plain)
    expect(t).toContain('anon=Dxtm/postgres')
    expect(t).toContain('service_role=Dxtm/postgres')
    expect(t_id_seq).toContain('anon=w/postgres')
    // What Postgres itself gives: everybody may execute.
    expect(f).toBeNull()
  })

  it('end with the same privileges in both states when a migration writes them out', async () => {
    const exposed = await privileges(databases.exposed!, careful)
    expect(exposed).toEqual(await privileges(databases.closed!, careful))
    expect(exposed.t).toBe('{postgres=arwdDxtm/postgres,anon=r/postgres}')
  })
})
