import { onUnload } from '../background.ts'
import type { Env } from '../env.ts'
import type { Log } from '../log.ts'
import { Problem } from '../problem.ts'
import type { PromptMaterial } from '../prompt/material.ts'
import { textStream } from '../text.ts'
import { type Answered, type AskOptions, ask, NoAnswer, samePrompt } from './ask.ts'
import { estimateUsage } from './complete.ts'
import type { Usage } from './read.ts'
import type { Format } from './request.ts'
import { type ChatMessage, estimatePrompt, type RoutePlan, type Settings } from './route.ts'

/** What `service.begin_completion` hands out. */
export interface Completion extends RoutePlan {
  completion_id: string
  model: string
  /** Length of the vectors of an embedding model. */
  dimensions?: number | null
  /** What the character is made of that answers. */
  prompt?: Omit<PromptMaterial, 'messages'>
  /** What the same request, by its idempotency key, was answered before. */
  answer?: unknown
}

export interface CompletionRequest {
  kind: 'complete' | 'analyze' | 'openai' | 'embed'
  /** Id of a model; the default one of the kind without. */
  model?: string
  /** What the request will use at most, as far as that is known before. */
  prompt_tokens: number
  max_tokens: number
  /** Length of the vectors that are wished for. */
  dimensions?: number
  /** Who answers, if it is a character that the user may see. */
  character_id?: string
  /** With a key the same request is answered once; the hash tells the same from another. */
  idempotency_key?: string
  body_hash?: string
}

/** Begins a completion for a user, whose account and model are checked. */
export const beginCompletion = (env: Env, userId: string, request: CompletionRequest) =>
  env.service.call<Completion>('begin_completion', userId, request)

export interface Said {
  text: string
  finishReason: string
  usage: Usage
}

export interface SayOptions {
  env: Env
  log: Log
  completion: Completion
  messages: ChatMessage[]
  /** Makes the prompt of the messages; they are the prompt without. */
  prompt?: AskOptions['prompt']
  settings: Settings
  format?: Format
  /** Fires when nobody wants the text any more. */
  signal: AbortSignal
  onText?(text: string): void
}

/**
 * Has a model say something for a completion; what came until the isolate's time was over counts as cut short. Throws
 * NoAnswer, or the reason of `signal`.
 */
export async function say({
  env,
  log,
  completion,
  messages,
  prompt,
  onText,
  signal,
  ...what
}: SayOptions): Promise<Said> {
  const ending = new AbortController()
  const stop = () => ending.abort('time_over')
  const remaining = env.clock.remaining()
  const timer = Number.isFinite(remaining) ? setTimeout(stop, remaining) : undefined
  const forget = onUnload(() => {
    stop()
    return undefined
  })
  const texts = textStream()
  let text = ''
  const take = (piece: string) => {
    text += piece
    if (piece) onText?.(piece)
  }
  try {
    const answered: Answered = await ask({
      ...what,
      env,
      log,
      plan: completion,
      prompt: prompt ?? samePrompt(messages),
      purpose: { completion_id: completion.completion_id },
      signal: AbortSignal.any([signal, ending.signal]),
      onText: (piece) => take(texts.push(piece)),
    })
    take(texts.end())
    return { text, finishReason: answered.finishReason, usage: answered.usage }
  } catch (error) {
    if (ending.signal.aborted && !signal.aborted && text) {
      return { text, finishReason: 'length', usage: estimateUsage(estimatePrompt(messages), text) }
    }
    throw error
  } finally {
    clearTimeout(timer)
    forget()
  }
}

/** What came of a completion: the code of a failure, and an answer to keep for whom the same request may come again. */
export type Outcome = { outcome: 'completed'; answer?: object } | { outcome: 'failed' | 'cancelled'; code: string }

/** Ends a completion by what came of it; returns what it used. */
export function finishCompletion(env: Env, { completion_id }: Completion, result: Outcome): Promise<Usage | null> {
  return env.service.call<Usage | null>('finish_completion', completion_id, result)
}

/** How a completion that threw has ended. */
export function failureOf(
  error: unknown,
  signal: AbortSignal,
): { outcome: 'failed' | 'cancelled'; code: string; retryable: boolean } {
  if (signal.aborted) return { outcome: 'cancelled', code: 'cancelled', retryable: true }
  if (error instanceof NoAnswer)
    return { outcome: 'failed', code: error.reason.code, retryable: error.reason.retryable }
  return { outcome: 'failed', code: 'provider_unavailable', retryable: true }
}

/** What a plan refuses once the routes are known. */
const planRefusals = new Set(['tokens_per_month_exceeded', 'budget_per_month_exceeded'])
export const isPlanRefusal = (code: string) => planRefusals.has(code)

/** Ends the completion as failed, and says so to who waits. */
export async function failed(env: Env, completion: Completion, error: unknown, signal: AbortSignal): Promise<Problem> {
  if (error instanceof Problem) return error
  const { outcome, code } = failureOf(error, signal)
  await finishCompletion(env, completion, { outcome, code })
  const wait = error instanceof NoAnswer && error.reason.retryable ? error.reason.retryAfterSeconds : undefined
  if (isPlanRefusal(code)) {
    const { retryAfterSeconds = 1 } = (error as NoAnswer).reason
    return new Problem(429, code, 'Your plan has not enough left this month for a model that could answer.', {
      headers: { 'retry-after': String(retryAfterSeconds) },
      cause: error,
    })
  }
  return new Problem(502, code, 'The model could not answer.', {
    headers: wait === undefined ? {} : { 'retry-after': String(Math.ceil(wait)) },
    cause: error,
  })
}
