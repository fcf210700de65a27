import type { ChatMessage } from '../llm/complete.ts'

/** What SQL hands over for a prompt, already authorised and ordered. Unknown parts are ignored. */
export interface PromptMaterial {
  character: {
    name: string
    system_instruction?: string | null
    personality?: string | null
    scenario?: string | null
    backstory?: string | null
    example_dialogue?: string | null
    [part: string]: unknown
  }
  user: { name: string }
  messages: ChatMessage[]
}

const sections = [
  ['personality', 'Personality'],
  ['backstory', 'Backstory'],
  ['scenario', 'Scenario'],
  ['example_dialogue', 'How {{char}} speaks, for example'],
] as const

/**
 * Composes the messages for a model, in a fixed order with the parts that change last, so that providers can reuse what
 * they computed for the beginning. Pure: the same material gives the same prompt.
 */
export function composePrompt({ character, user, messages }: PromptMaterial): ChatMessage[] {
  const names = (text: string) =>
    text.replace(/\{\{(char|user)\}\}/gi, (_, who: string) =>
      who.toLowerCase() === 'char' ? character.name : user.name,
    )
  const given = (text: unknown): text is string => typeof text === 'string' && text.trim() !== ''

  const system = [
    given(character.system_instruction)
      ? character.system_instruction
      : 'You are {{char}}. Answer {{user}} as {{char}} would, and stay in character.',
    ...sections.flatMap(([part, title]) => (given(character[part]) ? [`# ${title}\n${character[part]}`] : [])),
    '# Names\nYou are {{char}}; you talk to {{user}}.',
  ]
  return [
    { role: 'system', content: names(system.map((part) => part.trim()).join('\n\n')) },
    // Providers refuse empty messages.
    ...messages.filter(({ content }) => content !== '').map(({ role, content }) => ({ role, content: names(content) })),
  ]
}
