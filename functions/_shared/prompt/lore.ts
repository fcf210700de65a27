import { estimateTokens, messageOverhead } from '../llm/tokens.ts'
import { type Decorators, readDecorators } from './decorators.ts'
import { Effort, Haystack, type Key, type KeyOptions, keyOf } from './lore-match.ts'
import type { Expanded } from './macros.ts'
import type { Lorebook, LoreEntry } from './material.ts'

export type Role = 'system' | 'user' | 'assistant'

export type Place =
  | { at: 'before_char' | 'after_char' | 'personality' | 'scenario' }
  /** So many messages from the newest, or from the oldest, end of the history. */
  | { at: 'depth' | 'start'; depth: number; role: Role }

/** Why an entry is in the prompt. */
export type WhyIn = 'constant' | 'key' | 'recursion'
/** Why it is not. */
export type WhyOut =
  | 'disabled'
  | 'empty'
  | 'switched_off'
  | 'not_yet'
  | 'other_greeting'
  | 'no_key'
  | 'no_secondary_key'
  | 'no_additional_key'
  | 'excluded_key'
  | 'already_used'
  | 'too_much_work'
  | 'book_too_large'
  | 'over_budget'

export interface Verdict {
  book: Lorebook
  entry: LoreEntry
  reason: WhyIn | WhyOut
  isIn: boolean
  /** Which of its keys was found. */
  key?: number
  /** As it stands in the prompt; empty for an entry that is not found. */
  text: string
  /** Of that text, else of the one that it would be made from. */
  tokens: number
  place: Place
  /** True: whatever is said next, it stays. Such entries may stand in the prefix. */
  isStable: boolean
  isFirstToGo: boolean
}

export interface LoreContext {
  /** Contents of the branch, oldest first. */
  said: { role: 'user' | 'assistant'; content: string }[]
  /** Which greeting the conversation began with; null: unknown. */
  greeting: number | null
  expand(text: string): Expanded
}

/** Whether it may stand at the beginning of the prompt: it comes with every answer, at the same place. */
export const isInPrefix = ({ isStable, place }: Verdict) => isStable && !('depth' in place)

const usualScanDepth = 4
const deepestScan = 100
const mostRounds = 5

interface Candidate {
  verdict: Verdict
  decorators: Decorators
  options: KeyOptions
  content: string
  hidden: string
  /** Of an entry without patterns, made when they are first looked for. */
  keys: Key[] | undefined
}

/**
 * Decides for each entry of each book whether it belongs into the prompt, and why. Constant entries always do; others
 * when a key occurs in the last messages, or in the text of an entry that does where a book is recursive. An entry counts
 * once, and rounds are few, so it ends whatever the entries say to each other.
 */
export function findLore(books: Lorebook[], context: LoreContext): Verdict[] {
  const effort = new Effort()
  const branch = windows(context.said, effort)
  const said = context.said.filter(({ role }) => role === 'assistant').length
  const candidates = books.flatMap((book) => book.entries.map((entry) => prepare(book, entry)))

  for (const candidate of candidates) {
    const { verdict, decorators } = candidate
    if (verdict.reason !== 'no_key') continue
    const always = decorators.isActive === true
    if (!always && !isTime(decorators, said)) verdict.reason = 'not_yet'
    else if (!always && isOtherGreeting(decorators, context.greeting)) verdict.reason = 'other_greeting'
    else if (always || (verdict.entry.is_constant && !verdict.entry.uses_regex)) {
      admit(candidate, 'constant', context)
      verdict.isStable = always || (decorators.onlyAfter === undefined && decorators.onlyEvery === undefined)
    } else look(candidate, branch, context)
  }
  recurse(candidates, effort, context)
  return candidates.map(({ verdict }) => {
    // Notes, and words that are only searched, stand in no prompt.
    if (verdict.isIn && !verdict.text.trim()) Object.assign(verdict, { isIn: false, reason: 'empty' })
    return verdict
  })
}

/** Looks for an entry in the messages that its depth covers. */
function look(candidate: Candidate, branch: Windows, context: LoreContext): void {
  const { verdict, decorators } = candidate
  if (decorators.afterMatch === 'once') {
    judge(candidate, branch.before(), 'key', context)
    if (verdict.isIn) Object.assign(verdict, { isIn: false, reason: 'already_used', key: undefined })
    else judge(candidate, branch.since(), 'key', context)
    return
  }
  const depth = Math.min(decorators.scanDepth ?? verdict.book.scan_depth ?? usualScanDepth, deepestScan)
  if (depth > 0) judge(candidate, branch.last(depth), 'key', context)
  if (!verdict.isIn && decorators.afterMatch === 'sticky') judge(candidate, branch.all(), 'key', context)
}

/** Entries of recursive books that the text of others names. */
function recurse(candidates: Candidate[], effort: Effort, context: LoreContext): void {
  const recursive = candidates.filter(({ verdict }) => verdict.book.is_recursive)
  const waiting = new Set(
    recursive.filter(({ verdict, decorators }) => verdict.reason === 'no_key' && decorators.afterMatch !== 'once'),
  )
  let fresh = recursive.filter(({ verdict }) => verdict.isIn)
  for (let round = 0; round < mostRounds && fresh.length > 0 && waiting.size > 0; round += 1) {
    const haystack = new Haystack(fresh.map(({ verdict, hidden }) => `${verdict.text}\n${hidden}`).join('\n'), effort)
    for (const candidate of waiting) judge(candidate, haystack, 'recursion', context)
    fresh = [...waiting].filter(({ verdict }) => verdict.isIn)
    for (const candidate of fresh) waiting.delete(candidate)
  }
}

/** Looks for an entry's keys, and says in its verdict what came of it. */
function judge(candidate: Candidate, haystack: Haystack, reason: WhyIn, context: LoreContext): void {
  const { verdict, decorators, options } = candidate
  const { entry } = verdict
  let isCut = false
  const told = (found: boolean | null) => {
    isCut ||= found === null
    return found === true
  }
  const made = (key: string) => keyOf(context.expand(key).text)
  const plain = (key: string) => told(haystack.hasKey(made(key), options))
  const needsSecond = entry.is_selective && !entry.uses_regex && entry.secondary_keys.length > 0

  if (!entry.uses_regex) candidate.keys ??= entry.keys.map(made)
  const key = candidate.keys
    ? candidate.keys.findIndex((key) => told(haystack.hasKey(key, options)))
    : entry.keys.findIndex((source) => told(haystack.matches(source, options.isCaseSensitive)))
  if (key < 0) verdict.reason = isCut ? 'too_much_work' : 'no_key'
  else if (needsSecond && !entry.secondary_keys.some(plain)) verdict.reason = 'no_secondary_key'
  else if (!decorators.additionalKeys.every((group) => group.some(plain))) verdict.reason = 'no_additional_key'
  else if (decorators.excludeKeys.some(plain)) verdict.reason = 'excluded_key'
  else admit(candidate, reason, context, key)
}

function admit(candidate: Candidate, reason: WhyIn, { expand }: LoreContext, key?: number): void {
  const { text, hidden } = expand(candidate.content)
  candidate.hidden = hidden
  Object.assign(candidate.verdict, { reason, isIn: true, key, text, tokens: costOf(text) })
}

/** As a part of a message, or one of its own. */
const costOf = (text: string) => estimateTokens(text) + 1 + messageOverhead

function prepare(book: Lorebook, entry: LoreEntry): Candidate {
  const read = readDecorators((entry.is_enabled && entry.content) || '')
  const content = read.content.trim()
  const { decorators } = read
  const verdict: Verdict = {
    book,
    entry,
    reason: 'no_key',
    isIn: false,
    text: '',
    tokens: content ? costOf(content) : 0,
    place: placeOf(entry, decorators),
    isStable: false,
    isFirstToGo: decorators.isFirstToGo ?? false,
  }
  if (!entry.is_enabled) verdict.reason = 'disabled'
  else if (entry.content === null) verdict.reason = 'book_too_large'
  else if (!content) verdict.reason = 'empty'
  else if (decorators.isActive === false) verdict.reason = 'switched_off'
  const options = {
    isCaseSensitive: entry.is_case_sensitive,
    matchesWholeWords: entry.matches_whole_words ?? false,
  }
  return { verdict, decorators, options, content, hidden: '', keys: undefined }
}

function placeOf(entry: LoreEntry, { place, depth, reverseDepth, role }: Decorators): Place {
  if (place) return { at: place }
  const as = role ?? entry.role ?? 'system'
  if (depth !== undefined) return { at: 'depth', depth, role: as }
  if (reverseDepth !== undefined) return { at: 'start', depth: reverseDepth, role: as }
  if (entry.placement === 'at_depth') return { at: 'depth', depth: entry.depth ?? usualScanDepth, role: as }
  return { at: entry.placement }
}

function isTime({ onlyAfter, onlyEvery }: Decorators, said: number): boolean {
  return said >= (onlyAfter ?? 0) && said % (onlyEvery ?? 1) === 0
}

function isOtherGreeting({ greeting }: Decorators, actual: number | null): boolean {
  return greeting !== undefined && greeting !== actual
}

/** Parts of the branch to look into, each joined once. */
function windows(said: LoreContext['said'], effort: Effort) {
  const known = new Map<string, Haystack>()
  const part = (from: number, to: number, longest?: number) => {
    const name = `${from} ${to} ${longest}`
    const text = () =>
      said
        .slice(Math.max(0, from), to)
        .map(({ content }) => content)
        .join('\n')
    const haystack = known.get(name) ?? new Haystack(text(), effort, longest)
    known.set(name, haystack)
    return haystack
  }
  const answered = said.findLastIndex(({ role }) => role === 'assistant') + 1
  return {
    last: (count: number) => part(said.length - count, said.length),
    all: () => part(0, said.length, longBranch),
    /** What people have said since the character spoke, and all that came before. */
    since: () => part(answered, said.length),
    before: () => part(0, answered, longBranch),
  }
}

type Windows = ReturnType<typeof windows>

const longBranch = 200_000

/**
 * Chooses what fits: `limit` tokens in all, and in each book what it allows itself. What says so goes first, then what has
 * the lowest priority, what is not constant, the conversation's before the character's, and the lowest insertion order.
 * The others are told that they are over budget. Returns what stays, in the order of insertion.
 */
export function fitLore(found: Verdict[], limit: number, spent: Map<Lorebook, number>): Verdict[] {
  let left = limit
  const kept: Verdict[] = []
  for (const verdict of [...found].sort(byWorth)) {
    const used = spent.get(verdict.book) ?? 0
    if (verdict.tokens > left || used + verdict.tokens > (verdict.book.token_budget ?? Infinity)) {
      Object.assign(verdict, { isIn: false, reason: 'over_budget' })
      continue
    }
    left -= verdict.tokens
    spent.set(verdict.book, used + verdict.tokens)
    kept.push(verdict)
  }
  return kept.sort(byOrder)
}

const bookRank = { character: 0, conversation: 1 }

function byWorth(a: Verdict, b: Verdict): number {
  return (
    Number(a.isFirstToGo) - Number(b.isFirstToGo) ||
    (b.entry.priority ?? 0) - (a.entry.priority ?? 0) ||
    Number(b.reason === 'constant') - Number(a.reason === 'constant') ||
    bookRank[a.book.source] - bookRank[b.book.source] ||
    byOrder(b, a)
  )
}

function byOrder(a: Verdict, b: Verdict): number {
  return (
    a.entry.insertion_order - b.entry.insertion_order ||
    bookRank[a.book.source] - bookRank[b.book.source] ||
    a.entry.position - b.entry.position
  )
}
