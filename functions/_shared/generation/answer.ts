import type { Env } from '../env.ts'
import { type ChatMessage, type Completed, complete, type Route } from '../llm/complete.ts'
import { ModelError } from '../llm/errors.ts'
import type { Log } from '../log.ts'
import type { Claim } from './contract.ts'

export interface Answered extends Completed {
  route: Route
}

export class NoAnswer extends Error {
  constructor(
    readonly reason: ModelError,
    readonly route: Route | null,
  ) {
    super(reason.code, { cause: reason })
    this.name = 'NoAnswer'
  }
}

export interface AnswerOptions {
  env: Pick<Env, 'provider' | 'limits'>
  log: Log
  claim: Claim
  messages: ChatMessage[]
  signal: AbortSignal
  onText(text: string, route: Route): void
}

/**
 * Asks the routes in their order until one answers. Once text has come no other route is tried: the reader has seen it.
 * Throws NoAnswer with the reason that promises most, or the reason of `signal`.
 */
export async function answer({ env, log, claim, messages, signal, onText }: AnswerOptions): Promise<Answered> {
  let best: NoAnswer | null = null
  for (const route of claim.routes) {
    let began = false
    try {
      const completed = await complete({
        env,
        route,
        messages,
        settings: claim.settings,
        signal,
        onText(text) {
          began = true
          onText(text, route)
        },
      })
      return { ...completed, route }
    } catch (error) {
      if (signal.aborted) throw error
      const reason =
        error instanceof ModelError ? error : new ModelError('provider_unavailable', true, { cause: error })
      log.warn(
        'route_failed',
        { generation_id: claim.generation_id, route_id: route.route_id, provider: route.provider, code: reason.code },
        reason.cause,
      )
      if (began) throw new NoAnswer(reason, route)
      if (!best || (reason.retryable && !best.reason.retryable)) best = new NoAnswer(reason, route)
    }
  }
  throw best ?? new NoAnswer(new ModelError('provider_not_configured', false), null)
}
