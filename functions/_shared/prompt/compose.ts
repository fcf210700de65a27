import type { ChatMessage } from '../llm/route.ts'

/** What SQL hands over for a prompt, already authorised and ordered. Parts that are not known here are ignored. */
export interface PromptMaterial {
  /** Null when the character was deleted while its answer waited. */
  character: ({ name: string } & Record<string, unknown>) | null
  user: { name: string } | null
  messages: (ChatMessage & { name?: string | null })[]
}

const sections = [
  ['description', 'About {{char}}'],
  ['personality', 'Personality'],
  ['backstory', 'Backstory'],
  ['scenario', 'Scenario'],
  ['example_dialogue', 'How {{char}} speaks, for example'],
] as const

/**
 * Composes the messages for a model, in a fixed order with the parts that change last, so that providers can reuse what
 * they computed for the beginning. `partial` is what an earlier runner has written of the answer: the model goes on from
 * there. Pure: the same material gives the same prompt.
 */
export function composePrompt({ character, user, messages }: PromptMaterial, partial = ''): ChatMessage[] {
  const char = character?.name ?? 'the assistant'
  const person = user?.name || 'the user'
  const named = (text: string) =>
    text.replace(/\{\{(char|user)\}\}/gi, (_, who: string) => (who.toLowerCase() === 'char' ? char : person))
  const given = (text: unknown): text is string => typeof text === 'string' && text.trim() !== ''

  const system = [
    given(character?.system_instruction)
      ? character.system_instruction
      : 'You are {{char}}. Answer {{user}} as {{char}} would, and stay in character.',
    ...sections.flatMap(([part, title]) => (given(character?.[part]) ? [`# ${title}\n${character[part]}`] : [])),
    '# Names\nYou are {{char}}; you talk to {{user}}.',
  ]
  // Only where several people talk does it matter who said what; a `name` field is refused by some providers.
  const people = new Set(messages.flatMap(({ role, name }) => (role === 'user' && name ? [name] : [])))
  const spoken = ({ role, content, name }: PromptMaterial['messages'][number]) =>
    people.size > 1 && role === 'user' && name ? `${name}: ${content}` : content

  return [
    { role: 'system', content: named(system.map((part) => part.trim()).join('\n\n')) },
    // Providers refuse empty messages.
    ...messages
      .filter(({ content }) => content !== '')
      .map((message) => ({ role: message.role, content: spoken(message) })),
    ...(partial ? [{ role: 'assistant' as const, content: partial }] : []),
  ]
}
