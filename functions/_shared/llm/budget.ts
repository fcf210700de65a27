import { Problem } from '../problem.ts'
import { ModelError } from './errors.ts'
import type { Usage } from './read.ts'
import { costOf, type Route, type RoutePlan } from './route.ts'

/** What is held for an answer, all its calls together. */
export interface Held {
  budget_tokens: number
  budget_micro_usd: number
}

/** Raises what is held to these amounts in all; null when the answer has ended. Throws Problem when the plan has no more. */
export type RaiseHold = (tokens: number, microUsd: number) => Promise<Held | null>

/**
 * Makes sure, before a route is asked, that what is held covers the most that the call can use beside what was spent
 * before: a longer prompt, a retry or a dearer route may need more, and then the hold is raised. Throws ModelError.
 * The plan keeps what is held, so that a second question for the same answer knows.
 */
export async function cover(
  plan: RoutePlan,
  route: Route,
  promptTokens: number,
  maxTokens: number,
  raise: RaiseHold,
): Promise<void> {
  if (plan.budget_tokens === undefined || plan.budget_micro_usd === undefined) return
  const tokens = (plan.spent_tokens ?? 0) + promptTokens + maxTokens
  const microUsd = (plan.spent_micro_usd ?? 0) + costOf(route, promptTokens, maxTokens)
  if (tokens <= plan.budget_tokens && microUsd <= plan.budget_micro_usd) return
  const held = await raise(tokens, microUsd).catch((error) => {
    throw refusal(error)
  })
  if (!held) throw new ModelError('budget_unavailable', false)
  Object.assign(plan, held)
}

/** Counts what a call has used, or may have. */
export function spend(plan: RoutePlan, route: Route, { prompt_tokens, completion_tokens }: Usage): void {
  plan.spent_tokens = (plan.spent_tokens ?? 0) + prompt_tokens + completion_tokens
  plan.spent_micro_usd = (plan.spent_micro_usd ?? 0) + costOf(route, prompt_tokens, completion_tokens)
}

/** A plan's refusal by its own code; that the database does not answer is no failure of the route. */
function refusal(error: unknown): ModelError {
  if (!(error instanceof Problem) || error.status !== 429)
    return new ModelError('budget_unavailable', true, { cause: error })
  const code = error.code === 'tokens_per_month_exceeded' ? error.code : 'budget_per_month_exceeded'
  return new ModelError(code, false, { retryAfterSeconds: Number(error.headers['retry-after']), cause: error })
}
