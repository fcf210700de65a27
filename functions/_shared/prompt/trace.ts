import type { Budget } from './budget.ts'
import type { Verdict } from './lore.ts'
import type { Section } from './system.ts'

/** One part of a prompt, as it is kept: without its text, which stands where it came from. */
export interface TraceSection {
  name: string
  source: Section['source']
  outcome: Section['outcome']
  reason?: string
  chars: number
  tokens: number
  /** Lore: the book, the entry and how it was found. */
  book?: 'character' | 'conversation'
  entry_id?: string
  place?: string
  /** Which of the entry's keys was found, from 0. */
  key?: number
}

/** Why an answer was given as it was: everything that was in its prompt, and what was not. */
export interface Trace {
  budget: { window: number; answer: number; prompt: number; factor: number }
  /** Tokens of the whole prompt, by the corrected estimate. */
  tokens: number
  character_version: number | null
  sections: TraceSection[]
  history: {
    from: string | null
    to: string | null
    messages: number
    left_out: number
    chars: number
    tokens: number
  }
  summary: { message_id: string; is_used: boolean } | null
  /** Lore that is not in the prompt, by reason: positions of entries in their book. */
  left_out_lore: Partial<Record<'character' | 'conversation', Record<string, number[]>>>
}

/** Entries of lore that are told one by one; what else a prompt is made of are few parts. */
const mostLore = 150

export function traceSections(sections: Section[], budget: Budget): TraceSection[] {
  let lore = 0
  const told = sections.filter(({ verdict }) => {
    if (verdict) lore += 1
    return !verdict || lore <= mostLore
  })
  return told.map((section) => traceSection(section, budget))
}

function traceSection({ name, source, outcome, reason, text, tokens, verdict }: Section, budget: Budget): TraceSection {
  return {
    name,
    source,
    outcome,
    ...(reason && { reason }),
    chars: outcome === 'left_out' ? 0 : text.length,
    tokens: Math.round(tokens * budget.factor),
    ...(verdict && {
      reason: verdict.reason,
      book: verdict.book.source,
      entry_id: verdict.entry.id,
      place: placeName(verdict),
      ...(verdict.key !== undefined && { key: verdict.key }),
    }),
  }
}

function placeName({ place }: Verdict): string {
  return 'depth' in place ? `${place.at} ${place.depth} ${place.role}` : place.at
}

/** The entries that are not in the prompt; there may be thousands, so each is a number. */
export function leftOutLore(verdicts: Verdict[]): Trace['left_out_lore'] {
  const left: Trace['left_out_lore'] = {}
  for (const { book, entry, reason, isIn } of verdicts) {
    if (isIn) continue
    left[book.source] ??= {}
    const reasons = left[book.source]!
    reasons[reason] ??= []
    reasons[reason].push(entry.position)
  }
  return left
}
