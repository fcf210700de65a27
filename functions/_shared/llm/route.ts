import type { ProviderNames } from '../env.ts'
import { ModelError } from './errors.ts'
import { estimateTokens, messageOverhead, promptOverhead } from './tokens.ts'

/** Which fields of a request a provider takes; see `profiles` in request.ts. */
export type Dialect = 'openai' | 'anthropic' | 'google' | 'groq' | 'openrouter' | 'compatible'

/** One way to a model, as `private.usable_routes` hands it out. Prices are micro-USD for a million tokens. */
export interface Route extends ProviderNames {
  route_id: string
  provider: string
  dialect: Dialect
  /** The model's name at the provider. */
  model: string
  streams: boolean
  takes_system: boolean
  takes_temperature: boolean
  takes_json_schema: boolean
  continues: boolean
  context_window: number
  max_output: number
  prompt_price: number | null
  completion_price: number | null
  ceiling_micro_usd: number | null
  /** How many of its tokens one of our estimate is, by what it has counted; 1 while nobody knows. */
  token_factor?: number
  /** It failed lately, or is being probed: its circuit breaker waits to hear how it does. */
  is_suspect: boolean
}

/** A route whose circuit breaker is open. */
export interface SkippedRoute {
  route_id: string
  provider: string
  code: string | null
  retry_after_seconds: number
}

export interface RoutePlan {
  routes: Route[]
  skipped: SkippedRoute[]
  /** What the answer has cost and used before; retries spend from one ceiling, and from one hold. */
  spent_micro_usd?: number
  spent_tokens?: number
  /** What is held for the answer in all: no call may go beyond it, see budget.ts. */
  budget_micro_usd?: number
  budget_tokens?: number
}

export interface ChatMessage {
  role: 'system' | 'user' | 'assistant'
  content: string
}

export interface Settings {
  temperature?: number | null
  max_tokens?: number | null
  top_p?: number | null
  frequency_penalty?: number | null
  presence_penalty?: number | null
  stop?: string[] | null
  seed?: number | null
}

/** Used where nobody says anything else. */
export const defaults = { temperature: 0.7, max_tokens: 1024 } as const

export function estimatePrompt(messages: { content: string }[]): number {
  return messages.reduce((sum, { content }) => sum + estimateTokens(content) + messageOverhead, promptOverhead)
}

/** What is asked of a route, and how many tokens that should be. */
export interface Prompt {
  messages: ChatMessage[]
  tokens: number
}

/** The most that a call costs, in millionths of a dollar; an unknown price counts as nothing. */
export const costOf = (route: Route, promptTokens: number, completionTokens: number) =>
  Math.ceil((promptTokens * (route.prompt_price ?? 0) + completionTokens * (route.completion_price ?? 0)) / 1_000_000)

/**
 * What may be asked of this route, or throws ModelError: the prompt has to fit, the answer is cut to what fits, and the
 * most that the call can cost stays under the operator's ceiling. Asked again for every route, since they differ in all of it.
 */
export function admit(route: Route, promptTokens: number, wanted: Settings, spentMicroUsd: number) {
  const room = route.context_window - promptTokens
  if (room < 1) throw new ModelError('context_too_long', false)
  const max_tokens = Math.min(wanted.max_tokens ?? defaults.max_tokens, route.max_output, room)
  afford(route, promptTokens, max_tokens, spentMicroUsd)
  return { ...wanted, max_tokens }
}

/** Throws ModelError when a call may cost more than the operator's ceiling leaves. */
export function afford(route: Route, promptTokens: number, completionTokens: number, spentMicroUsd: number): void {
  if (route.ceiling_micro_usd === null) return
  // A price that nobody knows may be any price.
  const known = route.prompt_price !== null && route.completion_price !== null
  const most = spentMicroUsd + costOf(route, promptTokens, completionTokens)
  if (!known || most > route.ceiling_micro_usd) throw new ModelError('cost_ceiling_reached', false)
}
