// Time from `npm start`'s process to ready, cold (no data folder) and warm, and the memory of each process at rest.
import { readdirSync, readFileSync } from 'node:fs'
import { line, median, startStack } from './support.mjs'

export default async function run() {
  const cold = []
  const warm = []
  for (let round = 0; round < 3; round++) {
    const first = await startStack()
    cold.push(first.seconds)
    await first.stop()
    const second = await startStack(first.data)
    warm.push(second.seconds)
    if (round === 2) printMemory(second)
    await second.discard()
  }
  line('cold start, median of 3', `${median(cold).toFixed(2)} s`, 'goal 4 s')
  line('warm start, median of 3', `${median(warm).toFixed(2)} s`, 'goal 2 s')
}

/** Proportional memory (shared pages divided among their users) of every process whose command line names the data folder. */
function printMemory(stack) {
  const postmaster = Number(readFileSync(`${stack.data}/pg/postmaster.pid`, 'utf8').split('\n')[0])
  const processes = readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .flatMap((pid) => {
      try {
        const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim()
        const parent = Number(readFileSync(`/proc/${pid}/stat`, 'utf8').match(/\) . (\d+)/)[1])
        const kilobytes = Number(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8').match(/^Pss:\s+(\d+)/m)[1])
        const ofPostgres = Number(pid) === postmaster || parent === postmaster
        if (!ofPostgres && !command.includes(stack.data)) return []
        return [{ name: ofPostgres ? 'postgres, all processes' : nameOf(command), kilobytes }]
      } catch {
        return [] // the process ended while we looked
      }
    })
  const byName = Map.groupBy?.(processes, ({ name }) => name) ?? groupBy(processes)
  for (const [name, group] of byName) {
    line(`memory at rest: ${name}`, `${Math.round(group.reduce((sum, { kilobytes }) => sum + kilobytes, 0) / 1024)} MB`)
  }
}

const nameOf = (command) =>
  command
    .match(/children\/(\w+)\.ts \S+( worker)?/)
    ?.slice(1)
    .join('') ?? (command.includes('main.ts') ? 'supervisor' : 'npm start')

function groupBy(processes) {
  const groups = new Map()
  for (const process of processes) groups.set(process.name, [...(groups.get(process.name) ?? []), process])
  return groups
}
