import { clusterHome, exists, postgresBinaries, type ServerUser, serverUser } from './binaries.ts'
import { exitCode, Failure } from './failure.ts'
import { commandLine, isAlive, processesIn, takePort } from './processes.ts'

/** The database server of a stack. */
export interface Engine {
  address: { host: string; port: number; name: string }
  /** Starts the server, or waits for one that is not ours to start. Also after it died, on the same port. */
  start(): Promise<void>
  stop(): Promise<void>
}

const majorVersion = '17'

/**
 * The embedded Postgres of a data folder. pg_ctl starts it detached, with a log file, so that it outlives a crash of ours
 * whole. What a killed run left is stopped first: adopting it would keep unknown settings.
 */
export async function openCluster(options: {
  data: string
  adminPassword: string
  preferredPort: number
  say: (text: string) => void
}): Promise<Engine> {
  const cluster = existingCluster(options.data)
  if (exists(cluster.folder)) {
    cluster.checkVersion()
    if (await cluster.endLeftover()) options.say('stopped the database server that a killed run had left')
  } else {
    options.say('making a database')
    await cluster.create(options.adminPassword)
  }
  const address = { host: '127.0.0.1', port: takePort(options.preferredPort) ?? takePort(0)!, name: 'postgres' }
  return {
    address,
    stop: () => cluster.stop(),
    start: async () => {
      await cluster.endLeftover()
      await cluster.start(address.port)
    },
  }
}

/** The cluster of a data folder, whether it has been made or not. */
export function existingCluster(data: string): Cluster {
  const user = serverUser(data)
  const home = clusterHome(data, user)
  if (user) Deno.chownSync(`${home}/logs`, user.uid, user.gid)
  return new Cluster(home, user, postgresBinaries(user, data))
}

class Cluster {
  readonly folder: string
  private readonly log: string

  constructor(
    readonly home: string,
    private readonly user: ServerUser,
    private readonly binaries: string,
  ) {
    this.folder = `${home}/pg`
    this.log = `${home}/logs/postgres.log`
  }

  checkVersion(): void {
    let version: string
    try {
      version = Deno.readTextFileSync(`${this.folder}/PG_VERSION`).trim()
    } catch {
      throw new Failure(
        `${this.folder} holds no readable Postgres data.`,
        exitCode.data,
        'Run `npm run reset` to make it anew.',
      )
    }
    if (version !== majorVersion) {
      throw new Failure(
        `The data in ${this.folder} was made by Postgres ${version}; this stack runs ${majorVersion}.`,
        exitCode.data,
        'Choose another folder with --data, or run `npm run reset` to make the data anew.',
      )
    }
  }

  /** Makes the files beside their final place and moves them there whole: a killed start leaves nothing half made. */
  async create(adminPassword: string): Promise<void> {
    const draft = `${this.folder}.new`
    if (exists(draft)) Deno.removeSync(draft, { recursive: true })
    Deno.mkdirSync(draft, { mode: 0o700 })
    const passwordFile = `${draft}.password`
    Deno.writeTextFileSync(passwordFile, adminPassword, { mode: 0o600 })
    for (const path of [draft, passwordFile]) if (this.user) Deno.chownSync(path, this.user.uid, this.user.gid)
    try {
      await this.run('initdb', [
        ...['-D', draft, '-U', 'supabase_admin', '--encoding=UTF8', '--no-sync'],
        // macOS has no C.UTF-8.
        ...(Deno.build.os === 'darwin' ? ['--locale=C', '--lc-ctype=en_US.UTF-8'] : ['--locale=C.UTF-8']),
        ...['--auth=scram-sha-256', `--pwfile=${passwordFile}`],
      ])
    } finally {
      Deno.removeSync(passwordFile)
    }
    Deno.renameSync(draft, this.folder)
  }

  async start(port: number): Promise<void> {
    const settings = {
      listen_addresses: '127.0.0.1',
      port,
      // No socket files that could collide.
      unix_socket_directories: '',
      wal_level: 'logical',
      max_connections: 100,
      max_wal_senders: 20,
      max_replication_slots: 20,
      log_line_prefix: '%m [%p] %q%u@%d ',
      timezone: 'UTC',
    }
    // pg_ctl hands this to a shell.
    const options = Object.entries(settings)
      .map(([name, value]) => `-c ${name}='${value}'`)
      .join(' ')
    const logged = exists(this.log) ? Deno.statSync(this.log).size : 0
    try {
      await this.run('pg_ctl', ['start', '-D', this.folder, '-l', this.log, '-w', '-t', '60', '-s', '-o', options])
    } catch (error) {
      const reasons = Deno.readTextFileSync(this.log)
        .slice(logged)
        .split('\n')
        .filter((line) => /\b(FATAL|PANIC|HINT|could not)\b/.test(line))
        .map((line) => line.replace(/^.*?\b(FATAL|PANIC|HINT|LOG|WARNING): +/, ''))
      if (reasons.length === 0) throw error
      throw new Failure(`Postgres does not start: ${reasons.join('\n  ')}\n  (log: ${this.log})`, exitCode.engine)
    }
  }

  /** Resolves when the server is down, at once if it is already. */
  async stop(): Promise<void> {
    if (this.serverPid() === null) return
    const end = (mode: string) => this.run('pg_ctl', ['stop', '-D', this.folder, '-m', mode, '-w', '-t', '10', '-s'])
    // What is committed survives either way.
    await end('fast').catch(() => end('immediate'))
  }

  /** The living server of this folder. The pid file survives a kill, and its number may be somebody else's by now. */
  private serverPid(): number | null {
    try {
      const pid = Number(Deno.readTextFileSync(`${this.folder}/postmaster.pid`).split('\n')[0])
      return isAlive(pid) && commandLine(pid).includes(this.folder) ? pid : null
    } catch {
      return null
    }
  }

  /**
   * Ends a server that a killed run left, and waits for the last backend of a server that was itself killed. Only then is
   * its pid file removed: the killed server may stay a zombie, which Postgres takes for a running one.
   */
  async endLeftover(): Promise<boolean> {
    const left = this.serverPid() !== null
    const deadline = Date.now() + 15_000
    // Asked to stop while it recovers from a crash, Postgres 17 may wait for ever.
    const recovers = () => processesIn(this.folder).some((pid) => commandLine(pid).startsWith('postgres: startup'))
    while (recovers() && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 50))
    await this.stop()
    while (processesIn(this.folder).length > 0) {
      if (Date.now() > deadline) {
        throw new Failure(
          `Processes of an earlier database server do not end: ${processesIn(this.folder).join(', ')}.`,
          exitCode.engine,
        )
      }
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    if (exists(`${this.folder}/postmaster.pid`)) Deno.removeSync(`${this.folder}/postmaster.pid`)
    return left
  }

  private async run(name: string, args: string[]): Promise<void> {
    const { code, stdout, stderr } = await new Deno.Command(`${this.binaries}/bin/${name}`, {
      args,
      cwd: this.home,
      env: { LC_ALL: 'C' },
      stdout: 'piped',
      stderr: 'piped',
      ...(this.user ?? {}),
    }).output()
    if (code === 0) return
    const said = new TextDecoder().decode(stderr) + new TextDecoder().decode(stdout)
    throw new Failure(`${name} failed: ${said.trim() || `exit code ${code}`}`, exitCode.engine)
  }
}
