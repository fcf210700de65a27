import { estimateTokens, messageOverhead } from '../llm/tokens.ts'
import { expandMacros } from './macros.ts'
import { type BranchMessage, nameOf, type PromptMaterial, textOf } from './material.ts'
import type { Expand } from './system.ts'

/** A message of the branch as it goes into the prompt. */
export interface Line {
  message: BranchMessage
  content: string
  /** Infinity for what the newer ones leave no room for, whatever it says. */
  cost: number
}

/** Expands macros of the card, for this character, person and answer. */
export function expander({ character, user, conversation_id = '', message_id = '' }: PromptMaterial): Expand {
  const char = nameOf(character?.nickname) || nameOf(character?.name) || 'the assistant'
  const values = { char, user: nameOf(user?.name) || 'the user', seeds: { pick: conversation_id, random: message_id } }
  return (text, original) => expandMacros(text, { ...values, original })
}

/**
 * What was said, oldest first; what people wrote stays as they wrote it. Providers refuse empty messages. Counted from the
 * newest to as many tokens as the prompt may have, so that a long branch costs no more than what is shown of it.
 */
export function linesOf({ messages, others = [] }: PromptMaterial, expand: Expand, most: number): Line[] {
  const spoken = messages.filter(({ content }) => content !== '')
  const people = new Set<unknown>()
  for (const { role, author_id, name } of spoken) if (role === 'user') people.add(author_id ?? name)
  // Only where several people talk does it matter who said what; a `name` field is refused by some providers.
  const isNamed = people.size > 1 || others.length > 0
  const lines = spoken.map((message) => {
    const name = isNamed && message.role === 'user' ? nameOf(message.name) : ''
    const text = message.is_greeting ? expand(message.content).text : message.content
    return { message, content: name ? `${name}: ${text}` : text, cost: Infinity }
  })
  let left = most
  for (let index = lines.length - 1; index >= 0 && left >= 0; index -= 1) {
    const line = lines[index]!
    line.cost = estimateTokens(line.content) + messageOverhead
    left -= line.cost
  }
  return lines
}

/** The number of the greeting that the conversation began with, 0 for the first; null: none of them, or not known. */
export function greetingOf({ character, messages, is_whole = true }: PromptMaterial, expand: Expand): number | null {
  const first = is_whole && messages[0]?.role === 'assistant' ? messages[0].content : null
  if (!first) return null
  const alternates = Array.isArray(character?.alternate_greetings) ? character.alternate_greetings : []
  const index = [textOf(character, 'greeting'), ...alternates].findIndex(
    (greeting) => typeof greeting === 'string' && (greeting.trim() === first.trim() || expand(greeting).text === first),
  )
  return index < 0 ? null : index
}
