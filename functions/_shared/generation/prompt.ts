import { ModelError } from '../llm/errors.ts'
import type { Route } from '../llm/route.ts'
import type { Log } from '../log.ts'
import { type Budget, budgetOf, smallerThan } from '../prompt/budget.ts'
import { type Composed, composePrompt } from '../prompt/compose.ts'
import { prefixHash } from '../prompt/prefix.ts'
import type { Claim, Outcome } from './contract.ts'

/** What is kept of a prompt with its attempt; nothing when no route was asked. */
export type PromptAccount = Pick<Outcome, 'trace' | 'prefix_hash' | 'prompt_tokens_estimated' | 'outgrown'>

/** The prompts of one attempt: one for each route that is tried, and the last one's account for the database. */
export function promptsOf(claim: Claim, log: Log) {
  let last: { composed: Composed; isSecondTry: boolean } | null = null
  return {
    for(route: Route, isSecondTry: boolean): Composed {
      const budget = budgetOf(route, claim.settings)
      // The first try was this route's, the last that was made.
      const tried = isSecondTry && last ? smallerThan(budget, last.composed.estimated) : budget
      const composed = compose(claim, tried, log)
      last = { composed, isSecondTry }
      return composed
    },
    get tokens(): number {
      return last?.composed.tokens ?? 0
    },
    async account(): Promise<PromptAccount> {
      if (!last) return {}
      const { composed, isSecondTry } = last
      return {
        trace: { ...composed.trace, is_second_try: isSecondTry },
        prefix_hash: await prefixHash(composed.prefix),
        prompt_tokens_estimated: composed.estimated,
        outgrown: composed.outgrown,
      }
    },
  }
}

/** What strangers wrote must not keep an answer from being made: a prompt that fails for it is made with less of it. */
function compose(claim: Claim, budget: Budget, log: Log): Composed {
  const material = { ...claim.prompt, conversation_id: claim.conversation_id, message_id: claim.message_id }
  try {
    return composePrompt(material, budget, claim.partial)
  } catch (error) {
    if (error instanceof ModelError) throw error
    log.error('prompt_failed', {}, error)
    return composePrompt({ ...material, lorebooks: [], memories: [], summary: null }, budget, claim.partial)
  }
}
