import { exists } from './binaries.ts'
import { bootstrap, setDefaultPrivileges } from './bootstrap/bootstrap.ts'
import { uploadBucketFiles } from './buckets.ts'
import { type Project, readProject } from './config.ts'
import { type DataFolder, endStaleChildren, recordChildren } from './datafolder.ts'
import { openCluster } from './engine.ts'
import { databaseUrlOf, functionEnvironment } from './env.ts'
import { openExternal } from './external.ts'
import { exitCode, Failure } from './failure.ts'
import { DatabaseKeeper } from './keeper.ts'
import { loadSecrets, type Secrets, writePrivate } from './keys.ts'
import { migrate, seed, upsertVault } from './migrations.ts'
import { takePort, whoListens } from './processes.ts'
import type { Stack } from './stack.ts'
import { Child } from './supervised.ts'

export interface Options {
  project: string
  port: number
  wallClockSeconds: number | null
  realtimeLimits: boolean
  /** false = whatever config.toml says, new tables are not granted to the API roles. */
  autoExpose: boolean
  /** DATABASE_URL may name another machine. */
  acceptServer: boolean
}

/** What is told to the person at the terminal. */
export interface Terminal {
  step(text: string): void
  child(name: string, line: string): void
  ready(stack: Stack, project: Project): void
}

/** Starts everything in order, keeps it running until `stopRequested`, and stops it in reverse order, however it went. */
export async function supervise(
  options: Options,
  folder: DataFolder,
  terminal: Terminal,
  stopRequested: Promise<void>,
): Promise<void> {
  const data = folder.path
  // Bad input is refused before anything is started or made.
  readProject(options.project)
  const stale = await endStaleChildren(data)
  if (stale > 0) terminal.step(`ended ${stale} processes that a killed run had left`)
  recordChildren(data, {})
  const secrets = await loadSecrets(data, exists(`${data}/pg`))
  const port = await publicPort(options.port)
  const { passwords: _, ...keys } = secrets
  const { engine, passwords } = await openEngine(options, secrets, data, terminal)
  const stack: Stack = {
    project: options.project,
    data,
    url: `http://127.0.0.1:${port}`,
    ports: { platform: port, functions: takePort(0)!, worker: takePort(0)!, sandbox: takePort(0)! },
    database: { ...engine.address, passwords },
    keys,
    wallClockSeconds: options.wallClockSeconds,
    realtimeLimits: options.realtimeLimits,
  }
  const keeper = new DatabaseKeeper(stack, engine, terminal.step)
  const children = makeChildren(stack, terminal)
  const stopped = stopRequested.then(() => true)
  try {
    terminal.step('starting the database')
    await keeper.start()
    const project = await prepareDatabase(stack, options, terminal)
    writePrivate(`${data}/stack.json`, JSON.stringify(stack, null, 2))
    terminal.step('starting the services')
    const started = Promise.all(children.map((child) => child.start())).then(() => warmUp(stack))
    if ((await Promise.race([started, keeper.lost, stopped])) === true) return
    await uploadBucketFiles(stack, project, terminal.step)
    terminal.ready(stack, project)
    await Promise.race([stopRequested, keeper.lost])
  } finally {
    terminal.step('stopping')
    await Promise.all(children.map((child) => child.stop()))
    await keeper.stop()
    Deno.removeSync(`${data}/children.json`)
  }
}

/** The embedded server of the data folder, or the one that DATABASE_URL names. */
async function openEngine(options: Options, secrets: Secrets, data: string, { step: say }: Terminal) {
  const url = databaseUrlOf(options.project)
  if (url) return await openExternal({ url, accepted: options.acceptServer, secrets, say })
  const engine = await openCluster({
    data,
    adminPassword: secrets.passwords.supabase_admin,
    preferredPort: options.port === 0 ? 0 : options.port + 1,
    say,
  })
  return { engine, passwords: secrets.passwords }
}

async function prepareDatabase(stack: Stack, options: Options, terminal: Terminal): Promise<Project> {
  const project = readProject(stack.project, functionEnvironment(stack))
  await bootstrap(stack)
  await setDefaultPrivileges(stack, options.autoExpose && project.api.auto_expose_new_tables)
  await upsertVault(stack, project)
  const applied = await migrate(stack, project, terminal.step)
  if (applied > 0) terminal.step(`applied ${applied} ${applied === 1 ? 'migration' : 'migrations'}`)
  await seed(stack, project, terminal.step)
  return project
}

function makeChildren(stack: Stack, terminal: Terminal): Child[] {
  const pids: Record<string, number | null> = {}
  const descriptions: [name: string, script: string, ...args: string[]][] = [
    ['platform', 'platform'],
    ['functions', 'functions'],
    ['worker', 'functions', 'worker'],
    ['sandbox', 'sandbox'],
  ]
  return descriptions.map(([name, script, ...args]) => {
    const logFile = `${stack.data}/logs/${name}.log`
    return new Child({
      name,
      script: new URL(`./children/${script}.ts`, import.meta.url),
      args: [`${stack.data}/stack.json`, ...args],
      onLine: (line) => {
        Deno.writeTextFileSync(logFile, `${line}\n`, { append: true, create: true })
        terminal.child(name, line)
      },
      onPid: (pid) => {
        pids[name] = pid
        recordChildren(stack.data, pids)
      },
    })
  })
}

/** The first answer of the Data API reads the whole catalogue; better now than in somebody's first request. */
async function warmUp({ url, keys }: Stack): Promise<void> {
  const response = await fetch(`${url}/rest/v1/`, { headers: { apikey: keys.publishable } }).catch(() => null)
  await response?.body?.cancel()
}

/** The public port. One that a killed run's child is just giving up is waited for. */
async function publicPort(wanted: number): Promise<number> {
  for (const deadline = Date.now() + 1_000; ; ) {
    const port = takePort(wanted)
    if (port !== null) return port
    if (Date.now() > deadline) break
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  const who = whoListens(wanted)
  throw new Failure(
    `Port ${wanted} is taken${who ? ` by ${who}` : ''}.`,
    exitCode.portTaken,
    'Stop that program, or choose another port: npm start -- --port 54331 (0 takes a free one).',
  )
}
