// Starts the local stack: checks Node, finds npm's Deno and hands over. Plain JavaScript, so that an old Node can say so.
import { spawn } from 'node:child_process'
import { chmodSync, existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))

function fail(message) {
  console.error(message)
  process.exit(1)
}

const [major, minor] = process.versions.node.split('.').map(Number)
const supported = (major === 20 && minor >= 19) || (major === 22 && minor >= 12) || (major >= 24 && major % 2 === 0)
if (!supported) {
  fail(
    `This project needs Node 20.19 or newer, of an even release (20, 22, 24, …); this is ${process.version}.\nInstall one from https://nodejs.org and run \`npm install\` again.`,
  )
}

if (process.platform === 'win32') {
  fail(
    'The local stack runs on Linux and macOS. On Windows, run it inside WSL (https://learn.microsoft.com/windows/wsl/install).',
  )
}

/** The executable itself: npm may have been told to run no install scripts, and then `node_modules/.bin/deno` is a detour. */
function findDeno() {
  const musl = process.platform === 'linux' && !process.report.getReport().header.glibcVersionRuntime
  if (musl) fail('The local stack needs glibc: Deno and Postgres from npm have no build for musl (Alpine Linux).')
  const target = `@deno/${process.platform}-${process.arch}${process.platform === 'linux' ? '-glibc' : ''}`
  const require = createRequire(import.meta.url)
  let folder
  try {
    folder = dirname(createRequire(require.resolve('deno/package.json')).resolve(`${target}/package.json`))
  } catch {
    fail(`Deno is not installed (${target} is missing). Run \`npm install\`, without --omit=optional.`)
  }
  const file = join(folder, 'deno')
  if (!existsSync(file)) fail(`Deno is not installed: ${file} is missing. Run \`npm install\` again.`)
  try {
    chmodSync(file, 0o755)
  } catch {
    // Installed by somebody else: then it is executable already, or the spawn below says so.
  }
  return file
}

function rootConfig() {
  let folder = here
  while (!existsSync(join(folder, 'deno.json')) && dirname(folder) !== folder) folder = dirname(folder)
  return join(folder, 'deno.json')
}

const child = spawn(
  findDeno(),
  ['run', '-A', '--quiet', '--no-prompt', '--config', rootConfig(), join(here, 'main.ts'), ...process.argv.slice(2)],
  // The stack ends when this pipe closes, also when we are killed.
  { stdio: ['pipe', 'inherit', 'inherit'], env: { DENO_NO_UPDATE_CHECK: '1', ...process.env } },
)
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
child.on('error', (error) => fail(`Deno cannot be started: ${error.message}`))
child.on('exit', (code, signal) => process.exit(code ?? (signal === 'SIGKILL' ? 137 : 1)))
