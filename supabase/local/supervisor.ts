import { bootstrap, setDefaultPrivileges } from './bootstrap/bootstrap.ts'
import { readProject } from './config.ts'
import { createCluster, exists, openCluster, startCluster, stopCluster } from './engine.ts'
import { functionEnvironment } from './env.ts'
import { loadSecrets, writePrivate } from './keys.ts'
import { migrate, seed, upsertVault } from './migrations.ts'
import type { Stack } from './stack.ts'
import { Child } from './supervised.ts'

export interface Options {
  port: number
  data: string
  project: string
  quiet: boolean
  wallClockSeconds: number | null
  realtimeLimits: boolean
  autoExpose: boolean | null
}

export async function supervise(options: Options, stopRequested: Promise<void>): Promise<void> {
  const say = (text: string) => {
    if (!options.quiet) console.log(text)
  }
  const { data } = options
  Deno.mkdirSync(`${data}/logs`, { recursive: true })
  if (Deno.uid() === 0) Deno.chmodSync(data, 0o711)
  const { passwords, ...keys } = await loadSecrets(data)
  const port = freePort(options.port)
  const stack: Stack = {
    project: options.project,
    data,
    url: `http://127.0.0.1:${port}`,
    ports: { platform: port, functions: freePort(), worker: freePort(), sandbox: freePort() },
    database: { host: '127.0.0.1', port: freePort(), name: 'postgres', passwords },
    keys,
    wallClockSeconds: options.wallClockSeconds,
    realtimeLimits: options.realtimeLimits,
  }
  const project = readProject(options.project, functionEnvironment(stack))

  const cluster = openCluster(data)
  if (cluster.user) Deno.chownSync(`${data}/logs`, cluster.user.uid, cluster.user.gid)
  const fresh = !exists(cluster.folder)
  if (fresh) {
    say('· making a database')
    await createCluster(cluster, passwords.supabase_admin)
  }
  await startCluster(cluster, stack.database.port)
  const children: Child[] = []
  try {
    say('· platform')
    await bootstrap(stack)
    await setDefaultPrivileges(stack, options.autoExpose ?? project.api.auto_expose_new_tables)
    await upsertVault(stack, project)
    const notice = (text: string) => say(`  ${text}`)
    say('· migrations')
    await migrate(stack, project, notice)
    await seed(stack, project, notice)

    writePrivate(`${data}/stack.json`, JSON.stringify(stack, null, 2))
    say('· services')
    for (const [name, script, ...more] of [
      ['platform', 'platform'],
      ['functions', 'functions'],
      ['worker', 'functions', 'worker'],
      ['sandbox', 'sandbox'],
    ] as const) {
      const logFile = `${data}/logs/${name}.log`
      children.push(
        new Child({
          name,
          script: new URL(`./children/${script}.ts`, import.meta.url),
          args: [`${data}/stack.json`, ...more],
          logFile,
          onLine: (from, line) => {
            Deno.writeTextFileSync(logFile, `${line}\n`, { append: true })
            if (!options.quiet) console.log(`[${from}] ${line}`)
          },
          onPid: () => {},
        }),
      )
    }
    await Promise.all(children.map((child) => child.start()))
    console.log(
      options.quiet
        ? `ready ${stack.url}`
        : `Serving ${stack.url}\n  publishable key  ${keys.publishable}\n  secret key       ${keys.secret}`,
    )
    await stopRequested
  } finally {
    await Promise.all(children.map((child) => child.stop()))
    await stopCluster(cluster)
  }
}

/** The wanted port, or a free one. */
function freePort(wanted = 0): number {
  const listener = Deno.listen({ hostname: '127.0.0.1', port: wanted })
  const { port } = listener.addr as Deno.NetAddr
  listener.close()
  return port
}
