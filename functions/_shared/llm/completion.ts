import { onUnload } from '../background.ts'
import type { Env } from '../env.ts'
import type { Log } from '../log.ts'
import { textStream } from '../text.ts'
import { type Answered, ask, NoAnswer } from './ask.ts'
import type { Usage } from './read.ts'
import type { Format } from './request.ts'
import type { ChatMessage, RoutePlan, Settings } from './route.ts'

/** What `service.begin_completion` hands out. */
export interface Completion extends RoutePlan {
  completion_id: string
  model: string
}

export type Kind = 'complete' | 'analyze'

/** Begins a completion for a user, whose account and model are checked. */
export const beginCompletion = (env: Env, userId: string, kind: Kind, model: string | undefined) =>
  env.service.call<Completion>('begin_completion', userId, kind, model ?? null)

export interface Said {
  text: string
  finishReason: string
}

export interface SayOptions {
  env: Env
  log: Log
  completion: Completion
  messages: ChatMessage[]
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
export async function say({ env, log, completion, onText, signal, ...what }: SayOptions): Promise<Said> {
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
      purpose: { completion_id: completion.completion_id },
      signal: AbortSignal.any([signal, ending.signal]),
      onText: (piece) => take(texts.push(piece)),
    })
    take(texts.end())
    return { text, finishReason: answered.finishReason }
  } catch (error) {
    if (ending.signal.aborted && !signal.aborted && text) return { text, finishReason: 'length' }
    throw error
  } finally {
    clearTimeout(timer)
    forget()
  }
}

/** Ends a completion by what came of it; returns what it used. */
export function finishCompletion(
  env: Env,
  { completion_id }: Completion,
  outcome: 'completed' | 'failed' | 'cancelled',
  code: string | null = null,
): Promise<Usage | null> {
  return env.service.call<Usage | null>('finish_completion', completion_id, outcome, code)
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
