import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import postgres from 'postgres'
import type { TestProject } from 'vitest/node'
import type { Stack } from '../../supabase/local/stack.ts'
import { setEventsPerSecond } from './events-per-second.ts'

declare module 'vitest' {
  export interface ProvidedContext {
    stack: Stack
    /** Where the data folder is, or will be, that stacks of single tests begin with. */
    dataTemplate: string
  }
}

/**
 * Starts a stack of its own for the whole run: a free port, a temporary data folder. `STACK_DATA` names the data folder
 * of a stack that already runs, and is then used as it is; `STACK_FLAGS` adds flags to the start.
 */
export default async function setup(project: TestProject) {
  const template = join(tmpdir(), `parlor-template-${randomUUID()}`)
  project.provide('dataTemplate', template)
  const removeTemplate = () => {
    for (const suffix of ['', '.lock', '.new']) rmSync(template + suffix, { recursive: true, force: true })
  }
  const running = process.env.STACK_DATA
  if (running) {
    project.provide('stack', readStack(running))
    return removeTemplate
  }
  const data = join(tmpdir(), `parlor-test-${randomUUID()}`)
  const flags = process.env.STACK_FLAGS?.split(' ') ?? []
  const stack = spawn(
    process.execPath,
    ['supabase/local/start.mjs', '--port', '0', '--data', data, '--quiet', ...flags],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  )
  await ready(stack)
  await liftRealtimeLimit(readStack(data))
  project.provide('stack', readStack(data))
  return async () => {
    await stop(stack)
    removeTemplate()
    rmSync(data, { recursive: true, force: true })
  }
}

const readStack = (data: string): Stack => JSON.parse(readFileSync(join(data, 'stack.json'), 'utf8'))

/** This stack enforces none, so what one file sends need not hold back the deltas of another. */
async function liftRealtimeLimit({ database: { host, port, name, passwords } }: Stack) {
  const sql = postgres({ host, port, database: name, user: 'postgres', password: passwords.postgres, max: 1 })
  await setEventsPerSecond(sql, 1_000_000)
  await sql.end()
}

/** Resolves at the stack's `ready` line; rejects with all it said when it ends before that. */
function ready(stack: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    let said = ''
    const timer = setTimeout(() => fail('did not get ready within 60 s'), 60_000)
    const fail = (what: string) => {
      clearTimeout(timer)
      stack.kill('SIGKILL')
      reject(new Error(`The local stack ${what}.\n${said}`))
    }
    stack.once('exit', (code) => fail(`ended with code ${code}`))
    stack.stderr!.on('data', (chunk) => {
      said += chunk
    })
    stack.stdout!.on('data', (chunk) => {
      said += chunk
      if (!said.includes('ready http')) return
      clearTimeout(timer)
      stack.removeAllListeners('exit')
      resolve()
    })
  })
}

function stop(stack: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    stack.once('exit', () => resolve())
    stack.kill('SIGTERM')
  })
}
