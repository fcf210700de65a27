import { z } from 'zod'
import {
  bookEntryV2,
  bookEntryV3,
  bookV2,
  bookV3,
  type CardSpec,
  cardSpec,
  type Json,
  type JsonObject,
} from '../../../types/cards.ts'
import { at, CardError, pointerOf, type Warn } from './error.ts'
import { anyObject, isObject, octets } from './json.ts'
import {
  type Field,
  inExtensions,
  type Level,
  type LevelExtras,
  levelExtras,
  readLevel,
  shapeOf,
  warnOfRepair,
  writeLevel,
} from './level.ts'
import { limits } from './limits.ts'
import { asString, keyList, peopleText, promptText, type Reading, toLine, truth, whole } from './texts.ts'

/** Columns of `lorebooks`. */
export interface BookRow {
  name: string
  description: string
  scan_depth: number | null
  token_budget: number | null
  is_recursive: boolean
}

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

export type StoredEntry = EntryRow & { extras: JsonObject }
export type StoredBook = BookRow & { extras: JsonObject; entries: StoredEntry[] }

/** Whether the engine that matches keys understands a pattern; it is handed in, since a codec matches nothing. */
export type Understands = (pattern: string) => boolean

/** Optional: left out when nothing is said. */
const unless = <T extends Json>(nothing: T, value: T): T | undefined => (value === nothing ? undefined : value)

const bookLevel: Level<BookRow> = {
  shapes: { v2: shapeOf(bookV2), v3: shapeOf(bookV3) },
  defaults: {},
  fields: [
    {
      keys: ['name'],
      read: (values) => ({ name: toLine(asString(values.get('name')), 120) }),
      write: ({ name }) => ({ name: unless('', name) }),
    },
    {
      keys: ['description'],
      read: (values) => ({ description: peopleText(values.get('description'), 4000) }),
      write: ({ description }) => ({ description: unless('', description) }),
    },
    {
      keys: ['scan_depth'],
      read: (values) => ({ scan_depth: whole(values.get('scan_depth'), 0, 1000) }),
      write: ({ scan_depth }) => ({ scan_depth: scan_depth ?? undefined }),
    },
    {
      keys: ['token_budget'],
      read: (values) => ({ token_budget: whole(values.get('token_budget'), 0, 100_000) }),
      write: ({ token_budget }) => ({ token_budget: token_budget ?? undefined }),
    },
    {
      keys: ['recursive_scanning'],
      read: (values) => ({ is_recursive: truth(values.get('recursive_scanning')) }),
      write: ({ is_recursive }) => ({ recursive_scanning: unless(false, is_recursive) }),
    },
  ],
}

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

function entryLevel(understands: Understands): Level<EntryRow> {
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

const bookExtras = levelExtras.and(z.object({ spec: cardSpec.catch('v3') })).catch({ spec: 'v3' })
const fileExtras = z
  .object({ file: z.object({ spec: z.string().optional(), root: anyObject.optional() }).optional() })
  .catch({})

/** Reads a `character_book` or the data of a lorebook file. */
export function readBook(raw: JsonObject, spec: CardSpec, reading: Reading, understands: Understands): StoredBook {
  const { row, extras } = readLevel(bookLevel, raw, spec, reading, ['entries'])
  const place = at(reading.place, 'entries')
  const list = Array.isArray(raw.entries) ? raw.entries : []
  if (list !== raw.entries || !list.every(isObject)) warnOfRepair(reading, 'entries')
  if (list.length > limits.entries) {
    throw new CardError(
      'lore_entries_too_many',
      `A lorebook holds at most ${limits.entries} entries.`,
      pointerOf(place),
    )
  }
  let patterns = 0
  const level = entryLevel((pattern) => {
    patterns += 1
    if (patterns <= limits.patterns) return understands(pattern)
    throw new CardError(
      'lore_patterns_too_many',
      `A lorebook has at most ${limits.patterns} patterns.`,
      pointerOf(place),
    )
  })
  const entries = list.flatMap((entry, index) => {
    if (!isObject(entry)) return []
    const here = { ...reading, place: at(place, index) }
    const read = readLevel(level, entry, spec, here)
    return [{ ...read.row, extras: pack(spec, read.extras, here) }]
  })
  return { ...row, extras: pack(spec, extras, reading), entries }
}

function pack(spec: CardSpec, extras: LevelExtras | JsonObject, { place }: Reading): JsonObject {
  const packed = { spec, ...extras } as JsonObject
  if (octets(packed) > limits.bookExtras) {
    throw new CardError('lore_extras_too_large', 'Extensions and unknown keys hold at most 64 KB.', pointerOf(place))
  }
  return packed
}

export function writeBook({ entries, extras, ...row }: StoredBook, to: CardSpec, understands: Understands): JsonObject {
  const own = bookExtras.parse(extras)
  const level = entryLevel(understands)
  return {
    ...writeLevel(bookLevel, row, own, { from: own.spec, to }),
    entries: entries.map((entry) => {
      const { spec, ...kept } = bookExtras.parse(entry.extras)
      const written = writeLevel(level, entry, kept as LevelExtras, { from: spec, to })
      if (to === 'v2' && spec === 'v3' && typeof written.content === 'string') {
        written.content = withoutDecorators(written.content)
      }
      return written
    }),
  }
}

/** V2 knows no decorator lines; V3 wants them removed from a copy for V2. */
const withoutDecorators = (content: string) => content.replace(/^(?:@@[^\n]*(?:\n|$))+/, '')

/** Reads a lorebook that is a file of its own. */
export function readBookFile(json: Json, warn: Warn, understands: Understands): StoredBook {
  const number = isObject(json) ? /^lorebook_v(\d{1,4})$/.exec(asString(json.spec))?.[1] : undefined
  if (!isObject(json) || !isObject(json.data) || number === undefined || Number(number) < 3) {
    throw new CardError('lorebook_not_recognised', 'A lorebook is an object of `spec`, lorebook_v3, and `data`.')
  }
  if (number !== '3') {
    warn({ pointer: '#/spec', code: 'card_version_newer', detail: 'The lorebook follows a newer specification.' })
  }
  const { spec, data, ...root } = json
  const book = readBook(data as JsonObject, 'v3', { warn, place: at(null, 'data') }, understands)
  const file = { ...(number !== '3' && { spec }), ...(Object.keys(root).length > 0 && { root }) } as JsonObject
  if (Object.keys(file).length > 0) book.extras = pack('v3', { ...book.extras, file }, { warn, place: null })
  return book
}

export function writeBookFile(book: StoredBook, understands: Understands): JsonObject {
  const { file } = fileExtras.parse(book.extras)
  return { ...file?.root, spec: file?.spec ?? 'lorebook_v3', data: writeBook(book, 'v3', understands) }
}
