import { type ChatMessage, estimatePrompt } from '../llm/route.ts'
import { estimateTokens, messageOverhead, promptOverhead } from '../llm/tokens.ts'
import { type Budget, shareable, shares, tooLong, wholeShare } from './budget.ts'
import { cutHistory } from './history.ts'
import { findLore, fitLore, isInPrefix, type Verdict } from './lore.ts'
import type { PromptMaterial } from './material.ts'
import { expander, greetingOf, type Line, linesOf } from './branch.ts'
import { type Expand, fitSections, joinSections, leaveOut, type Section, systemSections } from './system.ts'
import { insertions, merge, postHistoryOf } from './tail.ts'
import { leftOutLore, type Trace, traceSections } from './trace.ts'

export type { PromptMaterial } from './material.ts'

export interface Composed {
  messages: ChatMessage[]
  /** Tokens of it all by our estimate, and by what the provider's own counts have taught about it. */
  estimated: number
  tokens: number
  /** What the next answers of this stretch of the conversation will begin with, too. */
  prefix: ChatMessage[]
  trace: Trace
  /** The branch outgrows its room: the last message that a summary should tell. */
  outgrown: string | null
}

/**
 * Composes the messages for a model within a budget: the character first, then the story so far, the history, and what
 * depends on the newest message last, so that providers can reuse what they computed for the beginning. `partial` is what
 * an earlier runner has written of the answer: the model goes on from there. Pure: the same material gives the same
 * prompt. Throws ModelError `context_too_long` when not even the newest message fits.
 */
export function composePrompt(material: PromptMaterial, budget: Budget, partial = ''): Composed {
  const expand = expander(material)
  const lines = linesOf(material, expand, budget.prompt)
  const newest = lines.at(-1)?.cost ?? 0
  const required = newest + promptOverhead + (partial ? estimateTokens(partial) + messageOverhead : 0)
  const room = budget.prompt - required
  // The system message has an overhead, and needs a few words.
  if (room < messageOverhead + 10) throw tooLong()
  const base = shareable(budget.prompt, required)

  const lore = chooseLore(material, lines, expand, Math.floor(shares.lore * base))
  const postHistory = postHistoryOf(material, expand, Math.floor(shares.postHistory * base))
  const inserted = insertions(material, expand, lore.moving, {
    depthPrompt: Math.floor(shares.depthPrompt * base),
    memories: Math.floor(shares.memories * base),
  })
  const reserved = lore.reserved + inserted.reserved + (postHistory?.tokens ?? 0)

  const system = fitSystem(material, expand, lore.prefix, Math.floor(wholeShare * base) - reserved - messageOverhead)
  const history = fitHistory(
    material,
    lines,
    (parts) => room + newest - reserved - messageOverhead - system(parts).tokens,
  )
  const { sections, content } = system(history.parts)
  const kept = lines.slice(history.start)

  const opening: ChatMessage[] = content ? [{ role: 'system', content }] : []
  const told = merge(
    kept.map(({ message, content }) => ({ role: message.role, content })),
    inserted.list,
  )
  const closing: ChatMessage[] = [
    ...(postHistory?.text ? [{ role: 'system' as const, content: postHistory.text }] : []),
    ...(partial ? [{ role: 'assistant' as const, content: partial }] : []),
  ]
  const messages = [...opening, ...told.messages, ...closing]
  // The history is counted already, and nearly all of it.
  const said = kept.reduce((sum, { cost }) => sum + cost, 0)
  const estimated = said + estimatePrompt([...opening, ...told.added, ...closing])
  const tokens = Math.ceil(estimated * budget.factor)
  const behind = [...inserted.list.map(({ section }) => section), ...(postHistory ? [postHistory] : [])]
  return {
    messages,
    estimated,
    tokens,
    prefix: messages.slice(0, opening.length + told.begins),
    outgrown: history.outgrown === null ? null : (lines[history.outgrown]!.message.id ?? null),
    trace: {
      budget: { ...budget },
      tokens,
      character_version: material.character_version ?? null,
      sections: traceSections([...sections, ...behind], budget),
      history: historyTrace(kept, said, lines.length - kept.length, budget),
      summary: material.summary ? { message_id: material.summary.message_id, is_used: history.parts.summary } : null,
      left_out_lore: leftOutLore(lore.verdicts),
    },
  }
}

/** What makes room for the history, or tells what it does not. */
interface Parts {
  examples: boolean
  summary: boolean
}

/** The system message with or without these parts, each made once. */
function fitSystem(material: PromptMaterial, expand: Expand, lore: Verdict[], limit: number) {
  const known = new Map<string, { sections: Section[]; content: string; tokens: number }>()
  return (parts: Parts) => {
    const key = `${parts.examples} ${parts.summary}`
    const made = known.get(key)
    if (made) return made
    const sections = systemSections(material, expand, lore)
    for (const section of sections) {
      if (section.name === 'example_dialogue' && !parts.examples) leaveOut(section, 'history_needs_room')
      if (section.name === 'summary' && !parts.summary) leaveOut(section, 'not_needed')
    }
    fitSections(sections, Math.max(0, limit))
    const content = joinSections(sections)
    const system = { sections, content, tokens: estimateTokens(content) }
    known.set(key, system)
    return system
  }
}

/**
 * Chooses where the history begins, and what the system message leaves out for it. Example dialogue goes first, and does
 * not come back in this branch; only then do the oldest messages go, and a summary tells what they said.
 */
function fitHistory(material: PromptMaterial, lines: Line[], roomWith: (parts: Parts) => number) {
  const at = (id: string | null | undefined) => {
    const index = id ? lines.findIndex(({ message }) => message.id === id) : -1
    return index < 0 ? null : index
  }
  const told = at(material.summary?.message_id)
  const branch = {
    costs: lines.map(({ cost }) => cost),
    isAnswer: lines.map(({ message }) => message.role === 'assistant'),
    isWhole: material.is_whole ?? true,
    previous: at(material.history_from),
    summarised: told === null ? null : told + 1,
  }
  const total = branch.costs.reduce((sum, cost) => sum + cost, 0)
  const plain = { examples: false, summary: false }
  if (branch.isWhole && total <= roomWith(plain)) {
    const rich = { examples: true, summary: false }
    const parts = total <= roomWith(rich) ? rich : plain
    return { ...cutHistory(branch, roomWith(plain)), start: 0, parts }
  }
  const parts = { examples: false, summary: material.summary != null }
  return { ...cutHistory(branch, roomWith(parts)), parts }
}

/** What lore stands in the system message, what moves with the messages, and how much room that may ever take. */
function chooseLore(material: PromptMaterial, lines: Line[], expand: Expand, limit: number) {
  const said = lines.map(({ message }) => message)
  const verdicts = findLore(material.lorebooks ?? [], { said, greeting: greetingOf(material, expand), expand })
  const spent = new Map()
  const found = verdicts.filter(({ isIn }) => isIn)
  const prefix = fitLore(found.filter(isInPrefix), limit, spent)
  const rest = limit - prefix.reduce((sum, { tokens }) => sum + tokens, 0)
  const moving = fitLore(
    found.filter((verdict) => !isInPrefix(verdict)),
    rest,
    spent,
  )
  // Not what was found: else the history would begin elsewhere with each message.
  const sum = (list: Verdict[]) => list.reduce((sum, { tokens }) => sum + tokens, 0)
  const possible = verdicts.filter((verdict) => !isInPrefix(verdict))
  return { verdicts, prefix, moving, reserved: Math.min(rest, Math.max(sum(possible), sum(moving))) }
}

function historyTrace(kept: Line[], said: number, leftOut: number, budget: Budget): Trace['history'] {
  return {
    from: kept[0]?.message.id ?? null,
    to: kept.at(-1)?.message.id ?? null,
    messages: kept.length,
    left_out: leftOut,
    chars: kept.reduce((sum, { content }) => sum + content.length, 0),
    tokens: Math.round(said * budget.factor),
  }
}
