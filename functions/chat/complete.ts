import type { Hono } from 'hono'
import { completeBody } from '../../types/completions.ts'
import { caller } from '../_shared/auth.ts'
import { inBackground } from '../_shared/background.ts'
import type { Env } from '../_shared/env.ts'
import { readBody, type Service } from '../_shared/http.ts'
import { requireAllowed } from '../_shared/llm/allowed.ts'
import {
  beginCompletion,
  type Completion,
  failed,
  failureOf,
  finishCompletion,
  say,
} from '../_shared/llm/completion.ts'
import { type ChatMessage, estimatePrompt } from '../_shared/llm/route.ts'
import type { Log } from '../_shared/log.ts'
import { eventStream } from '../_shared/sse.ts'

/** Adds the completion of a text without a conversation: nothing of it is stored but what it cost. */
export function addComplete(app: Hono<Service>, env: Env): void {
  app.post('/complete', async (c) => {
    const { prompt, messages: given, model, stream, ...settings } = await readBody(c, completeBody)
    const messages = given ?? [{ role: 'user' as const, content: prompt! }]
    const log = c.get('log')
    await requireAllowed(
      env,
      messages.flatMap(({ role, content }) => (role === 'user' ? [content] : [])),
      log,
    )
    const completion = await beginCompletion(env, caller(c).id, {
      kind: 'complete',
      model,
      prompt_tokens: estimatePrompt(messages),
      max_tokens: settings.max_tokens,
    })

    const options = { env, log, completion, messages, settings }
    if (stream) return streamed(options)
    const { signal } = c.req.raw
    try {
      const { text, finishReason } = await say({ ...options, signal })
      const usage = await finishCompletion(env, completion, { outcome: 'completed' })
      return c.json({
        id: completion.completion_id,
        model: completion.model,
        content: text,
        finish_reason: finishReason,
        usage,
      })
    } catch (error) {
      throw await failed(env, completion, error, signal)
    }
  })
}

interface Streamed {
  env: Env
  log: Log
  completion: Completion
  messages: ChatMessage[]
  settings: { temperature: number; max_tokens: number }
}

/** The events of an answer. Whoever leaves stops it: nobody else can read it. */
function streamed(options: Streamed): Response {
  const { env, log, completion } = options
  const generation_id = completion.completion_id
  return eventStream(async ({ send, signal }) => {
    const work = async () => {
      send({ event: 'generation.connected', data: { generation_id, job_id: null } })
      send({ event: 'generation.processing', data: { generation_id } })
      let seq = 0
      const onText = (text: string) => {
        seq += 1
        send({ event: 'generation.delta', id: `1.${seq}`, data: { attempt: 1, seq, text } })
      }
      try {
        const { text, finishReason } = await say({ ...options, signal, onText })
        const usage = await finishCompletion(env, completion, { outcome: 'completed' })
        const message = { role: 'assistant', content: text, finish_reason: finishReason }
        send({ event: 'generation.completed', data: { message, usage } })
      } catch (error) {
        const { outcome, code, retryable } = failureOf(error, signal)
        await finishCompletion(env, completion, { outcome, code })
        send({ event: 'generation.failed', data: { code, retryable } })
      }
      send({ data: '[DONE]' })
    }
    const done = work().catch((error) => log.error('completion_crashed', { completion_id: generation_id }, error))
    inBackground(done)
    await done
  })
}
