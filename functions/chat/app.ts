import type { SupabaseClient } from '@supabase/supabase-js'
import type { Hono } from 'hono'
import { attachHeaders, generationParams, sendMessageBody, sendMessageHeaders } from '../../types/chat.ts'
import { caller, requireUser } from '../_shared/auth.ts'
import { inBackground } from '../_shared/background.ts'
import type { Env } from '../_shared/env.ts'
import { startGeneration } from '../_shared/generation/runner.ts'
import { createService, parse, readBody, type Service } from '../_shared/http.ts'
import { fromDatabase, Problem } from '../_shared/problem.ts'
import { eventStream } from '../_shared/sse.ts'
import { addAnalyze } from './analyze.ts'
import { addComplete } from './complete.ts'
import { type Followed, type FollowOptions, follow } from './follow.ts'
import { requireAllowed } from './moderate.ts'
import { Poller } from './poller.ts'
import { type Cursor, createReader, type MessageRow } from './reader.ts'

/** What `send_message` returns: only what the caller may read. */
interface Sent {
  user_message: MessageRow
  assistant_message: MessageRow
  generation: { id: string; status: string }
  job_id: string | null
}

/** How long a client waits before it attaches again after a planned end of its stream. */
const reconnectMs = 500

/** Builds the chat API. `env` supplies everything outside this process. */
export function createApp(env: Env): Hono<Service> {
  const app = createService(env, 'chat')
  app.use(requireUser(env))
  const poller = once(() => new Poller(env.service, env.log))

  /** Sends a message; answers with the events of its answer, or with the finished answer as JSON. */
  app.post('/messages', async (c) => {
    const headers = parse(sendMessageHeaders, { 'idempotency-key': c.req.header('idempotency-key') })
    const body = await readBody(c, sendMessageBody)
    const key = idempotencyKey(headers['idempotency-key'], body.idempotency_key)
    await requireAllowed(env, [body.content], c.get('log'))
    const db = env.db(caller(c).token)
    const { data, error } = await db.rpc('send_message', {
      conversation_id: body.conversation_id,
      content: body.content,
      idempotency_key: key,
      run: body.run,
    })
    if (error) throw fromDatabase(error)
    const sent = data as Sent

    if (!body.stream && body.run === 'queued') return c.json(sent, 202)
    if (body.run === 'inline' && sent.generation.status === 'queued')
      await startInline(sent.generation.id, c.get('log'))
    const options = followOptions(db, caller(c).id, sent.generation.id, sent.job_id, { attempt: 0, seq: 0 })
    if (body.stream) return stream(options)

    const { ending, outcome } = await last(options, c.req.raw.signal)
    if (outcome !== 'ended') return c.json(sent, 202)
    if (ending?.event === 'generation.failed') {
      throw new Problem(502, String(ending.data.code), 'The character could not answer; the message is kept.')
    }
    const message = (ending?.data.message as MessageRow | null) ?? sent.assistant_message
    const status = ending?.event === 'generation.cancelled' ? 'cancelled' : 'completed'
    return c.json({
      ...sent,
      assistant_message: message,
      generation: { ...sent.generation, status },
      usage: ending?.data.usage ?? null,
    })
  })

  addComplete(app, env)
  addAnalyze(app, env)

  /** Watches an answer from wherever the reader was (Last-Event-ID). */
  app.get('/generations/:id/stream', async (c) => {
    const { id } = parse(generationParams, { id: c.req.param('id') })
    const headers = parse(attachHeaders, { 'last-event-id': c.req.header('last-event-id') || undefined })
    const db = env.db(caller(c).token)
    const generation = await createReader(db, id)({ attempt: 0, seq: 0 })
    if (!generation) throw new Problem(404, 'generation_not_found', 'There is no such answer.')
    const [attempt = 0, seq = 0] = headers['last-event-id']?.split('.').map(Number) ?? []
    return stream(followOptions(db, caller(c).id, id, generation.job_id, { attempt, seq }))
  })

  /** Stops an answer, wherever it is being made. */
  app.post('/generations/:id/cancel', async (c) => {
    const { id } = parse(generationParams, { id: c.req.param('id') })
    const { data, error } = await env.db(caller(c).token).rpc('cancel_generation', { generation_id: id })
    if (error) throw fromDatabase(error)
    return c.json(data)
  })

  /** Starts the answer here. It does not depend on the request: the client may leave, the answer goes on. */
  async function startInline(generationId: string, log: Env['log']): Promise<void> {
    try {
      const run = await startGeneration(env, generationId, log, { moderated: true })
      if (run) inBackground(run.done)
    } catch (error) {
      // The message is stored and its job is in the queue: a worker answers it, a little later.
      log.warn('inline_start_failed', { generation_id: generationId }, error)
    }
  }

  function followOptions(
    db: SupabaseClient,
    readerId: string,
    generationId: string,
    jobId: string | null,
    cursor: Cursor,
  ): Omit<FollowOptions, 'signal'> {
    const { clock } = env
    return { read: createReader(db, generationId), poller: poller(), clock, generationId, readerId, jobId, cursor }
  }

  function stream(options: Omit<FollowOptions, 'signal'>): Response {
    return eventStream(async (sink) => {
      const events = follow({ ...options, signal: sink.signal })
      try {
        while (true) {
          const { done, value } = await events.next()
          if (!done) sink.send(value)
          else if (value === 'ended') sink.send({ data: '[DONE]' })
          else if (value === 'reconnect') sink.retry(reconnectMs)
          if (done) return
        }
      } catch (error) {
        env.log.warn('stream_failed', { generation_id: options.generationId }, error)
        sink.retry(reconnectMs)
      }
    })
  }

  return app
}

/** Makes it when it is first needed. */
function once<T>(make: () => T): () => T {
  let made: T | undefined
  return () => (made ??= make())
}

/** Waits for the last event of an answer. */
async function last(options: Omit<FollowOptions, 'signal'>, signal: AbortSignal) {
  let ending: Followed | undefined
  const events = follow({ ...options, signal })
  while (true) {
    const { done, value } = await events.next()
    if (done) return { ending, outcome: value }
    ending = value
  }
}

/** The client's key, or one of our own for a client that does not repeat requests. */
function idempotencyKey(header: string | undefined, body: string | undefined): string {
  if (header !== undefined && body !== undefined && header !== body) {
    throw Problem.invalid([
      { pointer: '#/idempotency_key', code: 'differs_from_header', detail: 'Header and body name different keys.' },
    ])
  }
  return body ?? header ?? crypto.randomUUID()
}
