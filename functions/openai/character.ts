import type { AskOptions } from '../_shared/llm/ask.ts'
import type { Completion } from '../_shared/llm/completion.ts'
import { type ChatMessage, defaults, type Settings } from '../_shared/llm/route.ts'
import { budgetOf, smallerThan } from '../_shared/prompt/budget.ts'
import { composePrompt } from '../_shared/prompt/compose.ts'

/** The id in a model's name that is a character: `character:<id>`. */
export function characterIn(model: string): string | undefined {
  return /^character:([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/i.exec(model)?.[1]?.toLowerCase()
}

/**
 * Makes the prompt of a character for each route, with what the client sent as the history. What its system would say is
 * left out: clients send words of that kind unasked, and a character has its own.
 */
export function promptOf(
  { completion_id, prompt: material }: Completion,
  sent: ChatMessage[],
  settings: Settings,
): AskOptions['prompt'] {
  const messages = sent.flatMap(({ role, content }) => (role === 'system' ? [] : [{ role, content }]))
  let tried = 0
  return (route, isSecondTry) => {
    const budget = budgetOf(route, settings)
    const composed = composePrompt(
      { character: null, user: null, ...material, messages, conversation_id: completion_id, message_id: completion_id },
      isSecondTry ? smallerThan(budget, tried) : budget,
    )
    tried = composed.estimated
    return composed
  }
}

/** A character speaks as it does in conversations, unless the client wishes otherwise. */
export const characterSettings = <S extends Settings>(settings: S) => ({
  ...settings,
  temperature: settings.temperature ?? defaults.temperature,
})
