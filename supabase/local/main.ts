import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { lockDataFolder, resetData } from './datafolder.ts'
import { databaseUrlOf, readEnvironment } from './env.ts'
import { exitCode, Failure } from './failure.ts'
import { supervise } from './supervisor.ts'
import { quietTerminal, talkingTerminal } from './terminal.ts'

const usage = `npm start -- [options]
  --port N            public port (PORT of .env, else 54321; 0 takes a free one)
  --data DIR          data folder (<project>/supabase/.temp/local)
  --project DIR       folder that holds supabase/ (this one)
  --reset             delete the data first
  --quiet             print one line when everything serves: ready <url>
  --wall-clock N      end the functions process N seconds after its first request, as hosted does
  --realtime-limits   enforce hosted's Realtime limits
  --no-auto-expose    new tables are not granted to the API roles, whatever config.toml says
  --yes-this-server   accept a DATABASE_URL that is not on this machine`

async function main(): Promise<void> {
  const { values: flags } = read(Deno.args)
  if (flags.help) return console.log(usage)
  const project = resolve(flags.project ?? fileURLToPath(new URL('../..', import.meta.url)))
  const data = resolve(flags.data ?? `${project}/supabase/.temp/local`)
  if ((flags.reset || flags['reset-only']) && databaseUrlOf(project)) {
    throw new Failure(
      'DATABASE_URL is set: the stack did not create that server and does not empty it.',
      exitCode.usage,
      'Make an empty server yourself, or unset DATABASE_URL to reset the embedded one.',
    )
  }
  const folder = lockDataFolder(data)
  if (flags.reset || flags['reset-only']) await resetData(folder)
  if (flags['reset-only']) return console.log(`Deleted what ${data} held; the next start makes it anew.`)
  await supervise(
    {
      project,
      port: integer('port', flags.port ?? readEnvironment(project).PORT ?? '54321', 0, 65535),
      wallClockSeconds: flags['wall-clock'] === undefined ? null : integer('wall-clock', flags['wall-clock'], 1, 86400),
      realtimeLimits: flags['realtime-limits'] ?? false,
      autoExpose: !flags['no-auto-expose'],
      acceptServer: flags['yes-this-server'] ?? false,
    },
    folder,
    flags.quiet ? quietTerminal() : talkingTerminal(),
    stopRequested(),
  )
}

function read(args: string[]) {
  try {
    return parseArgs({
      args,
      options: {
        port: { type: 'string' },
        data: { type: 'string' },
        project: { type: 'string' },
        reset: { type: 'boolean' },
        'reset-only': { type: 'boolean' },
        quiet: { type: 'boolean' },
        'wall-clock': { type: 'string' },
        'realtime-limits': { type: 'boolean' },
        'no-auto-expose': { type: 'boolean' },
        'yes-this-server': { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
      },
    })
  } catch (error) {
    throw new Failure(`${(error as Error).message}\n\n${usage}`, exitCode.usage)
  }
}

function integer(flag: string, text: string, min: number, max: number): number {
  const value = Number(text)
  if (!/^\d+$/.test(text) || value < min || value > max) {
    throw new Failure(`--${flag} takes a number from ${min} to ${max}, not "${text}"`, exitCode.usage)
  }
  return value
}

/** Resolves at the first SIGINT, SIGTERM or SIGHUP, and when start.mjs, which holds our standard input, is gone. */
function stopRequested(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) Deno.addSignalListener(signal, () => resolve())
    const watch = async () => {
      for await (const _ of Deno.stdin.readable) {
        /* nothing is ever written; only the end matters */
      }
      resolve()
    }
    watch()
  })
}

try {
  await main()
  Deno.exit(0)
} catch (error) {
  if (error instanceof Failure) {
    console.error(`\n${error.message}${error.remedy ? `\n${error.remedy}` : ''}`)
    Deno.exit(error.code)
  }
  console.error(error)
  Deno.exit(exitCode.failed)
}
