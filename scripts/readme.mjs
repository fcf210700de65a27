// Runs the README as a stranger would: `npm start` in this folder, then the pasted first call, whose output must have the
// shape that the README shows (times in names differ). Fails otherwise.
import { spawn, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'

const [, section] = readFileSync('README.md', 'utf8').match(
  /<!-- first-call:begin -->([\s\S]*?)<!-- first-call:end -->/,
)
const [call, expected] = [...section.matchAll(/```\w+\n([\s\S]*?)```/g)].map(([, code]) => code)

const stack = spawn('npm', ['start'], { stdio: ['ignore', 'pipe', 'inherit'], detached: true })
try {
  const key = await new Promise((resolve, reject) => {
    let said = ''
    stack.once('exit', (code) => reject(new Error(`npm start ended with code ${code}\n${said}`)))
    stack.stdout.on('data', (chunk) => {
      said += chunk
      const [printed] = said.match(/sb_publishable_\S+(?=\s)/) ?? []
      if (printed && said.includes('Data folder')) resolve(printed)
    })
  })
  const { status, stdout, stderr } = spawnSync('bash', ['-c', call.replace(/sb_publishable_\.\.\./, key)], {
    encoding: 'utf8',
    timeout: 60_000,
  })
  const shape = (text) => text.replace(/_\d{13}/g, '_<time>').trim()
  if (status !== 0 || shape(stdout) !== shape(expected)) {
    console.error(`The first call printed\n${stdout}${stderr}\ninstead of\n${expected}`)
    process.exitCode = 1
  } else console.log(stdout)
} finally {
  stack.removeAllListeners('exit')
  process.kill(-stack.pid, 'SIGINT')
  await new Promise((resolve) => stack.once('exit', resolve))
}
