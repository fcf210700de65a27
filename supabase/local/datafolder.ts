import { exists } from './binaries.ts'
import { existingCluster } from './engine.ts'
import { exitCode, Failure } from './failure.ts'
import { writePrivate } from './keys.ts'
import { commandLine, isAlive } from './processes.ts'

/** The one data folder a stack works in, held by a file lock that the system releases however we end. */
export interface DataFolder {
  path: string
  release(): void
}

const ours = ['keys.json', 'lock']

/** Opens or makes a data folder and locks it. Refuses a folder in use, and one that holds somebody else's files. */
export function lockDataFolder(path: string): DataFolder {
  let lock: Deno.FsFile
  try {
    Deno.mkdirSync(path, { recursive: true })
    const names = [...Deno.readDirSync(path)].map((entry) => entry.name)
    if (names.length > 0 && !ours.some((name) => names.includes(name))) {
      throw new Failure(
        `${path} is not a data folder of this stack, and not empty.`,
        exitCode.data,
        'Choose another one with --data.',
      )
    }
    lock = Deno.openSync(`${path}/lock`, { create: true, read: true, write: true, mode: 0o600 })
  } catch (error) {
    if (error instanceof Failure) throw error
    throw new Failure(
      `The data folder ${path} cannot be used: ${(error as Error).message}`,
      exitCode.data,
      'It may belong to another user; choose another one with --data.',
    )
  }
  if (!lock.tryLockSync(true)) {
    throw new Failure(
      `The data folder ${path} is in use${runningUrl(path)}.`,
      exitCode.inUse,
      'Stop that stack first, or choose another folder with --data (and another --port).',
    )
  }
  // The server runs as another user when we are root, and must be able to reach its own folder below.
  if (Deno.build.os !== 'windows' && Deno.uid() === 0) Deno.chmodSync(path, 0o711)
  Deno.mkdirSync(`${path}/logs`, { recursive: true, mode: 0o700 })
  setAsideLogs(`${path}/logs`)
  return { path, release: () => lock.close() }
}

/** One generation of long logs is kept. */
function setAsideLogs(folder: string): void {
  for (const { name } of [...Deno.readDirSync(folder)]) {
    const file = `${folder}/${name}`
    if (name.endsWith('.log') && Deno.statSync(file).size > 5_000_000) Deno.renameSync(file, `${file}.old`)
  }
}

function runningUrl(path: string): string {
  try {
    const { url } = JSON.parse(Deno.readTextFileSync(`${path}/stack.json`))
    const { supervisor } = JSON.parse(Deno.readTextFileSync(`${path}/children.json`))
    return ` by the stack that serves ${url} (process ${supervisor})`
  } catch {
    return ' by a stack that is starting'
  }
}

/** Deletes what a data folder holds, but not its lock: whoever waits for that file must not meet a new one. */
export async function resetData({ path }: DataFolder): Promise<void> {
  await endStaleChildren(path)
  if (exists(`${path}/pg`)) {
    const cluster = existingCluster(path)
    await cluster.endLeftover()
    Deno.removeSync(cluster.home === path ? cluster.folder : cluster.home, { recursive: true })
  }
  for (const entry of Deno.readDirSync(path)) {
    if (entry.name !== 'lock') Deno.removeSync(`${path}/${entry.name}`, { recursive: true })
  }
  Deno.mkdirSync(`${path}/logs`, { mode: 0o700 })
}

/** `children.json`: who is running, for the start after a kill, and for tests that kill. */
export function recordChildren(path: string, children: Record<string, number | null>): void {
  writePrivate(`${path}/children.json`, JSON.stringify({ supervisor: Deno.pid, ...children }, null, 2))
}

/**
 * Ends the children that a killed supervisor left. They end by themselves when their input closes; who is still there
 * after two seconds is killed, if the process with the recorded number really is a child of this data folder.
 */
export async function endStaleChildren(path: string): Promise<number> {
  let recorded: Record<string, number | null>
  try {
    recorded = JSON.parse(Deno.readTextFileSync(`${path}/children.json`))
  } catch {
    return 0
  }
  const isOurs = (pid: number) => commandLine(pid).includes(`${path}/stack.json`)
  const left = () =>
    Object.entries(recorded).flatMap(([name, pid]) => (name !== 'supervisor' && pid && isOurs(pid) ? [pid] : []))
  const found = left().length
  const deadline = Date.now() + 2_000
  while (left().length > 0 && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 50))
  for (const pid of left()) Deno.kill(pid, 'SIGKILL')
  while (left().some(isAlive)) await new Promise((resolve) => setTimeout(resolve, 20))
  Deno.removeSync(`${path}/children.json`)
  return found
}
