import { spawnSync } from 'node:child_process'
import { renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { madeData, outcome, project, run, serve, stop, until, write } from './fixtures/processes.ts'

const third = 'migrations/20260103000000_third.sql'
const tables =
  "select string_agg(tablename, ' ' order by tablename) as names from pg_tables where schemaname = 'public'"

describe('a migration', () => {
  it('that fails leaves nothing behind, says where, and can be mended', async () => {
    const data = await madeData()
    const dir = project({
      [third]:
        '-- makes things\ncreate table public.things (id int);\n\ninsert into public.things\n  values (1 / 0);\n',
    })
    const failed = await outcome({ data, project: dir })
    expect(failed.code).toBe(6)
    expect(failed.said).toContain(`supabase/${third}, line 4: division by zero (22012)`)

    write(join(dir, 'supabase', third), 'create table public.things (id int);')
    const mended = await serve({ data, project: dir })
    expect(await mended.sql().unsafe(tables)).toEqual([{ names: 'notes things' }])
  })

  it('with a mistake of syntax is told by its line, inside a statement too', async () => {
    const dir = project({ [third]: 'create table public.things (\n  id int,\n  name txet\n);\n' })
    const { code, said } = await outcome({ data: await madeData(), project: dir })
    expect(code).toBe(6)
    expect(said).toContain(`supabase/${third}, line 3: type "txet" does not exist (42704)`)
  })

  it('may not do what hosted refuses', async () => {
    const dir = project({ [third]: 'alter table auth.users add column nickname text;' })
    const { code, said } = await outcome({ data: await madeData(), project: dir })
    expect(code).toBe(6)
    expect(said).toContain('must be owner of table users (42501)')
  })

  it('is one transaction whatever it commits by itself', async () => {
    const data = await madeData()
    const text = 'begin;\ncreate table public.half (id int);\ncommit;\nselect 1 / 0;'
    const dir = project({ [third]: text })
    expect((await outcome({ data, project: dir })).code).toBe(6)
    rmSync(join(dir, 'supabase', third))
    const without = await serve({ data, project: dir })
    expect(await without.sql().unsafe(tables)).toEqual([{ names: 'notes' }])
  })

  it('that was under way when everything was killed is not half applied, and runs at the next start', async () => {
    const data = await madeData()
    const dir = project({ [third]: 'create table public.slow (id int);\nselect pg_sleep(60);' })
    const first = run({ data, project: dir, flags: [] })
    const server = () => Number(spawnSync('head', ['-1', join(data, 'pg/postmaster.pid')]).stdout.toString())
    await until(() => spawnSync('pgrep', ['-P', String(server()), '-f', 'SELECT']).status === 0)
    for (const pid of [first.pids().supervisor!, server()]) process.kill(pid, 'SIGKILL')
    await first.ended

    write(join(dir, 'supabase', third), 'create table public.slow (id int);')
    const second = await serve({ data, project: dir })
    expect(await second.sql().unsafe(tables)).toEqual([{ names: 'notes slow' }])
  })

  it('that came later is applied at the next start, once', async () => {
    const data = await madeData()
    const dir = project()
    await stop(await serve({ data, project: dir }))
    write(join(dir, 'supabase', third), 'create table public.things (id int);')
    await stop(await serve({ data, project: dir }))
    const running = await serve({ data, project: dir })
    expect(await running.sql().unsafe(tables)).toEqual([{ names: 'notes things' }])
  })

  it('that was changed, removed or put before an applied one asks for a reset', async () => {
    const data = await madeData()
    const dir = project()
    const at = (name: string) => join(dir, 'supabase/migrations', name)
    const titles = '20260102000000_titles.sql'
    await stop(await serve({ data, project: dir }))

    const expectRefusal = async (why: string) => {
      const { code, said } = await outcome({ data, project: dir })
      expect(code).toBe(6)
      expect(said).toContain(why)
      expect(said).toContain('npm run reset')
    }
    renameSync(at(titles), at('kept'))
    await expectRefusal('version 20260102000000 was applied and its file is gone')
    write(at(titles), 'alter table public.notes add column title varchar;')
    await expectRefusal(`supabase/migrations/${titles} has changed since it was applied`)
    renameSync(at('kept'), at(titles))
    write(at('20251231000000_early.sql'), 'select 1;')
    await expectRefusal('20251231000000_early.sql is older than 20260102000000')

    const anew = await serve({ data, project: dir, flags: ['--quiet', '--reset'] })
    expect(await anew.sql()`select count(*)::int from supabase_migrations.schema_migrations`).toEqual([{ count: 3 }])
  })

  it('is split into statements as Postgres reads them', async () => {
    const statements = [
      `create table public."odd;name" (id int, "a""b" text default ';', c text default E'\\';')`,
      "-- a comment; with a semicolon\n/* and /* a nested; one */ ; */ create function public.f() returns text language plpgsql as $body$\nbegin\n  return $$;$$ || ';';\nend;\n$body$",
      'create function public.g(x int) returns int language sql begin atomic select case when x > 1 then 1 else 2 end; select 3; end',
      "comment on function public.f() is 'it''s; fine'",
      'select 1 as "end"',
    ]
    const stack = await serve({ project: project({ [third]: `${statements.join(';\n\n')};\n-- the end;\n` }) })
    const sql = stack.sql()
    const [row] =
      await sql`select name, statements from supabase_migrations.schema_migrations where version = '20260103000000'`
    expect(row).toEqual({ name: 'third', statements })
    expect(await sql`select public.f() as f, public.g(1) as g`).toEqual([{ f: ';;', g: 3 }])
  })

  it('is known to the Supabase CLI as applied', async () => {
    const stack = await serve()
    const { host, port, name, passwords } = stack.stack().database
    const url = `postgresql://postgres:${passwords.postgres}@${host}:${port}/${name}`
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [
        'node_modules/.bin/supabase',
        'db',
        'push',
        '--workdir',
        'tests/local/fixtures/other-project',
        `--remote=${url}`,
        '--yes',
      ],
      { encoding: 'utf8', env: { ...process.env, SUPABASE_TELEMETRY_DISABLED: '1' } },
    )
    expect(stdout + stderr).toContain('up to date')
    expect(status).toBe(0)
  })

  it('with a name that is none is left out, and two of one version are refused', async () => {
    const loud = await serve({ project: project({ 'migrations/notes.sql': 'select 1 / 0;' }), flags: [] })
    expect(loud.said()).toContain('notes.sql is skipped')
    const twice = await outcome({
      data: await madeData(),
      project: project({ 'migrations/20260102000000_again.sql': 'select 1;' }),
    })
    expect(twice.code).toBe(6)
    expect(twice.said).toContain('Two migrations have the version 20260102000000')
  })
})

describe('a seed', () => {
  it('that fails leaves nothing behind and runs when it is mended', async () => {
    const data = await madeData()
    const dir = project({ 'seed.sql': "insert into public.notes (body) values ('one');\nselect 1 / 0;\n" })
    const failed = await outcome({ data, project: dir })
    expect(failed.code).toBe(6)
    expect(failed.said).toContain('supabase/seed.sql, line 2: division by zero')

    write(join(dir, 'supabase/seed.sql'), "insert into public.notes (body) values ('one');")
    const mended = await serve({ data, project: dir })
    expect(await mended.sql()`select body from public.notes`).toEqual([{ body: 'one' }])
  })

  it('runs once, also when it is changed later', async () => {
    const data = await madeData()
    const dir = project()
    await stop(await serve({ data, project: dir }))
    write(join(dir, 'supabase/seed.sql'), "insert into public.notes (body) values ('again');")
    const second = await serve({ data, project: dir, flags: [] })
    expect(second.said()).toContain('supabase/seed.sql has changed since it ran')
    expect(await second.sql()`select count(*)::int from public.notes`).toEqual([{ count: 5 }])
  })
})
