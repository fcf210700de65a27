import type { ChatMessage } from '../llm/route.ts'
import { estimateTokens, messageOverhead, shorten } from '../llm/tokens.ts'
import type { Role, Verdict } from './lore.ts'
import { type PromptMaterial, textOf } from './material.ts'
import type { Expand, Section } from './system.ts'

/** Text that stands among the messages: lore that was found, a depth prompt, memories. */
export interface Insertion {
  section: Section
  role: Role
  /** So many messages before the newest end, or after the oldest. */
  depth: number
  from: 'newest' | 'oldest'
}

/** What a text of its own message costs, or of a part that shares one. */
const costOf = (text: string) => estimateTokens(text) + 1 + messageOverhead

function sectionOf(name: string, source: Section['source'], text: string, limit: number): Section | null {
  if (!text) return null
  const room = limit - 1 - messageOverhead
  const fitted = estimateTokens(text) <= room ? text : room >= 10 ? shorten(text, room) : ''
  if (!fitted) return { name, source, text: '', tokens: 0, worth: 0, outcome: 'left_out', reason: 'no_room' }
  const outcome = fitted === text ? 'in' : 'shortened'
  return { name, source, text: fitted, tokens: costOf(fitted), worth: 0, outcome }
}

/** The card's last word, behind the history. */
export function postHistoryOf({ character }: PromptMaterial, expand: Expand, limit: number): Section | null {
  const text = expand(textOf(character, 'post_history_instructions'), '').text.trim()
  return sectionOf('post_history_instructions', 'character', text, limit)
}

/**
 * Everything that is put among the messages. Lore that would stand beside the character's description stands before the
 * newest message when a key brought it: at the beginning it would change the whole prompt from one answer to the next.
 */
export function insertions(
  material: PromptMaterial,
  expand: Expand,
  lore: Verdict[],
  limits: { depthPrompt: number; memories: number },
): { list: Insertion[]; reserved: number } {
  const list: Insertion[] = []
  const remembered = memories(material, expand, limits.memories)
  if (remembered) list.push({ section: remembered, role: 'system', depth: 1, from: 'newest' })
  for (const verdict of lore) {
    const { place, text, tokens } = verdict
    const section: Section = { name: 'lore', source: 'lore', text, tokens, worth: 0, outcome: 'in', verdict }
    if (!('depth' in place)) list.push({ section, role: 'system', depth: 1, from: 'newest' })
    else list.push({ section, role: place.role, depth: place.depth, from: place.at === 'depth' ? 'newest' : 'oldest' })
  }
  const depthPrompt = depthPromptOf(material, expand, limits.depthPrompt)
  if (depthPrompt) list.push(depthPrompt)
  const reserved = (remembered ? limits.memories : 0) + (depthPrompt?.section.tokens ?? 0)
  return { list, reserved }
}

function depthPromptOf({ character }: PromptMaterial, expand: Expand, limit: number): Insertion | null {
  const given = character?.depth_prompt
  if (given === null || typeof given !== 'object') return null
  const { prompt, depth, role } = given as Record<string, unknown>
  const text = typeof prompt === 'string' ? expand(prompt).text.trim() : ''
  const section = sectionOf('depth_prompt', 'character', text, limit)
  if (!section) return null
  return {
    section,
    role: role === 'user' || role === 'assistant' ? role : 'system',
    depth: typeof depth === 'number' && depth >= 0 ? Math.trunc(depth) : 4,
    from: 'newest',
  }
}

/** The first ones that fit: they come in the order of their worth. */
function memories({ memories = [] }: PromptMaterial, expand: Expand, limit: number): Section | null {
  const title = expand('# What {{char}} remembers').text
  let text = ''
  for (const { content } of memories) {
    const longer = `${text || title}\n- ${content.replace(/\s+/g, ' ').trim()}`
    if (costOf(longer) > limit) break
    text = longer
  }
  return sectionOf('memories', 'memories', text, limit)
}

/**
 * Puts the insertions between the messages: all of them, and those that were `added`; `begins` counts the messages up to
 * the first of the history.
 */
export function merge(history: ChatMessage[], inserted: Insertion[]) {
  const places = new Map<number, Insertion[]>()
  for (const insertion of inserted) {
    if (insertion.section.outcome === 'left_out') continue
    const { depth, from } = insertion
    const index = from === 'newest' ? Math.max(0, history.length - depth) : Math.min(history.length, depth)
    places.set(index, [...(places.get(index) ?? []), insertion])
  }
  const messages: ChatMessage[] = []
  const added: ChatMessage[] = []
  let begins = 0
  for (let index = 0; index <= history.length; index += 1) {
    const here = places.get(index)
    if (here) {
      const own = joined(here)
      added.push(...own)
      messages.push(...own)
    }
    if (index < history.length) messages.push(history[index]!)
    if (index === 0) begins = messages.length
  }
  return { messages, added, begins }
}

/** Neighbours of one role are one message. */
function joined(inserted: Insertion[]): ChatMessage[] {
  const messages: ChatMessage[] = []
  for (const { role, section } of inserted) {
    const last = messages.at(-1)
    if (last?.role === role) last.content += `\n\n${section.text}`
    else messages.push({ role, content: section.text })
  }
  return messages
}
