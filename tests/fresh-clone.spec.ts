import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { cpSync, mkdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { createClient } from '@supabase/supabase-js'
import { afterAll, beforeAll, expect, it } from 'vitest'
import WebSocket from 'ws'

// A folder with the files that git tracks and the installed packages, and a process that gets nothing else: no variable of
// ours, no program but Node's. (The same without any network, after a real `npm install`, is a step of CI.)
const folder = join(tmpdir(), `parlor-clone-${randomUUID()}`)
let stack: ChildProcess
let printed = ''

beforeAll(async () => {
  const files = execFileSync('git', ['ls-files', '-z'], { encoding: 'utf8' }).split('\0').filter(Boolean)
  for (const file of files) {
    mkdirSync(dirname(join(folder, file)), { recursive: true })
    cpSync(file, join(folder, file))
  }
  symlinkSync(join(process.cwd(), 'node_modules'), join(folder, 'node_modules'))

  stack = spawn(process.execPath, ['supabase/local/start.mjs', '--port', '0', '--quiet'], {
    cwd: folder,
    env: { PATH: dirname(process.execPath), HOME: folder },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await new Promise<void>((resolve, reject) => {
    stack.once('exit', (code) => reject(new Error(`ended with code ${code}`)))
    stack.stdout!.on('data', (chunk) => {
      printed += chunk
      if (printed.endsWith('\n')) resolve()
    })
  })
})

afterAll(async () => {
  stack.removeAllListeners('exit')
  const gone = new Promise((resolve) => stack.once('exit', resolve))
  stack.kill('SIGINT')
  await gone
  rmSync(folder, { recursive: true, force: true })
})

it('B-27 a fresh clone starts from its packages alone, prints one address, and a stranger signs up and is answered', async () => {
  const url = printed.trim().replace('ready ', '')
  const { keys } = JSON.parse(readFileSync(join(folder, 'supabase/.temp/local/stack.json'), 'utf8'))
  const client = createClient(url, keys.publishable, { realtime: { transport: WebSocket as never } })

  const { data, error } = await client.auth.signUp({ email: 'stranger@example.com', password: 'correct horse battery' })
  const me = await client.rpc('me')
  const health = await fetch(`${url}/functions/v1/health`)

  expect(error).toBeNull()
  expect(me.data).toMatchObject({ id: data.user!.id, username: 'stranger' })
  expect(await health.json()).toMatchObject({ status: 'ok', database: 'connected' })
})
