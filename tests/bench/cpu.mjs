import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

const ticks = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }))

/**
 * CPU seconds of Parlor's server processes until now, by name: functions, worker, platform and all of Postgres, with the
 * processes that they have ended; not the sandbox, whose models are somebody else's, nor the supervisor.
 */
export function cpuSeconds(stack) {
  const { sandbox, supervisor, ...children } = JSON.parse(readFileSync(join(stack.data, 'children.json'), 'utf8'))
  const [postgres] = readFileSync(join(stack.data, 'pg', 'postmaster.pid'), 'utf8').split('\n')
  const processes = new Map()
  for (const name of readdirSync('/proc')) {
    const stat = /^\d+$/.test(name) && statOf(name)
    if (stat) processes.set(Number(name), stat)
  }
  const ofTree = (pid) => {
    let sum = processes.get(pid)?.ticks ?? 0
    for (const [child, { parent }] of processes) if (parent === pid) sum += ofTree(child)
    return sum
  }
  return Object.fromEntries(
    Object.entries({ ...children, postgres: Number(postgres) }).map(([name, pid]) => [name, ofTree(pid) / ticks]),
  )
}

/** Own time and that of children that were waited for. */
function statOf(pid) {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1).split(' ')
    return {
      parent: Number(fields[1]),
      ticks: fields
        .slice(11, 15)
        .map(Number)
        .reduce((a, b) => a + b),
    }
  } catch {
    // It has just ended.
  }
}
