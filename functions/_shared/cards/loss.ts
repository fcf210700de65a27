import type { Json } from '../../../types/cards.ts'
import { truth } from './texts.ts'

/**
 * Whether what is written in place of a value lacks something that the value said. A comma list as a list, a number as text
 * or a tag in lower case say the same; an object where text belongs is gone.
 */
export function isLost(value: Json | undefined, written: Json | undefined): boolean {
  if (written === true) return !truth(value)
  if (written === undefined || written === false)
    return !isNothing(value) && value !== 0 && !['0', 'false'].includes(word(value))
  const words = new Set((Array.isArray(written) ? written : [written]).map(word))
  const isThere = (part: Json | undefined) => isNothing(part) || (word(part) !== '' && words.has(word(part)))
  if (Array.isArray(value)) return !value.every(isThere)
  if (isThere(value)) return false
  return !(Array.isArray(written) && typeof value === 'string' && value.split(',').every(isThere))
}

/** What may stand for an absent value. */
function isNothing(value: Json | undefined): boolean {
  if (value === undefined || value === null || value === false) return true
  if (typeof value === 'object')
    return Object.keys(value).length === 0 || (Array.isArray(value) && value.every(isNothing))
  return typeof value === 'string' && value.trim() === ''
}

/** Text and numbers in one form; nothing else has one. */
function word(value: Json | undefined): string {
  if (typeof value === 'number') return String(value)
  if (typeof value !== 'string') return ''
  const text = value.trim().toLowerCase()
  return text !== '' && Number.isFinite(Number(text)) ? String(Number(text)) : text
}
