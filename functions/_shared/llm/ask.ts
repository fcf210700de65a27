import type { ServiceDatabase } from '../database.ts'
import type { Env } from '../env.ts'
import type { Log } from '../log.ts'
import { cover, type Held, spend } from './budget.ts'
import { type Completed, complete, estimateUsage } from './complete.ts'
import { ModelError, type ModelErrorCode } from './errors.ts'
import type { Usage } from './read.ts'
import type { Format } from './request.ts'
import {
  admit,
  type ChatMessage,
  estimatePrompt,
  type Prompt,
  type Route,
  type RoutePlan,
  type Settings,
} from './route.ts'

export interface Answered extends Completed {
  route: Route
}

/** No route gave a whole answer; `reason` is the one that promises most. */
export class NoAnswer extends Error {
  constructor(
    readonly reason: ModelError,
    readonly route: Route | null,
  ) {
    super(reason.code, { cause: reason })
    this.name = 'NoAnswer'
  }
}

/** What a call is for; its row is made where the answer's own row does not stand for it. */
export type Purpose = { generation_id: string } | { completion_id: string }

export interface AskOptions {
  env: Pick<Env, 'provider' | 'limits'> & { service: Pick<ServiceDatabase, 'call'> }
  log: Log
  plan: RoutePlan
  purpose: Purpose
  /**
   * Makes the prompt for a route: they differ in what they take. Asked again, with `isSecondTry`, after the provider found
   * it too long; null then when it cannot be shorter. May throw ModelError.
   */
  prompt(route: Route, isSecondTry: boolean): Prompt | null
  settings: Settings
  format?: Format
  signal: AbortSignal
  /** Gets each route when it is asked, and null when it gave no word: then its call is told, and is nobody's any more. */
  onAsk?(route: Route | null): void
  onText(text: string, route: Route): void
}

/** A prompt that is the same for every route. */
export function samePrompt(messages: ChatMessage[]): AskOptions['prompt'] {
  const prompt = { messages, tokens: estimatePrompt(messages) }
  return (_, isSecondTry) => (isSecondTry ? null : prompt)
}

/** Failures of an account or a key: waiting does not mend them, an operator does. */
const lasting = new Set<string | null>(['provider_quota_exhausted', 'provider_refused_key'])

/**
 * Asks the routes in their order until one answers, each only for what it can do and may cost, and once more with a
 * shorter prompt where the provider finds it too long. Once text has come no other route is tried: the reader has seen it.
 * How each call went is told to the database, whose circuit breakers all isolates share. Throws NoAnswer, or the reason of
 * `signal`.
 */
export async function ask(options: AskOptions): Promise<Answered> {
  const { plan } = options
  const failures: NoAnswer[] = []

  for (const route of plan.routes) {
    for (const isSecondTry of [false, true]) {
      const outcome = await call(options, route, isSecondTry)
      if (!outcome) break
      if (outcome.usage) spend(plan, route, outcome.usage)
      if ('finishReason' in outcome) return outcome
      const { reason } = outcome
      failures.push(new NoAnswer(reason, route))
      if (reason.code !== 'context_too_long') break
    }
  }
  throw mostPromising([...failures, ...plan.skipped.map(skipped)])
}

interface Failed {
  reason: ModelError
  usage: Usage | null
}

/** One call of a route; null when there is nothing else to ask it. Throws once its text was seen, or `signal` fired. */
async function call(options: AskOptions, route: Route, isSecondTry: boolean): Promise<Answered | Failed | null> {
  const { env, log, plan, format, signal } = options
  const started = performance.now()
  let received = ''
  let prompt: Prompt | null = null
  const told = (call: Partial<Call>) =>
    report(options, route, { ...call, took_ms: performance.now() - started }, received)
  const used = () => estimateUsage(prompt?.tokens ?? 0, received)
  try {
    prompt = options.prompt(route, isSecondTry)
    if (!prompt) return null
    const settings = admit(route, prompt.tokens, options.settings, plan.spent_micro_usd ?? 0)
    await cover(plan, route, prompt.tokens, settings.max_tokens, raiseHold(options))
    options.onAsk?.(route)
    const completed = await complete({
      env,
      route,
      prompt,
      settings,
      format,
      signal,
      onText(text) {
        received += text
        options.onText(text, route)
      },
    })
    await told({ code: null, usage: completed.usage, provider_request_id: completed.providerRequestId })
    return { ...completed, route }
  } catch (error) {
    if (signal.aborted) {
      await told({ code: 'cancelled', usage: used() })
      throw error
    }
    const reason = error instanceof ModelError ? error : new ModelError('provider_unavailable', true, { cause: error })
    log.warn(
      'route_failed',
      { ...options.purpose, route_id: route.route_id, provider: route.provider, code: reason.code },
      reason.cause,
    )
    const usage = received || mayHaveCost(error) ? used() : null
    await told({
      code: reason.code,
      retry_after_seconds: reason.retryAfterSeconds ?? null,
      usage,
      provider_request_id: reason.requestId ?? null,
    })
    if (received) throw new NoAnswer(reason, route)
    options.onAsk?.(null)
    return { reason, usage }
  }
}

/** Raises the hold of what the calls are for. */
export const raiseHold =
  ({ env, purpose }: Pick<AskOptions, 'env' | 'purpose'>) =>
  (tokens: number, microUsd: number) => {
    const id = 'generation_id' in purpose ? purpose.generation_id : purpose.completion_id
    return env.service.call<Held | null>('raise_hold', id, tokens, microUsd)
  }

export interface Call {
  code: string | null
  retry_after_seconds: number | null
  usage: Usage | null
  provider_request_id: string | null
  took_ms: number
}

/**
 * Tells the database how a call went. A call for an answer that wrote something has its row there already; a success of a
 * route that nobody suspects is no news.
 */
export async function report(
  options: Pick<AskOptions, 'env' | 'log' | 'purpose'>,
  route: Route,
  call: Partial<Call>,
  received = '',
): Promise<void> {
  const own = 'generation_id' in options.purpose && (received !== '' || call.code === null || call.code === 'cancelled')
  if (own && call.code === null && !route.is_suspect) return
  try {
    await options.env.service.call('report_call', {
      ...call,
      took_ms: Math.round(call.took_ms ?? 0),
      route_id: route.route_id,
      ...(own ? {} : options.purpose),
    })
  } catch (error) {
    options.log.warn('report_failed', { route_id: route.route_id }, error)
  }
}

/** Whether a provider that said nothing may all the same have read the prompt, and charge for it. */
function mayHaveCost(error: unknown): boolean {
  return error instanceof ModelError && ['provider_timeout', 'answer_interrupted', 'answer_empty'].includes(error.code)
}

export function skipped({ code, retry_after_seconds }: RoutePlan['skipped'][number]): NoAnswer {
  const reason = (code ?? 'provider_unavailable') as ModelErrorCode
  return new NoAnswer(new ModelError(reason, !lasting.has(code), { retryAfterSeconds: retry_after_seconds }), null)
}

/** A failure that passes before one that lasts, and the soonest to pass among those. */
export function mostPromising(failures: NoAnswer[]): NoAnswer {
  const wait = ({ reason }: NoAnswer) => reason.retryAfterSeconds ?? 0
  const passing = failures.filter(({ reason }) => reason.retryable).sort((a, b) => wait(a) - wait(b))
  return passing[0] ?? failures[0] ?? new NoAnswer(new ModelError('provider_not_configured', false), null)
}
