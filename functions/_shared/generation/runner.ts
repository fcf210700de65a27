import { onUnload } from '../background.ts'
import { pause } from '../deadline.ts'
import type { Env } from '../env.ts'
import { estimateUsage } from '../llm/complete.ts'
import type { ModelError } from '../llm/errors.ts'
import type { Route } from '../llm/route.ts'
import type { Log } from '../log.ts'
import { textStream } from '../text.ts'
import { type Answered, answer, NoAnswer } from './answer.ts'
import { Appender, type Lease } from './appender.ts'
import type { Claim, FinishResult, Outcome } from './contract.ts'
import { LiveRun, liveRuns } from './live.ts'
import { moderatePrompt } from './moderate.ts'
import { paced } from './pacer.ts'
import { type PromptAccount, promptsOf } from './prompt.ts'

/** Why the runner stopped by itself: the isolate is about to end. */
const handOver = 'handed_over'

/** The one appender of this isolate, made with the first run. */
let appender: Appender | undefined

export interface RunOptions {
  /** The message was let through by moderation a moment ago. */
  moderated?: boolean
}

export interface Run {
  claim: Claim
  /** Never rejects; `lost_lease` when another runner has taken over, or nothing could be said to the database. */
  done: Promise<FinishResult>
}

/**
 * Takes the lease of a generation and makes the answer, for inline and queued runs alike. Resolves with null when there
 * is nothing to take: it has ended, waits for its time, or another runner holds it.
 */
export async function startGeneration(
  env: Env,
  generationId: string,
  log: Log = env.log,
  { moderated = false }: RunOptions = {},
): Promise<Run | null> {
  const claim = await env.service.call<Claim | null>('claim_generation', generationId)
  if (!claim) return null
  appender ??= new Appender(env.service, env.log)
  const lease = appender.open(claim)
  const live = new LiveRun(generationId, claim.attempt, claim.next_seq)
  liveRuns.set(generationId, live)
  const own = log.with({ generation_id: generationId, attempt: claim.attempt })
  const done = run(env, own, lease, live, moderated).finally(() => {
    appender!.close(lease)
    if (liveRuns.get(generationId) === live) liveRuns.delete(generationId)
  })
  return { claim, done }
}

async function run(env: Env, log: Log, lease: Lease, live: LiveRun, moderated: boolean): Promise<FinishResult> {
  const started = performance.now()
  const ending = new AbortController()
  const over = Promise.withResolvers<void>()
  const remaining = env.clock.remaining()
  const timer = Number.isFinite(remaining) ? setTimeout(() => ending.abort(handOver), remaining) : undefined
  const forget = onUnload(() => {
    ending.abort(handOver)
    return over.promise
  })
  try {
    const { refused, error } = await moderatePrompt(env, lease.claim, moderated, log)
    const outcome = error
      ? { ...nothing, ...unanswered(error) }
      : await attempt(env, log, lease, live, AbortSignal.any([lease.signal, ending.signal]))
    const result = outcome
      ? await finish(env, log, lease, { ...outcome, ...(refused.length > 0 && { refused }) })
      : ({ status: 'lost_lease' } as const)
    log.info('generation_ran', {
      outcome: outcome?.status ?? 'lost_lease',
      status: result.status,
      code: outcome?.error?.code,
      route_id: outcome?.route_id,
      prompt_count: outcome?.usage?.prompt_tokens,
      completion_count: outcome?.usage?.completion_tokens,
      ms: Math.round(performance.now() - started),
    })
    const ended = result.status === 'completed' || result.status === 'failed' || result.status === 'cancelled'
    live.push(ended ? { type: 'ended', result: { error: outcome?.error, ...result } } : { type: 'released' })
    return result
  } catch (error) {
    log.error('generation_crashed', {}, error)
    live.push({ type: 'released' })
    return { status: 'lost_lease' }
  } finally {
    clearTimeout(timer)
    forget()
    over.resolve()
  }
}

/** Streams one answer into the lease. Null when the lease was lost: then nothing more may be said. */
async function attempt(env: Env, log: Log, lease: Lease, live: LiveRun, signal: AbortSignal): Promise<Outcome | null> {
  const { claim } = lease
  const prompts = promptsOf(claim, log)
  const texts = textStream()
  const pacer = paced((text) => {
    const { seq } = lease.write(text)
    live.push({ type: 'delta', attempt: claim.attempt, seq, text })
  })
  let said = ''
  let asked: Route | null = null
  lease.meter = () => (asked ? estimateUsage(prompts.tokens, said) : null)
  // What is written can only be continued by a route that goes on after it.
  const routes = claim.partial ? claim.routes.filter(({ continues }) => continues !== false) : claim.routes
  const take = (text: string) => {
    said += text
    pacer.push(text)
  }

  let answered: Answered | null = null
  let failure: unknown
  const onAsk = (route: Route | null) => {
    asked = route
    lease.routeId = routeId(route)
  }
  const onText = (text: string) => take(texts.push(text))
  if (claim.partial && routes.length === 0) return { ...nothing, ...cutShort(null) }
  try {
    answered = await answer({ env, log, claim: { ...claim, routes }, prompt: prompts.for, signal, onAsk, onText })
  } catch (error) {
    failure = error
  }
  if (answered) take(texts.end())
  pacer.flush()
  await lease.flush()
  if (lease.signal.reason === 'lease_lost') return null

  const common: Common = {
    ...nothing,
    usage: answered?.usage ?? null,
    route_id: routeId(answered?.route ?? asked),
    ...(await prompts.account()),
  }
  if (answered) {
    const { finishReason, providerRequestId } = answered
    return {
      ...common,
      status: 'completed',
      finish_reason: finishReason,
      provider_request_id: providerRequestId,
      error: null,
      retry_after_seconds: null,
    }
  }
  const used = lease.meter()
  const isLeft = signal.aborted && signal.reason === handOver
  if (isLeft && said && continues(asked) === false) return { ...common, ...cutShort(used) }
  return { ...common, ...unfinished(signal, failure, used) }
}

type Common = Pick<Outcome, 'usage' | 'route_id' | 'provider_request_id' | 'hand_over'> & PromptAccount
type Unfinished = Omit<Outcome, keyof Common> & Partial<Common>

const nothing: Common = { usage: null, route_id: null, provider_request_id: null, hand_over: false }
// What a callback has set, TypeScript takes for null.
const routeId = (route: Route | null) => route?.route_id ?? null
const continues = (route: Route | null) => route?.continues

/** The time is over and nobody can go on where the text stops: what came is the answer, and can be continued later. */
function cutShort(usage: Outcome['usage']): Omit<Outcome, 'route_id' | 'provider_request_id' | 'hand_over'> {
  return { status: 'completed', finish_reason: 'length', usage, error: null, retry_after_seconds: null }
}

function unfinished(signal: AbortSignal, failure: unknown, usage: Outcome['usage']): Unfinished {
  if (signal.aborted && signal.reason === 'cancel_requested') {
    return { status: 'cancelled', finish_reason: 'cancelled', usage, error: null, retry_after_seconds: null }
  }
  if (signal.aborted && signal.reason === handOver) {
    const error = { code: handOver, detail: 'The time of this runner was over.', retryable: true }
    return { status: 'retry', finish_reason: handOver, usage, error, retry_after_seconds: 0, hand_over: true }
  }
  if (!(failure instanceof NoAnswer)) throw failure
  return { ...unanswered(failure.reason), usage, route_id: failure.route?.route_id ?? null }
}

function unanswered(reason: ModelError): Unfinished & { usage: null } {
  return {
    status: reason.retryable ? 'retry' : 'failed',
    finish_reason: 'error',
    usage: null,
    error: { code: reason.code, detail: 'The model gave no answer.', retryable: reason.retryable },
    retry_after_seconds: reason.retryAfterSeconds ?? null,
  }
}

/** Tells the database how it ended; tries again while the lease lasts, since the answer is made and would be lost. */
async function finish(env: Env, log: Log, lease: Lease, outcome: Outcome): Promise<FinishResult> {
  const { generation_id, attempt, lease_token } = lease.claim
  for (let wait = 100; ; wait = Math.min(wait * 2, 2000)) {
    try {
      return await env.service.call<FinishResult>('finish_generation', generation_id, attempt, lease_token, outcome)
    } catch (error) {
      log.warn('finish_failed', {}, error)
      const passing = (error as { status?: number }).status === 503
      if (!passing || lease.expired) return { status: 'lost_lease' }
      await pause(wait)
    }
  }
}
