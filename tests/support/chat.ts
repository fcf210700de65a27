import { randomUUID } from 'node:crypto'
import { createClient } from '@supabase/supabase-js'
import { createParser } from 'eventsource-parser'
import type postgres from 'postgres'
import WebSocket from 'ws'
import type { Stack } from '../../supabase/local/stack.ts'
import { database, functionsUrl, type Person, stack as shared, signUp } from './local.ts'

export interface Talk {
  person: Person
  characterId: string
  conversationId: string
}

/** A person in a new conversation with a character of theirs, answered by `model` (the default one without). */
export async function startTalk(options: { person?: Person; model?: string; sql?: postgres.Sql } = {}): Promise<Talk> {
  const { model, sql } = options
  const owner = options.person ?? (await signUp())
  const character = await owner.client
    .from('characters')
    .insert({ name: 'Mira', age: 30, greeting: 'Hello, you.' })
    .select()
    .single()
  if (character.error) throw character.error
  const started = await owner.client.rpc('start_conversation', { character_id: character.data.id })
  if (started.error) throw started.error
  const talk = { person: owner, characterId: character.data.id, conversationId: started.data.id }
  if (model) await useModel(talk, model, sql)
  return talk
}

/** Chooses the model of a conversation; a fault of the sandbox that nobody has used before becomes a model first. */
export async function useModel(talk: Talk, model: string, sql: postgres.Sql = database()): Promise<void> {
  await addModel(model, sql)
  const { error } = await talk.person.client
    .from('conversations')
    .update({ model_id: model })
    .eq('id', talk.conversationId)
  if (error) throw error
}

/** Makes a model with one route per name, tried in their order. */
export async function addModel(model: string, sql: postgres.Sql = database(), routes = [model]): Promise<void> {
  await sql`insert into public.ai_models (id, display_name, context_window, max_output)
    values (${model}, ${model}, 8000, 2000) on conflict (id) do nothing`
  for (const [index, route] of routes.entries()) {
    await sql`insert into private.ai_routes (model, provider, provider_model, position)
      values (${model}, 'openrouter', ${route}, ${index + 1}) on conflict do nothing`
  }
}

/** A new person at another stack than the shared one. */
export async function signUpAt({ url, keys }: Stack): Promise<Person> {
  const email = `person-${randomUUID()}@example.com`
  const password = 'correct horse battery staple'
  const client: Person['client'] = createClient(url, keys.publishable, {
    auth: { persistSession: false, autoRefreshToken: false },
    realtime: { transport: WebSocket as never },
  })
  const { data, error } = await client.auth.signUp({ email, password })
  if (error || !data.session) throw error ?? new Error('No session.')
  return { id: data.session.user.id, email, password, token: data.session.access_token, client }
}

export interface SendOptions {
  content?: string
  headers?: Record<string, string>
  body?: Record<string, unknown>
  signal?: AbortSignal
  functions?: string
}

/** Sends a message through the function; the answer is a stream unless the body says `stream: false`. */
export function send(talk: Talk, { content = 'How are you?', headers, body, signal, functions }: SendOptions = {}) {
  return fetch(`${functions ?? functionsUrl}/chat/messages`, {
    method: 'POST',
    headers: { authorization: `Bearer ${talk.person.token}`, 'content-type': 'application/json', ...headers },
    body: JSON.stringify({ conversation_id: talk.conversationId, content, ...body }),
    signal,
  })
}

/** Attaches to an answer from anywhere. */
export function attach(person: Person, generationId: string, lastEventId?: string, functions = functionsUrl) {
  return fetch(`${functions}/chat/generations/${generationId}/stream`, {
    headers: { authorization: `Bearer ${person.token}`, ...(lastEventId && { 'last-event-id': lastEventId }) },
  })
}

export interface StreamEvent {
  event?: string
  id?: string
  // biome-ignore lint/suspicious/noExplicitAny: payloads differ by event, and tests assert what they hold.
  data: any
}

/** Events of a stream as they come; the loop may be left at any time, which closes the connection. */
export async function* events(response: Response): AsyncGenerator<StreamEvent> {
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`)
  const queue: StreamEvent[] = []
  const parser = createParser({
    onEvent: ({ event, id, data }) => queue.push({ event, id, data: data === '[DONE]' ? data : JSON.parse(data) }),
  })
  const decoder = new TextDecoder()
  for await (const bytes of response.body!) {
    parser.feed(decoder.decode(bytes as Uint8Array, { stream: true }))
    yield* queue.splice(0)
  }
}

/** All events until the stream ends. */
export async function readAll(response: Response): Promise<StreamEvent[]> {
  const all: StreamEvent[] = []
  for await (const event of events(response)) all.push(event)
  return all
}

/** What a client shows after these events, by its rule: reset drops, snapshot replaces, delta adds. */
export function shown(all: StreamEvent[]): string {
  let text = ''
  for (const { event, data } of all) {
    if (event === 'generation.reset') text = ''
    if (event === 'generation.snapshot') text = data.content
    if (event === 'generation.delta') text += data.text
  }
  return text
}

export const named = (all: StreamEvent[], name: string): StreamEvent | undefined =>
  all.find(({ event }) => event === `generation.${name}`)

export interface ModelRequest {
  id: string
  model: string
  state: string
  closed_early: boolean
  /** Pieces of text that it has sent. */
  deltas: number
  body: Record<string, unknown>
}

/** Requests that the sandbox model received, newest first. */
export async function modelRequests(contains: string, stack: Stack = shared) {
  const response = await fetch(`${stack.url}/sandbox/openai/log?contains=${encodeURIComponent(contains)}`)
  const { requests } = (await response.json()) as {
    requests: ModelRequest[]
  }
  return requests
}

/** Lets stalled answers that contain this text go on. */
export const releaseModel = (contains: string, stack: Stack = shared) =>
  fetch(`${stack.url}/sandbox/openai/release`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ contains }),
  })

/** Text that finds one's own requests in the model's log. */
export const marker = () => `marker ${randomUUID()}`
