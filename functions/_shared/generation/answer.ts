import type { Env } from '../env.ts'
import { type Answered, ask } from '../llm/ask.ts'
import type { Prompt, Route } from '../llm/route.ts'
import type { Log } from '../log.ts'
import type { Claim } from './contract.ts'

export { type Answered, NoAnswer } from '../llm/ask.ts'

export interface AnswerOptions {
  env: Pick<Env, 'provider' | 'limits' | 'service'>
  log: Log
  claim: Claim
  prompt(route: Route, isSecondTry: boolean): Prompt
  signal: AbortSignal
  onAsk(route: Route | null): void
  onText(text: string, route: Route): void
}

/** Makes the answer that was claimed, over its routes. Throws NoAnswer, or the reason of `signal`. */
export function answer({ claim, ...options }: AnswerOptions): Promise<Answered> {
  return ask({ ...options, plan: claim, purpose: { generation_id: claim.generation_id }, settings: claim.settings })
}
