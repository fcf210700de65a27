/** What the system tells about processes and ports; Linux by /proc, elsewhere by `ps` and `lsof`. */

const linux = Deno.build.os === 'linux'

function output(command: string, args: string[]): string {
  try {
    return new TextDecoder().decode(new Deno.Command(command, { args, stderr: 'null' }).outputSync().stdout)
  } catch {
    return ''
  }
}

function read(path: string): string {
  try {
    return Deno.readTextFileSync(path)
  } catch {
    return ''
  }
}

/** Alive and no zombie: in a container without an init nobody reaps the dead. */
export function isAlive(pid: number): boolean {
  const state = linux
    ? /\) (\S)/.exec(read(`/proc/${pid}/stat`))?.[1]
    : output('ps', ['-o', 'stat=', '-p', String(pid)]).trim()[0]
  return state !== undefined && state !== 'Z' && state !== 'X'
}

/** The command of a living process with its arguments, '' when there is none. */
export function commandLine(pid: number): string {
  if (!isAlive(pid)) return ''
  return linux
    ? read(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim()
    : output('ps', ['-ww', '-o', 'command=', '-p', String(pid)]).trim()
}

/** Living processes whose working folder is `folder`; every process of a Postgres server works in its data folder. */
export function processesIn(folder: string): number[] {
  if (!linux) return output('lsof', ['-t', '-a', '-d', 'cwd', folder]).split('\n').filter(Boolean).map(Number)
  return [...Deno.readDirSync('/proc')]
    .map((entry) => Number(entry.name))
    .filter((pid) => {
      try {
        return pid > 0 && Deno.readLinkSync(`/proc/${pid}/cwd`) === folder && isAlive(pid)
      } catch {
        return false
      }
    })
}

/** Who listens on a TCP port, for people: "node (process 4711)", or '' when it cannot be told. */
export function whoListens(port: number): string {
  const pid = linux
    ? listenerByProc(port)
    : Number(output('lsof', ['-nP', '-t', `-iTCP:${port}`, '-sTCP:LISTEN']).split('\n')[0])
  return pid ? `process ${pid}: ${commandLine(pid).slice(0, 120)}` : ''
}

function listenerByProc(port: number): number {
  const hex = port.toString(16).toUpperCase().padStart(4, '0')
  const inodes = ['/proc/net/tcp', '/proc/net/tcp6'].flatMap((file) =>
    read(file)
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
      .filter((field) => field[1]?.endsWith(`:${hex}`) && field[3] === '0A')
      .map((field) => `socket:[${field[9]}]`),
  )
  if (inodes.length === 0) return 0
  for (const entry of Deno.readDirSync('/proc')) {
    if (!/^\d+$/.test(entry.name)) continue
    try {
      for (const fd of Deno.readDirSync(`/proc/${entry.name}/fd`)) {
        if (inodes.includes(Deno.readLinkSync(`/proc/${entry.name}/fd/${fd.name}`))) return Number(entry.name)
      }
    } catch {
      // Another user's process, or one that has just ended.
    }
  }
  return 0
}

/** Ports that this process tries next: a block of its own, so that stacks which start together do not choose the same. */
let next = 15_000 + ((Deno.pid * 8) % 16_000)

/**
 * The wanted loopback port when it is free, else null; 0 takes any free one. That is one below those that the system gives
 * to outgoing connections: one of those could be in use again by the time a child listens on it.
 */
export function takePort(wanted: number): number | null {
  if (wanted === 0) {
    while (next < 32_000) {
      const port = takePort(next++)
      if (port) return port
    }
  }
  try {
    const listener = Deno.listen({ hostname: '127.0.0.1', port: wanted })
    const { port } = listener.addr as Deno.NetAddr
    listener.close()
    return port
  } catch (error) {
    if (error instanceof Deno.errors.AddrInUse || error instanceof Deno.errors.PermissionDenied) return null
    throw error
  }
}
