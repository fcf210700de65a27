import { z } from 'zod'
import type { Json, JsonObject } from '../../../types/cards.ts'
import { at, CardError, type Place, pointerOf, type Warn } from './error.ts'
import { limits } from './limits.ts'

/**
 * Parses a card's text and refuses what cannot be kept as it is: see `requireKeepable`. Whole numbers that a double has no
 * room for are worth a warning. A byte order mark is ignored.
 */
export function parseJson(bytes: Uint8Array, warn: Warn = () => {}): Json {
  if (bytes.byteLength > limits.json) {
    throw new CardError('card_too_large', `The text of a card holds at most ${limits.json / 1024 / 1024} MB.`)
  }
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new CardError('card_not_utf8', 'The text of the card is not UTF-8.')
  }
  let value: Json
  try {
    value = JSON.parse(text)
  } catch {
    throw new CardError('card_not_json', 'The text of the card is not JSON.')
  }
  requireKeepable(value)
  // Shorter numbers are exact.
  if (/\d{16}/.test(text)) warnOfRounding(text, warn)
  return value
}

type Revive = (this: object, key: string, value: Json, context?: { source?: string }) => Json

/** Reads a text again that is known to be sound and not deep, now with the digits of its numbers. */
function warnOfRounding(text: string, warn: Warn): void {
  const rounded = new Map<object, string[]>()
  const revive: Revive = function (key, value, context) {
    if (typeof value === 'number' && isRounded(context?.source ?? '', value)) {
      const keys = rounded.get(this)
      if (keys) keys.push(key)
      else rounded.set(this, [key])
    }
    return value
  }
  const root: Json = JSON.parse(text, revive)
  const open: { value: Json; place: Place }[] = [{ value: root, place: null }]
  for (let next = open.pop(); next; next = open.pop()) {
    const { value, place } = next
    if (typeof value !== 'object' || value === null) continue
    for (const key of rounded.get(value) ?? []) {
      warn({
        pointer: pointerOf(at(place, key)),
        code: 'number_rounded',
        detail: 'A whole number has more digits than a double keeps: an export has the nearest one.',
      })
    }
    for (const [key, inner] of Object.entries(value)) open.push({ value: inner, place: at(place, key) })
  }
}

/** Whether a whole number, as it is written, has other digits than its double; both without the zeros at the end. */
function isRounded(source: string, value: number): boolean {
  const digits = (text: string) => text.replace(/e.*/, '').replace(/[-.]/g, '').replace(/0+$/, '')
  return /^-?\d{16,}$/.test(source) && digits(source) !== digits(String(value))
}

/**
 * Refuses JSON that Postgres could not give back: too many levels, NUL and halves of surrogate pairs, numbers beyond a
 * double. Without recursion, so that depth costs no stack.
 */
export function requireKeepable(root: Json): void {
  const open: { value: Json; depth: number; place: Place }[] = [{ value: root, depth: 1, place: null }]
  for (let next = open.pop(); next; next = open.pop()) {
    const { value, depth, place } = next
    if (typeof value === 'string') requireStorable(value, place)
    else if (typeof value === 'number' && !Number.isFinite(value)) {
      throw new CardError('card_number_too_large', 'A number is too large.', pointerOf(place))
    } else if (typeof value === 'object' && value !== null) {
      if (depth > limits.depth) {
        throw new CardError('card_too_deep', `A card nests at most ${limits.depth} levels.`, pointerOf(place))
      }
      for (const [key, inner] of Object.entries(value)) {
        const there = at(place, key)
        requireStorable(key, there)
        open.push({ value: inner, depth: depth + 1, place: there })
      }
    }
  }
}

function requireStorable(text: string, place: Place): void {
  if (text.includes('\u0000') || !text.isWellFormed()) {
    throw new CardError('text_not_storable', 'Text may hold no NUL and no half of a surrogate pair.', pointerOf(place))
  }
}

export const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Any JSON object, passed on as it is: zod's own records leave `__proto__` out. */
export const anyObject = z.custom<JsonObject>(isObject)

/** Bytes that Postgres needs for a document as text: spaces after separators, numbers written out. */
export function octets(value: Json): number {
  if (typeof value === 'number') return octetsOfNumber(value)
  if (typeof value !== 'object' || value === null) return utf8(JSON.stringify(value))
  if (Array.isArray(value)) return value.reduce<number>((size, item) => size + octets(item) + 2, 2)
  return Object.entries(value).reduce((size, [key, item]) => size + utf8(JSON.stringify(key)) + octets(item) + 4, 2)
}

const utf8 = (text: string) => new TextEncoder().encode(text).length

/** 1e300 is 301 digits there. */
function octetsOfNumber(value: number): number {
  const [digits, exponent = '0'] = String(value).split('e')
  return digits!.length + Math.abs(Number(exponent))
}

/** Whether two documents say the same; the order of keys says nothing. */
export function same(a: Json | undefined, b: Json | undefined): boolean {
  if (a === b) return true
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false
  if (Array.isArray(a) !== Array.isArray(b)) return false
  const keys = Object.keys(a)
  return (
    keys.length === Object.keys(b).length &&
    keys.every((key) => Object.hasOwn(b, key) && same((a as JsonObject)[key], (b as JsonObject)[key]))
  )
}
