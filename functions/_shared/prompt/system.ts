import { estimateTokens, shorten } from '../llm/tokens.ts'
import type { Place, Verdict } from './lore.ts'
import type { Expanded } from './macros.ts'
import { nameOf, type PromptMaterial, textOf } from './material.ts'

/** A part of the system message, or of what stands behind the history. */
export interface Section {
  name: string
  source: 'parlor' | 'character' | 'lore' | 'summary' | 'memories'
  /** As it stands in the prompt, title included. */
  text: string
  tokens: number
  /** The lowest goes first when there is no room. */
  worth: number
  outcome: 'in' | 'shortened' | 'left_out'
  reason?: 'no_room' | 'history_needs_room' | 'not_needed'
  verdict?: Verdict
}

export type Expand = (text: string, original?: string) => Expanded

const instruction = 'You are {{char}}. Answer {{user}} as {{char}} would, and stay in character.'

/** Between two sections of one message. */
const gap = '\n\n'
const gapTokens = estimateTokens(gap)

/** Columns of a snapshot that are told one line each. */
const profile = [
  ['age', 'Age'],
  ['gender', 'Gender'],
  ['occupation', 'Occupation'],
  ['hobbies', 'Hobbies'],
  ['language', 'Language'],
  ['voice', 'Voice'],
] as const

const looks = [
  ['heritage', 'Heritage'],
  ['skin_tone', 'Skin'],
  ['eye_colour', 'Eyes'],
  ['hair_colour', 'Hair colour'],
  ['hair_style', 'Hair'],
  ['body_type', 'Build'],
  ['proportions', 'Proportions'],
  ['custom_traits', 'Traits'],
] as const

/**
 * Everything that the system message tells, in its order: what never changes first, what may change last. `lore` is what
 * stands whatever is said.
 */
export function systemSections(material: PromptMaterial, expand: Expand, lore: Verdict[]): Section[] {
  const { character, others = [], summary } = material
  const section = (name: string, worth: number, title: string, text: string): Section[] => {
    const body = text.trim()
    if (!body) return []
    const whole = expand(title ? `# ${title}\n` : '').text + body
    return [{ name, source: 'character', text: whole, tokens: estimateTokens(whole) + gapTokens, worth, outcome: 'in' }]
  }
  const told = (key: string, worth: number, title: string) =>
    section(key, worth, title, expand(textOf(character, key)).text)
  const loreAt = (at: Place['at']): Section[] =>
    lore.filter(({ place }) => place.at === at).map((verdict) => loreSection(verdict))

  const builtIn = expand(instruction).text
  const given = expand(textOf(character, 'system_instruction'), builtIn).text.trim()
  return [
    given
      ? section('system_instruction', 100, '', given)
      : section('instruction', 100, '', builtIn).map((part) => ({ ...part, source: 'parlor' as const })),
    loreAt('before_char'),
    section('description', 70, 'About {{char}}', expand(textOf(character, 'description')).text),
    section('profile', 30, 'Facts about {{char}}', lines(character, profile)),
    section('appearance', 20, 'Looks of {{char}}', lines(recordOf(character?.appearance), looks)),
    told('personality', 80, 'Personality'),
    loreAt('personality'),
    section('behaviour', 40, 'Behaviour', behaviour(character, expand)),
    section('custom_descriptions', 35, 'More about {{char}}', pairs(character?.custom_descriptions, expand)),
    told('backstory', 50, 'Backstory'),
    told('scenario', 60, 'Scenario'),
    loreAt('scenario'),
    loreAt('after_char'),
    section('example_dialogue', 0, 'How {{char}} speaks, for example', examples(character, expand)),
    section('names', 110, 'Names', names(expand, others)).map((part) => ({ ...part, source: 'parlor' as const })),
    section('summary', 45, 'The story so far', summary?.content ?? '').map((part) => ({
      ...part,
      source: 'summary' as const,
    })),
  ].flat()
}

/** Lore without a title of its own: authors write it so that it can stand alone. */
export function loreSection(verdict: Verdict): Section {
  return {
    name: 'lore',
    source: 'lore',
    text: verdict.text,
    tokens: estimateTokens(verdict.text) + gapTokens,
    worth: 10,
    outcome: 'in',
    verdict,
  }
}

/**
 * Makes sections fit by leaving the least worth out, or shortening it where a part is still of use. What is said first is
 * said best, so texts lose their ends; example dialogue loses whole examples, the last first.
 */
export function fitSections(sections: Section[], limit: number): void {
  let over = sections.reduce((sum, { tokens, outcome }) => sum + (outcome === 'left_out' ? 0 : tokens), 0) - limit
  for (const section of [...sections].sort((a, b) => a.worth - b.worth)) {
    if (over <= 0) return
    if (section.outcome === 'left_out') continue
    const before = section.tokens
    const room = before - over - gapTokens
    const text = section.name === 'example_dialogue' ? fewer(section.text, room) : shorten(section.text, room)
    // Of lore and of names, a part is of no use; of others, a few words are none.
    const isUseful = section.name !== 'lore' && section.name !== 'names' && (room >= 30 || section.worth === 100)
    if (isUseful && text) {
      Object.assign(section, { text, tokens: estimateTokens(text) + gapTokens, outcome: 'shortened' })
    } else {
      leaveOut(section, 'no_room')
    }
    over -= before - section.tokens
  }
}

export function leaveOut(section: Section, reason: Section['reason']): void {
  Object.assign(section, { tokens: 0, outcome: 'left_out', reason })
  if (section.verdict) Object.assign(section.verdict, { isIn: false, reason: 'over_budget' })
}

export const joinSections = (sections: Section[]): string =>
  sections.flatMap(({ text, outcome }) => (outcome === 'left_out' ? [] : [text])).join(gap)

const recordOf = (value: unknown): Record<string, unknown> | null =>
  value !== null && typeof value === 'object' && !Array.isArray(value) ? (value as Record<string, unknown>) : null

function lines(record: Record<string, unknown> | null, named: readonly (readonly [string, string])[]): string {
  return named
    .flatMap(([key, title]) => {
      const value = record?.[key]
      const words = Array.isArray(value) ? value.map(nameOf).filter(Boolean).join(', ') : textOf(record, key)
      return words ? [`${title}: ${words}`] : []
    })
    .join('\n')
}

function pairs(value: unknown, expand: Expand): string {
  return Object.entries(recordOf(value) ?? {})
    .flatMap(([title, text]) =>
      typeof text === 'string' && text.trim() ? [`${title}: ${expand(text).text.trim()}`] : [],
    )
    .join('\n')
}

function behaviour(character: Record<string, unknown> | null, expand: Expand): string {
  const wishes = pairs(character?.behaviour_preferences, expand)
  if (character?.uses_generated_behaviour !== true) return wishes
  const free = 'Let {{char}} act of their own accord, as such a person would; surprise {{user}} where it fits.'
  return [expand(free).text, wishes].filter(Boolean).join('\n')
}

function names(expand: Expand, others: string[]): string {
  const known = others.map(nameOf).filter(Boolean)
  const company = known.length > 0 ? `, and to ${known.join(', ')}. What people say begins with their name` : ''
  return `${expand('You are {{char}}; you talk to {{user}}').text}${company}.`
}

/** Cards part examples by lines of `<START>`. */
function examples(character: Record<string, unknown> | null, expand: Expand): string {
  return expand(textOf(character, 'example_dialogue').replace(/\s*<START>\s*/gi, `${between}`))
    .text.split(between)
    .map((example) => example.trim())
    .filter(Boolean)
    .join(between)
}

const between = '\n---\n'

function fewer(text: string, tokens: number): string {
  const kept = text.split(between)
  while (kept.length > 0 && estimateTokens(kept.join(between)) > tokens) kept.pop()
  return kept.join(between)
}
