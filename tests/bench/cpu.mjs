import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

const ticks = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }))

/**
 * CPU seconds of Parlor's server processes until now: functions, worker, the platform and all of Postgres, with the processes
 * that they have ended; not the sandbox, whose models are somebody else's.
 */
export function cpuSeconds(stack) {
  const { sandbox, supervisor, ...children } = JSON.parse(readFileSync(join(stack.data, 'children.json'), 'utf8'))
  const parents = new Map()
  for (const name of readdirSync('/proc')) {
    const stat = /^\d+$/.test(name) && statOf(name)
    if (stat) parents.set(Number(name), stat)
  }
  const counted = new Set(Object.values(children))
  for (let before = -1; before !== counted.size; ) {
    before = counted.size
    for (const [pid, { parent }] of parents) if (counted.has(parent)) counted.add(pid)
  }
  let sum = 0
  for (const pid of counted) sum += parents.get(pid)?.ticks ?? 0
  return sum / ticks
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
