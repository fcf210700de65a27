import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createClient } from '@supabase/supabase-js'
import WebSocket from 'ws'

/** Starts a stack with a data folder of its own; resolves when it is ready, with the seconds that took. */
export async function startStack(data = join(tmpdir(), `parlor-bench-${randomUUID()}`)) {
  const started = performance.now()
  const child = spawn('node', ['supabase/local/start.mjs', '--port', '0', '--data', data, '--quiet'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await new Promise((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`the stack ended with code ${code}`)))
    child.stdout.on('data', (chunk) => String(chunk).includes('ready http') && resolve())
  })
  const seconds = (performance.now() - started) / 1000
  child.removeAllListeners('exit')
  return {
    ...JSON.parse(readFileSync(join(data, 'stack.json'), 'utf8')),
    data,
    seconds,
    /** Stops it; the data stay. */
    async stop() {
      const gone = new Promise((resolve) => child.once('exit', resolve))
      child.kill('SIGTERM')
      await gone
    },
    async discard() {
      await this.stop()
      rmSync(data, { recursive: true, force: true })
    },
  }
}

/** The sandbox's model itself, not through the gateway. */
export const sandboxModel = (stack) => `http://127.0.0.1:${stack.ports.sandbox}/openai/v1`

export async function signUp(stack) {
  const client = createClient(stack.url, stack.keys.publishable, {
    auth: { persistSession: false, autoRefreshToken: false },
    realtime: { transport: WebSocket },
  })
  const { data, error } = await client.auth.signUp({
    email: `${randomUUID()}@example.com`,
    password: 'correct horse battery',
  })
  if (error) throw error
  return { client, id: data.user.id, token: data.session.access_token }
}

/** A new conversation of theirs with a new character; its id. */
export async function startConversation({ client }, model) {
  const character = await client
    .from('characters')
    .insert({ name: 'Ada', age: 36, greeting: 'Hello.', visibility: 'private' })
    .select('id')
    .single()
  if (character.error) throw character.error
  const conversation = await client.rpc('start_conversation', { character_id: character.data.id })
  if (conversation.error) throw conversation.error
  const { id } = conversation.data
  if (model) {
    const { error } = await client.from('conversations').update({ model_id: model }).eq('id', id)
    if (error) throw error
  }
  return id
}

export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds))

export const databaseUrl = (stack, role = 'postgres') =>
  `postgresql://${role}:${stack.database.passwords[role]}@${stack.database.host}:${stack.database.port}/${stack.database.name}`

/** The value below which `share` of the samples lie. */
export const quantile = (samples, share) => samples.toSorted((a, b) => a - b)[Math.floor((samples.length - 1) * share)]
export const median = (samples) => quantile(samples, 0.5)

/** One line of output: what, figure, and what it is compared with. */
export const line = (what, figure, beside = '') =>
  console.log(`  ${what.padEnd(44)} ${figure.padStart(14)}   ${beside}`)
