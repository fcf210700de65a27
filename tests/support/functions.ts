import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { denoExecutable } from '../local/fixtures/functions-host.ts'
import { freePort } from '../local/fixtures/processes.ts'
import { stack } from './local.ts'

/** A process that serves some of the functions, beside the stack's own and with variables of its own. */
export interface Isolate {
  /** `<url>/chat/…`; no gateway stands before it. */
  url: string
  stop(): Promise<void>
}

export async function startFunctions(slugs: string[], variables: Record<string, string> = {}): Promise<Isolate> {
  const project = join(tmpdir(), `functions-${randomUUID()}`)
  mkdirSync(join(project, 'supabase'), { recursive: true })
  cpSync('supabase/local.env', join(project, 'supabase/local.env'))
  const settings = slugs.map(
    (slug) =>
      `[functions.${slug}]\nverify_jwt = false\nentrypoint = ${JSON.stringify(resolve('functions', slug, 'index.ts'))}\n`,
  )
  writeFileSync(join(project, 'supabase/config.toml'), settings.join('\n'))
  const lines = Object.entries(variables).map(([name, value]) => `${name}=${value}\n`)
  writeFileSync(join(project, '.env'), lines.join(''))
  const port = await freePort()
  const own = { ...stack, project, data: join(project, 'data'), ports: { ...stack.ports, functions: port } }
  writeFileSync(join(project, 'stack.json'), JSON.stringify(own), { mode: 0o600 })

  const script = ['run', '-A', '--quiet', '--config', 'deno.json', 'supabase/local/children/functions.ts']
  const child = spawn(denoExecutable(), [...script, join(project, 'stack.json')])
  let said = ''
  const ended = new Promise<string>((done) => child.once('exit', (code, signal) => done(`${code ?? signal}`)))
  await new Promise<void>((ready, failed) => {
    ended.then((how) => failed(new Error(`The functions ended with ${how}: ${said}`)))
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk) => {
        said += chunk
        if (said.includes('@ready')) ready()
      })
    }
  })
  return {
    url: `http://127.0.0.1:${port}`,
    async stop() {
      child.kill('SIGKILL')
      await ended
      rmSync(project, { recursive: true, force: true })
    },
  }
}
