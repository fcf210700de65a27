import { Stream } from 'openai/core/streaming'
import { DeadlineError, withDeadline } from '../deadline.ts'
import type { Env } from '../env.ts'
import { clientOf } from './client.ts'
import { ModelError, toModelError } from './errors.ts'
import { type Piece, readError, readPiece, type Usage } from './read.ts'
import { type Format, requestFor } from './request.ts'
import type { Prompt, Route, Settings } from './route.ts'
import { estimateTokens } from './tokens.ts'

export interface Completed {
  finishReason: string
  usage: Usage
  /** What the provider calls this request, for questions to its support. */
  providerRequestId: string | null
}

export interface CompletionOptions {
  env: Pick<Env, 'provider' | 'limits'>
  route: Route
  prompt: Prompt
  settings: Settings
  format?: Format
  signal: AbortSignal
  /** Gets each piece of text as it comes, as the provider cut it. */
  onText(text: string): void
}

/**
 * Asks one route for an answer. Resolves when the provider said that it is finished, throws ModelError otherwise. Every
 * deadline is ours: the SDK's covers only the headers, so that a stalled stream would never end.
 */
export async function complete({
  env,
  route,
  prompt,
  settings,
  format,
  signal,
  onText,
}: CompletionOptions): Promise<Completed> {
  const provider = env.provider(route)
  if (!provider) throw new ModelError('provider_not_configured', false)

  const attempt = new AbortController()
  const ended = AbortSignal.any([signal, attempt.signal])
  const client = clientOf(provider, { timeout: env.limits.connectMs })
  let received = ''
  const take = (piece: Piece) => {
    if (piece.text) {
      received += piece.text
      onText(piece.text)
    }
  }

  try {
    return await withDeadline('model', env.limits.totalMs, async () => {
      const response = await withDeadline(
        'model connect',
        route.streams ? env.limits.connectMs : env.limits.totalMs,
        () =>
          client.chat.completions
            .create(requestFor(route, prompt.messages, settings, format), {
              signal: ended,
              timeout: route.streams ? env.limits.connectMs : env.limits.totalMs,
            })
            .asResponse(),
      )
      const outcome = isEventStream(response)
        ? await readStream(response, attempt, ended, env.limits.idleMs, take)
        : await readWhole(response, env.limits.totalMs, take)
      if (signal.aborted) throw signal.reason
      if (!outcome.finishReason) throw new ModelError('answer_interrupted', true)
      if (outcome.finishReason === 'error') throw new ModelError('provider_unavailable', true)
      if (!received && outcome.finishReason !== 'content_filter') throw new ModelError('answer_empty', true)
      return {
        finishReason: outcome.finishReason,
        usage: outcome.usage ?? estimateUsage(prompt.tokens, received),
        providerRequestId: response.headers.get('x-request-id')?.slice(0, 200) ?? null,
      }
    })
  } catch (error) {
    if (signal.aborted) throw signal.reason
    throw toModelError(error)
  } finally {
    // Closes the connection to a provider that is still sending.
    attempt.abort()
  }
}

export function estimateUsage(promptTokens: number, answer: string): Usage {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: estimateTokens(answer),
    cached_tokens: 0,
    estimated: true,
  }
}

/** Some servers answer a request for a stream with the whole answer at once. */
function isEventStream(response: Response): boolean {
  return /^text\/event-stream\b/i.test(response.headers.get('content-type') ?? '')
}

interface Read {
  finishReason: string | null
  usage: Usage | null
}

async function readStream(
  response: Response,
  attempt: AbortController,
  ended: AbortSignal,
  idleMs: number,
  take: (piece: Piece) => void,
): Promise<Read> {
  // The SDK takes no more than these of a response, and of its body what any iteration gives.
  const { headers, body } = response
  const frugal = { headers, body: body && pieces(body) } as unknown as Response
  const events = Stream.fromSSEResponse<unknown>(frugal, attempt)[Symbol.asyncIterator]()
  const read: Read = { finishReason: null, usage: null }
  // One clock for the whole stream: a deadline for each token would cost more than the token.
  const expired = Promise.withResolvers<never>()
  let heard = performance.now()
  const clock = setInterval(
    () => {
      if (performance.now() - heard < idleMs) return
      expired.reject(new DeadlineError('model token', idleMs))
      attempt.abort()
    },
    Math.min(500, idleMs / 4),
  )
  const tokens = async () => {
    while (true) {
      const { done, value } = await events.next()
      // A stream that is aborted, and one that is cut, both end like one that is complete: only a finish reason tells.
      if (done || ended.aborted) return read
      heard = performance.now()
      const piece = readPiece(value)
      if (!piece) continue
      take(piece)
      read.finishReason ??= piece.finishReason
      read.usage = piece.usage ?? read.usage
    }
  }
  try {
    return await Promise.race([tokens(), expired.promise])
  } finally {
    clearInterval(clock)
  }
}

/**
 * A body read into one small buffer. Deno's own iteration of a body allocates 64 KiB for each piece, a token as a rule:
 * collecting them cost more than reading.
 */
async function* pieces(body: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = body.getReader({ mode: 'byob' })
  let buffer = new Uint8Array(4096)
  try {
    while (true) {
      const { done, value } = await reader.read(buffer)
      if (done) return
      yield value
      buffer = new Uint8Array(value.buffer)
    }
  } finally {
    await reader.cancel()
  }
}

async function readWhole(response: Response, totalMs: number, take: (piece: Piece) => void): Promise<Read> {
  const body: unknown = await withDeadline('model body', totalMs, () => response.json())
  if (readError(body)) throw new ModelError('provider_unavailable', true)
  const piece = readPiece(body)
  if (!piece) throw new ModelError('answer_empty', true)
  take(piece)
  return { finishReason: piece.finishReason ?? 'stop', usage: piece.usage }
}
