import { ModelError } from '../llm/errors.ts'
import { defaults, type Route, type Settings } from '../llm/route.ts'

/** What a prompt may take, in tokens as we estimate them. */
export interface Budget {
  /** All of the prompt. */
  prompt: number
  /** What the route takes, prompt and answer. */
  window: number
  /** What is kept free for the answer. */
  answer: number
  /** How many tokens of the provider one of ours is, by its own counts. */
  factor: number
}

/** The room of a route, less the answer; that gets half of the window at most. */
export function budgetOf(route: Route, { max_tokens }: Settings): Budget {
  const { context_window: window } = route
  const answer = Math.min(max_tokens ?? defaults.max_tokens, route.max_output, Math.floor(window / 2))
  const factor = Math.min(2, Math.max(0.5, route.token_factor ?? 1))
  return { prompt: Math.floor((window - answer) / factor), window, answer, factor }
}

/** The room for a second prompt, after the provider found one too long that seemed to fit. */
export function smallerThan(budget: Budget, estimated: number): Budget {
  return { ...budget, prompt: Math.floor(Math.min(budget.prompt, estimated) * 0.6) }
}

/** The most that each part may take of what is left beside the newest message. The history gets what they leave. */
export const shares = { lore: 0.17, postHistory: 0.08, depthPrompt: 0.05, memories: 0.05 } as const

/** The parts together; what the others do not need of it the system message may have. */
export const wholeShare = 0.9

/** The base of the shares: a long newest message makes the parts smaller only when it takes more than a fifth. */
export const shareable = (budget: number, required: number) => Math.min(budget - required, Math.floor(budget * 0.8))

export const tooLong = () => new ModelError('context_too_long', false)
