import { RE2JS } from 're2js'
import { foldCase, neededWords } from './lore-words.ts'

export interface KeyOptions {
  isCaseSensitive: boolean
  matchesWholeWords: boolean
}

/**
 * How much looking there may be for one prompt, in characters compared. Counted and not timed, so that the same material
 * always gives the same prompt; hostile lorebooks end here.
 */
export class Effort {
  #left = 60_000_000

  /** False: no more. */
  spend(cost: number): boolean {
    this.#left -= cost
    return this.#left >= 0
  }
}

/** A pattern of more instructions than this is left out: matching takes their number times the length of the text. */
const largestProgram = 500
const longestPattern = 500
/** Counted repeats are written out before the size is known: `a{999}` thirty times takes 70 ms. */
const mostRepeats = 300

/** A key that is looked for as it stands, made once for all texts that are searched for it. */
export interface Key {
  exact: string
  folded: string
  /** Where the first letters stand in the table of a haystack; null: too short to tell. */
  slot: number | null
}

export function keyOf(text: string): Key {
  const exact = text.trim().normalize('NFC')
  const folded = exact.toLowerCase()
  return { exact, folded, slot: folded.length < 3 ? null : slotOf(folded, 0) }
}

/** Of three letters in a row. Others may share it, so it tells that a key is not there, never that it is. */
const slotOf = (text: string, at: number): number =>
  (text.charCodeAt(at) * 0x9e5 + text.charCodeAt(at + 1) * 0x35d + text.charCodeAt(at + 2)) & 0xffff

/** A text that is searched for many keys. */
export class Haystack {
  readonly text: string
  #lower: string | undefined
  #folded: string | undefined
  #slots: Uint8Array | undefined

  constructor(
    text: string,
    private readonly effort: Effort,
    longest = 20_000,
  ) {
    // The newest part: what stands first was said long ago.
    this.text = text.slice(-longest).normalize('NFC')
  }

  /** Whether a key occurs; null: looking for it would have taken too long. */
  hasKey({ exact, folded, slot }: Key, { isCaseSensitive, matchesWholeWords }: KeyOptions): boolean | null {
    if (!exact) return false
    this.#lower ??= this.text.toLowerCase()
    this.#slots ??= slotsOf(this.#lower)
    // Most keys of a large book occur nowhere: their first letters tell without a search.
    if (slot !== null && this.#slots[slot] === 0) return false
    const text = isCaseSensitive ? this.text : this.#lower
    const wanted = isCaseSensitive ? exact : folded
    if (!this.effort.spend(text.length)) return null
    for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + 1)) {
      if (!matchesWholeWords || isWhole(text, at, at + wanted.length)) return true
      if (!this.effort.spend(200)) return null
    }
    return false
  }

  /** Whether a pattern matches, in time linear in the text; null as above. One that is broken matches nothing. */
  matches(source: string, isCaseSensitive: boolean): boolean | null {
    if (!isWithinBounds(source)) return false
    const words = wordsOf(source)
    if (words) {
      // Most patterns of a large book match nothing: the words that they need are not there.
      this.#folded ??= foldCase(this.text)
      const folded = this.#folded
      if (!this.effort.spend(words.length * folded.length)) return null
      if (!words.some((word) => folded.includes(word))) return false
    }
    const repeats = repeatsOf(source)
    // Counted also where the pattern is remembered: what an isolate did before must not change a prompt.
    if (!this.effort.spend(source.length * (source.length + 4 * repeats) * 100)) return null
    const pattern = compilePattern(source, isCaseSensitive)
    if (!pattern) return false
    if (!this.effort.spend(this.text.length * pattern.programSize() * 3)) return null
    return pattern.test(this.text)
  }
}

function slotsOf(lower: string): Uint8Array {
  const slots = new Uint8Array(0x10000)
  for (let at = 0; at + 3 <= lower.length; at += 1) slots[slotOf(lower, at)] = 1
  return slots
}

const wordCharacter = /[\p{L}\p{M}\p{N}_]/u
/** Scripts that put no spaces between words: there every place is a boundary. */
const unspaced =
  /[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{scx=Thai}\p{scx=Lao}\p{scx=Khmer}\p{scx=Myanmar}\p{scx=Tibetan}]/u

/** Whether what stands from `start` to `end` begins and ends with a word, by its own letters and those beside it. */
function isWhole(text: string, start: number, end: number): boolean {
  return isBoundary(before(text, start), after(text, start)) && isBoundary(before(text, end), after(text, end))
}

function isBoundary(left: string, right: string): boolean {
  return !wordCharacter.test(left) || !wordCharacter.test(right) || unspaced.test(left) || unspaced.test(right)
}

const after = (text: string, index: number) =>
  index < text.length ? String.fromCodePoint(text.codePointAt(index)!) : ''

function before(text: string, index: number): string {
  if (index === 0) return ''
  const unit = text.charCodeAt(index - 1)
  return unit >= 0xdc00 && unit <= 0xdfff && index > 1 ? text.slice(index - 2, index) : text[index - 1]!
}

/** The sum of all counts in braces. */
function repeatsOf(source: string): number {
  const repeats = source.match(/\{\d[\d,]*\}/g) ?? []
  return repeats.reduce((sum, repeat) => sum + Math.max(...repeat.slice(1, -1).split(',').map(Number)), 0)
}

const isWithinBounds = (source: string) => source.length <= longestPattern && repeatsOf(source) <= mostRepeats

/** Whether a pattern can match anything here; importers tell people of those that cannot. */
export const isPattern = (source: string): boolean => isWithinBounds(source) && compile(source, false) !== null

const compiled = new Map<string, RE2JS | null>()
const needed = new Map<string, string[] | null>()
const mostRemembered = 500

/** Words without which a pattern matches nothing, remembered. */
const wordsOf = (source: string): string[] | null => remembered(needed, source, () => neededWords(bodyOf(source).body))

function remembered<Value>(memory: Map<string, Value>, key: string, make: () => Value): Value {
  const known = memory.get(key)
  if (known !== undefined) return known
  if (memory.size >= mostRemembered) memory.clear()
  const value = make()
  memory.set(key, value)
  return value
}

/** `/…/flags` as JavaScript writes it, or a bare pattern. */
function bodyOf(source: string): { body: string; letters?: string } {
  const [, body, letters] = /^\/(.+)\/([a-z]*)$/s.exec(source) ?? []
  return body === undefined ? { body: source } : { body, letters }
}

/**
 * A pattern as RE2 understands it, which has no look-around and no backreference, and never backtracks: `…` or
 * `/…/flags`. Null for one that is broken or too large. Kept, since a lorebook's patterns come again with each message.
 */
const compilePattern = (source: string, isCaseSensitive: boolean): RE2JS | null =>
  remembered(compiled, `${isCaseSensitive ? 's' : 'i'}${source}`, () => compile(source, isCaseSensitive))

function compile(source: string, isCaseSensitive: boolean): RE2JS | null {
  const { body, letters } = bodyOf(source)
  let flags = isCaseSensitive && letters === undefined ? 0 : RE2JS.CASE_INSENSITIVE
  if (letters !== undefined) {
    flags = letters.includes('i') ? RE2JS.CASE_INSENSITIVE : 0
    if (letters.includes('m')) flags |= RE2JS.MULTILINE
    if (letters.includes('s')) flags |= RE2JS.DOTALL
  }
  try {
    const pattern = RE2JS.compile(body, flags)
    return pattern.programSize() <= largestProgram ? pattern : null
  } catch {
    return null
  }
}
