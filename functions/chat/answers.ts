import type { SupabaseClient } from '@supabase/supabase-js'
import type { Context } from 'hono'
import { caller } from '../_shared/auth.ts'
import type { Env } from '../_shared/env.ts'
import { type Followed, type FollowOptions, follow } from '../_shared/generation/follow.ts'
import { startInline } from '../_shared/generation/inline.ts'
import { Poller } from '../_shared/generation/poller.ts'
import { type Cursor, createReader, type MessageRow } from '../_shared/generation/reader.ts'
import type { Service } from '../_shared/http.ts'
import { Problem } from '../_shared/problem.ts'
import { eventStream } from '../_shared/sse.ts'

/** What `send_message`, `edit_message` and `regenerate_message` return: only what the caller may read. */
export interface Sent {
  user_message: MessageRow | null
  assistant_message: MessageRow
  /** Null for an answer that a person edited. */
  generation: { id: string; status: string } | null
  job_id: string | null
}

export interface AnswerOptions {
  run: 'inline' | 'queued'
  stream: boolean
  /** Whether moderation has seen the message that is answered; else the runner asks it. */
  moderated: boolean
}

export interface Answers {
  /** Starts the answer that was asked for, if nobody has, and answers with its events or with its end as JSON. */
  answer(c: Context<Service>, sent: Sent, options: AnswerOptions): Promise<Response>
  /** The events of an answer after `cursor`. */
  watch(c: Context<Service>, generationId: string, jobId: string | null, cursor: Cursor): Response
}

/** How long a client waits before it attaches again after a planned end of its stream. */
const reconnectMs = 500

/** What every route does that has an answer to give. */
export function createAnswers(env: Env): Answers {
  const poller = once(() => new Poller(env.service, env.log))

  return {
    async answer(c, sent, { run, stream, moderated }) {
      const { generation } = sent
      if (!generation) return c.json(sent)
      if (!stream && run === 'queued') return c.json(sent, 202)
      if (run === 'inline' && generation.status === 'queued') {
        await startInline(env, generation.id, c.get('log'), { moderated })
      }
      const options = followOptions(c, generation.id, sent.job_id, { attempt: 0, seq: 0 })
      if (stream) return events(options)

      const { ending, outcome } = await last(options, c.req.raw.signal)
      if (outcome === 'gone') {
        throw new Problem(
          404,
          'generation_not_found',
          'There is no generation with this id that you may read any more.',
        )
      }
      if (outcome !== 'ended') return c.json(sent, 202)
      if (ending?.event === 'generation.failed') {
        throw new Problem(502, String(ending.data.code), 'The character could not answer; the message is kept.')
      }
      const message = (ending?.data.message as MessageRow | null) ?? sent.assistant_message
      const status = ending?.event === 'generation.cancelled' ? 'cancelled' : 'completed'
      return c.json({
        ...sent,
        assistant_message: message,
        generation: { ...generation, status },
        usage: ending?.data.usage ?? null,
      })
    },
    watch: (c, generationId, jobId, cursor) => events(followOptions(c, generationId, jobId, cursor)),
  }

  function followOptions(
    c: Context<Service>,
    generationId: string,
    jobId: string | null,
    cursor: Cursor,
  ): Omit<FollowOptions, 'signal'> {
    const db: SupabaseClient = env.db(caller(c).token)
    const { clock } = env
    const read = createReader(db, generationId)
    return { read, poller: poller(), clock, generationId, readerId: caller(c).id, jobId, cursor }
  }

  function events(options: Omit<FollowOptions, 'signal'>): Response {
    return eventStream(async (sink) => {
      const followed = follow({ ...options, signal: sink.signal })
      try {
        while (true) {
          const { done, value } = await followed.next()
          if (!done) sink.send(value)
          else if (value === 'ended' || value === 'gone') sink.send({ data: '[DONE]' })
          else if (value === 'reconnect') sink.retry(reconnectMs)
          if (done) return
        }
      } catch (error) {
        env.log.warn('stream_failed', { generation_id: options.generationId }, error)
        sink.retry(reconnectMs)
      }
    })
  }
}

/** Makes it when it is first needed. */
function once<T>(make: () => T): () => T {
  let made: T | undefined
  return () => (made ??= make())
}

/** Waits for the last event of an answer. */
async function last(options: Omit<FollowOptions, 'signal'>, signal: AbortSignal) {
  let ending: Followed | undefined
  const followed = follow({ ...options, signal })
  while (true) {
    const { done, value } = await followed.next()
    if (done) return { ending, outcome: value }
    ending = value
  }
}
