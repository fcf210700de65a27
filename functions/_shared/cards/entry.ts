import { bookEntryV2, bookEntryV3, type Json } from '../../../types/cards.ts'
import { at, pointerOf } from './error.ts'
import { type Field, inExtensions, type Level, shapeOf } from './level.ts'
import { limits } from './limits.ts'
import { asString, keyList, peopleText, promptText, type Reading, toLine, truth, whole } from './texts.ts'

/** Columns of `lore_entries`. */
export interface EntryRow {
  name: string
  comment: string
  keys: string[]
  secondary_keys: string[]
  is_selective: boolean
  is_constant: boolean
  is_enabled: boolean
  is_case_sensitive: boolean
  matches_whole_words: boolean | null
  uses_regex: boolean
  insertion_order: number
  priority: number | null
  placement: 'before_char' | 'after_char' | 'at_depth'
  depth: number | null
  role: 'system' | 'user' | 'assistant' | null
  content: string
}

/** Whether the engine that matches keys understands a pattern; it is handed in, since a codec matches nothing. */
export type Understands = (pattern: string) => boolean

/** Optional: left out when nothing is said. */
export const unless = <T extends Json>(nothing: T, value: T): T | undefined => (value === nothing ? undefined : value)

const maxInteger = 2 ** 31 - 1
const ext = {
  logic: inExtensions('selectiveLogic'),
  position: inExtensions('position'),
  depth: inExtensions('depth'),
  role: inExtensions('role'),
  wholeWords: inExtensions('match_whole_words'),
  caseSensitive: inExtensions('case_sensitive'),
}
const roles = ['system', 'user', 'assistant'] as const

/** A pattern as the V3 specification writes one: `/hello/i`. */
const delimited = /^\/.*\/[a-z]*$/s
const literally = (key: string) => `/${key.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')}/i`

/**
 * Keys, patterns and what follows from them. V3 ignores `secondary_keys` and `constant` where keys are patterns, but
 * SillyTavern marks every entry so: of its entries, told by `selectiveLogic`, only keys between slashes are patterns.
 */
function matching(understands: Understands): Field<EntryRow> {
  return {
    keys: ['keys', 'secondary_keys', 'use_regex', 'constant', ext.logic],
    read(values, reading) {
      const list = (key: string) => keyList(values.get(key), limits, at(reading.place, key))
      const saysRegex = truth(values.get('use_regex'))
      const lenient = values.has(ext.logic)
      const keys = list('keys')
      const secondary = list('secondary_keys')
      const constant = truth(values.get('constant'))
      const hasPattern = !constant && [...keys, ...secondary].some((key) => delimited.test(key))
      const uses_regex = saysRegex && (!lenient || hasPattern)
      const patterns = (all: string[], key: string) =>
        all
          .map((pattern) => (lenient && !delimited.test(pattern) ? literally(pattern) : pattern))
          .filter((pattern) => understands(pattern) || warnOfPattern(reading, key))
      return {
        keys: uses_regex ? patterns(keys, 'keys') : keys,
        secondary_keys: uses_regex ? (lenient ? patterns(secondary, 'secondary_keys') : []) : secondary,
        uses_regex,
        is_constant: constant && !uses_regex,
      }
    },
    write: ({ keys, secondary_keys, uses_regex, is_constant }) => ({
      keys,
      secondary_keys: secondary_keys.length > 0 ? secondary_keys : undefined,
      use_regex: unless(false, uses_regex && !is_constant),
      constant: unless(false, is_constant),
    }),
  }
}

function warnOfPattern({ warn, place }: Reading, key: string): false {
  warn({
    pointer: pointerOf(at(place, key)),
    code: 'lore_pattern_not_understood',
    detail: 'A pattern is not one that can be matched here; it never matches, and comes back on export.',
  })
  return false
}

/** Where an entry goes; SillyTavern writes a place among the messages into its own extension. */
const placing: Field<EntryRow> = {
  keys: ['position', ext.position, ext.depth, ext.role],
  read(values) {
    if (whole(values.get(ext.position), 0, 99) === 4) {
      const role = roles[whole(values.get(ext.role), 0, 2) ?? 0]!
      return { placement: 'at_depth', depth: whole(values.get(ext.depth), 0, 1000) ?? 4, role }
    }
    const placement = values.get('position') === 'after_char' ? 'after_char' : 'before_char'
    return { placement, depth: null, role: null }
  },
  write({ placement, depth, role }) {
    if (placement !== 'at_depth') return { position: placement }
    return {
      position: 'after_char',
      [ext.position]: 4,
      [ext.depth]: depth ?? 4,
      [ext.role]: roles.indexOf(role ?? 'system'),
    }
  },
}

export function entryLevel(understands: Understands): Level<EntryRow> {
  return {
    shapes: { v2: shapeOf(bookEntryV2), v3: shapeOf(bookEntryV3) },
    defaults: { use_regex: false },
    fields: [
      matching(understands),
      placing,
      {
        keys: ['name'],
        read: (values) => ({ name: toLine(asString(values.get('name')), 200) }),
        write: ({ name }) => ({ name: unless('', name) }),
      },
      {
        keys: ['comment'],
        read: (values) => ({ comment: peopleText(values.get('comment'), 4000) }),
        write: ({ comment }) => ({ comment: unless('', comment) }),
      },
      {
        keys: ['content'],
        read: (values, { place }) => ({
          content: promptText(values.get('content'), limits.entryContent, at(place, 'content')),
        }),
        write: ({ content }) => ({ content }),
      },
      {
        keys: ['selective'],
        read: (values) => ({ is_selective: truth(values.get('selective')) }),
        write: ({ is_selective }) => ({ selective: unless(false, is_selective) }),
      },
      {
        keys: ['enabled'],
        // Required; where an editor left it out, the entry was meant to work.
        read: (values) => ({ is_enabled: values.has('enabled') ? truth(values.get('enabled')) : true }),
        write: ({ is_enabled }) => ({ enabled: is_enabled }),
      },
      {
        keys: ['case_sensitive', ext.caseSensitive],
        read: (values) => ({
          is_case_sensitive: truth(values.get('case_sensitive') ?? values.get(ext.caseSensitive)),
        }),
        write: ({ is_case_sensitive }) => ({ case_sensitive: unless(false, is_case_sensitive) }),
      },
      {
        keys: [ext.wholeWords],
        read(values) {
          const raw = values.get(ext.wholeWords)
          return { matches_whole_words: typeof raw === 'boolean' ? raw : null }
        },
        write: ({ matches_whole_words }) => ({ [ext.wholeWords]: matches_whole_words ?? undefined }),
      },
      {
        keys: ['insertion_order'],
        read: (values) => ({ insertion_order: whole(values.get('insertion_order'), -maxInteger, maxInteger) ?? 100 }),
        write: ({ insertion_order }) => ({ insertion_order }),
      },
      {
        keys: ['priority'],
        read: (values) => ({ priority: whole(values.get('priority'), -maxInteger, maxInteger) }),
        write: ({ priority }) => ({ priority: priority ?? undefined }),
      },
      { keys: ['id'], read: () => ({}), write: () => ({}) },
    ],
  }
}
