import type { Context, Hono } from 'hono'
import {
  type ChatCompletion,
  type ChatCompletionBody,
  chatCompletionBody,
  chatCompletionHeaders,
} from '../../types/openai.ts'
import { requireKeyOrUser } from '../_shared/api-key.ts'
import { actor } from '../_shared/auth.ts'
import { inBackground } from '../_shared/background.ts'
import { pause } from '../_shared/deadline.ts'
import type { Env } from '../_shared/env.ts'
import { parse, readBody, type Service } from '../_shared/http.ts'
import { limitRate } from '../_shared/limits/middleware.ts'
import { requireAllowed } from '../_shared/llm/allowed.ts'
import {
  beginCompletion,
  type Completion,
  failed,
  finishCompletion,
  type SayOptions,
  say,
} from '../_shared/llm/completion.ts'
import type { Format } from '../_shared/llm/request.ts'

import { estimatePrompt, type Settings } from '../_shared/llm/route.ts'
import { estimateTokens } from '../_shared/llm/tokens.ts'
import type { Log } from '../_shared/log.ts'
import { type EventSink, eventStream } from '../_shared/sse.ts'
import { characterIn, characterSettings, promptOf } from './character.ts'
import { describe } from './errors.ts'
import { chunksOf, completionOf, type Head, headOf } from './shapes.ts'

/** How long headers wait for the first words. After that proxies grow uneasy, and a failure is told within the stream. */
const patienceMs = 10_000

/** Longest answer of a client that names no limit; theirs expect a whole one. */
const defaultMaxTokens = 4096

export function addChatCompletions(app: Hono<Service>, env: Env): void {
  app.post('/v1/chat/completions', requireKeyOrUser(env, 'chat'), limitRate(env), async (c) => {
    const headers = parse(chatCompletionHeaders, { 'idempotency-key': c.req.header('idempotency-key') })
    const body = await readBody(c, chatCompletionBody)
    const key = headers['idempotency-key']
    const log = c.get('log')
    const said = body.messages.flatMap(({ role, content }) => (role === 'user' ? [content] : []))
    await requireAllowed(env, said, log)

    const character = characterIn(body.model)
    const settings = character ? characterSettings(settingsOf(body)) : settingsOf(body)
    const format = formatOf(body)
    const completion = await beginCompletion(env, actor(c).id, {
      kind: 'openai',
      ...(character ? { character_id: character } : { model: body.model }),
      prompt_tokens: estimatePrompt(body.messages) + (format ? estimateTokens(JSON.stringify(format)) : 0),
      max_tokens: settings.max_tokens,
      ...(key !== undefined && { idempotency_key: key, body_hash: await hashOf(body) }),
    })
    const prompt = character ? promptOf(completion, body.messages, settings) : undefined
    const run = { env, log, completion, body, prompt, settings, format, isKept: key !== undefined }
    if (completion.answer) return replay(c, body, completion.answer as ChatCompletion)
    return body.stream ? streamed(c, run) : whole(c, run)
  })
}

interface Run {
  env: Env
  log: Log
  completion: Completion
  body: ChatCompletionBody
  prompt: SayOptions['prompt']
  settings: Settings
  format: Format | undefined
  /** The same request may come again: its answer is kept. */
  isKept: boolean
}

/** Has the model speak, and ends the completion as completed. */
async function answer(run: Run, signal: AbortSignal, onText?: (text: string) => void): Promise<ChatCompletion> {
  const { env, log, completion, body, prompt, settings, format, isKept } = run
  const said = await say({ env, log, completion, messages: body.messages, prompt, settings, format, signal, onText })
  const made = completionOf(headOf(completion.completion_id, body.model), said)
  await finishCompletion(env, completion, { outcome: 'completed', ...(isKept && { answer: made }) })
  return made
}

async function whole(c: Context<Service>, run: Run): Promise<Response> {
  const { signal } = c.req.raw
  try {
    return c.json(await answer(run, signal))
  } catch (error) {
    throw await failed(run.env, run.completion, error, signal)
  }
}

/**
 * The chunks of an answer. Headers wait for its first words: until then a failure is a status that clients understand.
 * Whoever leaves stops it: nobody else can read it.
 */
async function streamed(c: Context<Service>, run: Run): Promise<Response> {
  const { env, log, completion, body } = run
  const gone = new AbortController()
  const leave = () => gone.abort()
  c.req.raw.signal.addEventListener('abort', leave)

  const early: string[] = []
  const begun = Promise.withResolvers<void>()
  const waited = new AbortController()
  let take = (text: string) => {
    early.push(text)
    begun.resolve()
  }
  const answering = answer(run, gone.signal, (text) => take(text))
  try {
    await Promise.race([begun.promise, answering, pause(patienceMs, waited.signal)])
  } catch (error) {
    throw await failed(env, completion, error, gone.signal)
  } finally {
    waited.abort()
    // Deno fires it after each answer, also one that was read to its end.
    c.req.raw.signal.removeEventListener('abort', leave)
  }

  return eventStream(async ({ send, signal }) => {
    signal.addEventListener('abort', leave)
    const speak = speaker(send, headOf(completion.completion_id, body.model), body)
    for (const text of early) speak.text(text)
    take = speak.text
    const work = async () => {
      try {
        speak.end(await answering)
      } catch (error) {
        send({ data: { error: describe(await failed(env, completion, error, gone.signal)) } })
      }
    }
    const done = work().catch((error) =>
      log.error('completion_crashed', { completion_id: completion.completion_id }, error),
    )
    inBackground(done)
    await done
  })
}

/** What was answered before, in the form that is asked for now. */
function replay(c: Context<Service>, body: ChatCompletionBody, kept: ChatCompletion): Response {
  if (!body.stream) return c.json(kept)
  return eventStream(async ({ send }) => {
    const speak = speaker(send, kept, body)
    speak.text(kept.choices[0]!.message.content)
    speak.end(kept)
  })
}

/** Sends the parts of an answer as chunks, the first of which says who speaks. */
function speaker(send: EventSink['send'], head: Head, { stream_options }: ChatCompletionBody) {
  const withUsage = stream_options?.include_usage === true
  const chunks = chunksOf(head, withUsage)
  send({ data: chunks.role() })
  return {
    text: (text: string) => send({ data: chunks.text(text) }),
    end({ choices, usage }: ChatCompletion) {
      send({ data: chunks.end(choices[0]!.finish_reason) })
      if (withUsage) send({ data: chunks.usage(usage) })
      send({ data: '[DONE]' })
    },
  }
}

function settingsOf(body: ChatCompletionBody): Settings & { max_tokens: number } {
  const { temperature, top_p, frequency_penalty, presence_penalty, seed, stop } = body
  const max_tokens = body.max_completion_tokens ?? body.max_tokens ?? defaultMaxTokens
  return { temperature, top_p, frequency_penalty, presence_penalty, seed, stop: [stop ?? []].flat(), max_tokens }
}

function formatOf({ response_format: format }: ChatCompletionBody): Format | undefined {
  if (format?.type === 'json_object') return { type: 'json_object' }
  if (format?.type !== 'json_schema') return undefined
  const { name, schema = {}, strict } = format.json_schema
  return { type: 'json_schema', name, schema, strict: strict ?? false }
}

/** Tells the same request from another one: SHA-256 of its body, as it is understood. */
async function hashOf(body: ChatCompletionBody): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(JSON.stringify(body)))
  return btoa(String.fromCharCode(...new Uint8Array(digest)))
}
