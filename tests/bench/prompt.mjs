// CPU time of composing a prompt from 2,000 messages and 500 lore entries; the first run is that of an isolate that just began.
import { execFileSync } from 'node:child_process'
import { line } from './support.mjs'

export default function run() {
  const output = execFileSync('npx', ['--no', 'deno', '--', 'run', '-A', '--no-check', 'tests/bench/compose.ts'], {
    encoding: 'utf8',
  })
  const [first, ...rest] = JSON.parse(output)
  const sorted = rest.toSorted((a, b) => a - b)
  const at = (share) => sorted[Math.floor(sorted.length * share)].toFixed(1)
  line(
    'composing from 2,000 messages and 500 lore entries',
    `${at(0.5)} ms`,
    `p95 ${at(0.95)} ms, first run ${first.toFixed(1)} ms; goal 15 ms of CPU`,
  )
}
