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
    'alter table storage.objects disable row level security',
    'alter table storage.objects add column mine int',
    'alter table storage.objects rename to mine',
    'alter table storage.objects owner to postgres',
    'alter table storage.objects set schema public',
    'alter function storage.filename(text) rename to mine',
    'drop function storage.operation() cascade',
    'drop table storage.objects',
    'drop trigger protect_objects_delete on storage.objects; drop table storage.objects',
    'alter table realtime.messages disable row level security',
    'alter table realtime.messages no force row level security',
    'drop table realtime.messages',
    'create index on realtime.messages (topic)',
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

  it('revokes in vain what the API roles may do with tables of the platform', async () => {
    const undo = new Error('undo')
    let granted: unknown
    await sql
      .begin(async (transaction) => {
        await transaction`revoke all on storage.objects from anon`
        ;[granted] = await transaction`select has_table_privilege('anon', 'storage.objects', 'select') as anon`
        throw undo
      })
      .catch((error) => expect(error).toBe(undo))
    expect(granted).toEqual({ anon: true })
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
    `create or replace trigger t after insert on storage.objects for each row execute function storage.update_updated_at_column();
     drop trigger t on storage.objects`,
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
  it('is a member of the API roles alone, and reads nothing of Auth', async () => {
    const rest = served.sql('rest')
    for (const role of ['anon', 'authenticated', 'service_role']) {
      expect(await attempt(`set role ${role}`, rest)).toBe('passes')
    }
    for (const role of ['postgres', 'supabase_admin', 'supabase_auth_admin', 'pg_read_all_data']) {
      expect(await attempt(`set role ${role}`, rest)).toBe('42501')
    }
    for (const table of ['users', 'refresh_tokens']) {
      expect(await attempt(`select * from auth.${table}`, rest)).toBe('42501')
    }
  })

  it('has nothing granted to itself but the schema of pgcrypto, which every API role has as well', async () => {
    const granted = await served.sql('supabase_admin')`
      select kind, name, privilege_type as verb
        from (select 'schema' as kind, nspname::text as name, nspacl as acl from pg_namespace
          union all select 'relation', oid::regclass::text, relacl from pg_class
          union all select 'function', oid::regprocedure::text, proacl from pg_proc
          union all select 'database', datname, datacl from pg_database) as objects, aclexplode(acl)
       where grantee = 'rest'::regrole`
    expect(granted).toEqual([{ kind: 'schema', name: 'extensions', verb: 'USAGE' }])
    expect(await attempt("set role anon; select extensions.crypt('x', extensions.gen_salt('bf', 4))")).toBe('passes')
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

describe('what remains different from hosted', () => {
  it('diff-engine-1 a stand-in of an extension has no members and cannot be dropped', async () => {
    const [row] = await sql`
      select count(*)::int from pg_depend d join pg_extension e on e.oid = d.refobjid
      where d.refclassid = 'pg_extension'::regclass and e.extname in ('pgmq', 'pg_net', 'supabase_vault') and d.deptype = 'e'`
    expect(row).toEqual({ count: 0 })
    expect(await attempt('drop extension pgmq')).toBe('42501')
    expect(await attempt("comment on extension pgmq is 'x'")).toBe('42501')
  })

  it('diff-engine-2 the stand-in of pgvector is an array: no dimension in the type, no index', async () => {
    expect(await attempt('create table public.t (e extensions.vector(3))')).toBe('42601')
    expect(await attempt('create index on public.notes using hnsw (embedding extensions.vector_cosine_ops)')).toBe(
      '42704',
    )
    const [row] = await sql`select typtype from pg_type where oid = 'extensions.vector'::regtype`
    expect(row!.typtype).toBe('d')
  })

  it('diff-engine-3 an extension that is in no npm package is not available', async () => {
    for (const name of ['pg_graphql', 'pg_jsonschema', 'http', 'postgis', 'wrappers']) {
      expect(await attempt(`create extension if not exists ${name}`)).toBe('0A000')
    }
  })

  it('diff-engine-4 what supautils allows postgres on hosted is refused', async () => {
    const event = `create function public.t() returns event_trigger language plpgsql as $$ begin end $$;
      create event trigger t on ddl_command_end execute function public.t()`
    const dropTrigger = `create function public.t() returns trigger language plpgsql as $$ begin return new; end $$;
      create or replace trigger on_sign_up after insert on auth.users for each row execute function public.t();
      drop trigger on_sign_up on auth.users`
    for (const statement of [
      event,
      dropTrigger,
      "set session_replication_role = 'replica'",
      "set log_statement = 'all'",
    ]) {
      expect(await attempt(statement)).toBe('42501')
    }
  })

  it('diff-engine-5 pgmq has functions that the version it names lacks', async () => {
    const [row] = await sql`
      select extversion, to_regprocedure('pgmq.send_topic(text, jsonb)') is not null as newer
      from pg_extension where extname = 'pgmq'`
    expect(row).toEqual({ extversion: '1.5.1', newer: true })
  })

  it('diff-engine-6 auth holds no tables for single sign-on and OAuth servers', async () => {
    const rows =
      await sql`select to_regclass('auth.' || name) as there from unnest(array['sso_providers', 'saml_providers', 'oauth_clients']) as name`
    expect(rows.map((row) => row.there)).toEqual([null, null, null])
  })

  it('diff-engine-7 realtime.messages has one default partition', async () => {
    const rows =
      await sql`select inhrelid::regclass::text as name from pg_inherits where inhparent = 'realtime.messages'::regclass`
    expect(rows).toEqual([{ name: 'realtime.messages_default' }])
  })

  it('diff-engine-8 no statement timeout caps the role postgres', async () => {
    expect(await sql`show statement_timeout`).toEqual([{ statement_timeout: '0' }])
  })

  it("diff-engine-9 Vault's key lies in the database, encrypted with pgcrypto", async () => {
    const [row] =
      await sql`select decode(secret, 'base64') is not null as armoured from vault.secrets where name = 'greeting'`
    expect(row).toEqual({ armoured: true })
    expect(await sql`select count(*)::int from vault._key`).toEqual([{ count: 1 }])
  })

  it('diff-engine-10 the database is reached directly, by one address for sessions and transactions', async () => {
    const { database } = served.stack
    expect(await served.sql()`select inet_server_port() as port`).toEqual([{ port: database.port }])
  })
})
