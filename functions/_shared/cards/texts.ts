import type { Json } from '../../../types/cards.ts'
import { CardError, type Place, pointerOf, type Warn } from './error.ts'

// What columns take; the rules are private.is_line and private.is_text in sql/00_foundation/30_shapes.sql.

const spaces = '\u0020\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000'
const joiners = '\u200c\u200d\ufe00-\ufe0f'
const lineControls = new RegExp(
  `[${[
    '\\u0001-\\u001f\\u007f-\\u009f\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180e\\u200b\\u200e\\u200f',
    '\\u2028-\\u202e\\u2060-\\u206f\\u2800\\u3164\\ufeff\\uffa0\\ufff9-\\ufffb',
  ].join('')}]`,
  'g',
)
// All of category Cc but tab, line ends and the C1 range.
const textControls = /[^\P{Cc}\t\n\r\u0080-\u009f]/gu
const around = new RegExp(`^[${spaces}]+|[${spaces}]+$`, 'gu')
const blankLine = new RegExp(`^[${spaces}${joiners}]*$`, 'u')

/** Postgres counts characters, JavaScript UTF-16 units. */
const isLonger = (text: string, characters: number) => text.length > characters && [...text].length > characters

/** One visible line of at most `max` characters, or nothing. */
export function toLine(text: string, max: number): string {
  // Cut first: trimming looks at each run of spaces from each of its places.
  const line = text
    .slice(0, 4096)
    .toWellFormed()
    .replace(/[\t\n\v\f\r\u0085\u2028\u2029]+/g, ' ')
    .replace(lineControls, '')
    .replace(around, '')
  if (blankLine.test(line)) return ''
  return isLonger(line, max) ? [...line].slice(0, max).join('').replace(around, '') : line
}

/** Text of several lines without control characters. */
const toText = (text: string) => text.replace(textControls, '')

/** True where Postgres too sees something. */
const isVisible = (text: string) => /[^\s\u0085\u180e\u200b]/.test(text)

export interface Reading {
  warn: Warn
  /** Where in the card the object stands that is being read. */
  place: Place
}

/** What stands for text: numbers as they are written, anything else is nothing. */
export const asString = (raw: Json | undefined): string =>
  typeof raw === 'string' ? raw : typeof raw === 'number' ? String(raw) : ''

/** Text that a prompt uses: too long is refused, since cutting it would change the character. */
export function promptText(raw: Json | undefined, max: number, place: Place): string {
  const text = toText(asString(raw))
  if (isLonger(text, max)) {
    throw new CardError('card_text_too_long', `This text holds at most ${max} characters.`, pointerOf(place))
  }
  return text
}

/** Text for people: what is too long is cut, and comes back whole on export. */
export function peopleText(raw: Json | undefined, max: number): string {
  const text = toText(asString(raw))
  return isLonger(text, max) ? [...text].slice(0, max).join('') : text
}

/** Strings of a list; one string is a list of one, anything else is none. */
export const asStrings = (raw: Json | undefined): string[] =>
  (Array.isArray(raw) ? raw : raw === undefined ? [] : [raw]).map(asString).filter((text) => text !== '')

/** Greetings: those that show something. */
export function greetings(raw: Json | undefined, place: Place): string[] {
  const texts = asStrings(raw)
    .map((text) => promptText(text, 8000, place))
    .filter(isVisible)
  if (texts.length > 32)
    throw new CardError('card_list_too_long', 'A card holds at most 32 greetings.', pointerOf(place))
  return texts
}

/** Tags as they stand; a comma list is a list. */
export const tagList = (raw: Json | undefined): string[] => (typeof raw === 'string' ? raw.split(',') : asStrings(raw))

/** At most 16 distinct lower-case tags of at most 32 characters. */
export function tags(raw: Json | undefined): string[] {
  const all = tagList(raw).slice(0, 1000)
  return [...new Set(all.map((tag) => toLine(toLine(tag, 32).toLowerCase(), 32)).filter(Boolean))].slice(0, 16)
}

/** Keys of lore; a comma list is a list. Those that show nothing could only match everything. */
export function keyList(raw: Json | undefined, { keys, key }: { keys: number; key: number }, place: Place): string[] {
  const all = (typeof raw === 'string' ? raw.split(',').map((part) => part.trim()) : asStrings(raw))
    .map(toText)
    .filter(isVisible)
  if (all.length > keys)
    throw new CardError('lore_keys_too_many', `An entry has at most ${keys} keys.`, pointerOf(place))
  if (all.some((text) => isLonger(text, key))) {
    throw new CardError('lore_key_too_long', `A key holds at most ${key} characters.`, pointerOf(place))
  }
  return all
}

/** A whole number in a range, also from text; null for anything else. */
export function whole(raw: Json | undefined, min: number, max: number): number | null {
  const number = typeof raw === 'string' && raw.trim() !== '' ? Number(raw) : raw
  if (typeof number !== 'number' || !Number.isFinite(number)) return null
  return Math.min(Math.max(Math.round(number), min), max)
}

/** Also from text and numbers, as some editors write it. */
export const truth = (raw: Json | undefined): boolean => raw === true || raw === 1 || raw === 'true'
