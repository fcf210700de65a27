import { z } from 'zod'
import { bookV2, bookV3, type CardSpec, cardSpec, type Json, type JsonObject } from '../../../types/cards.ts'
import { type EntryRow, entryLevel, type Understands, unless } from './entry.ts'
import { at, CardError, pointerOf, type Warn } from './error.ts'
import { anyObject, isObject, octets } from './json.ts'
import { type Level, type LevelExtras, levelExtras, readLevel, shapeOf, warnOfChange, writeLevel } from './level.ts'
import { limits } from './limits.ts'
import { asString, peopleText, type Reading, toLine, truth, whole } from './texts.ts'

/** Columns of `lorebooks`. */
export interface BookRow {
  name: string
  description: string
  scan_depth: number | null
  token_budget: number | null
  is_recursive: boolean
}

export type StoredEntry = EntryRow & { extras: JsonObject }
export type StoredBook = BookRow & { extras: JsonObject; entries: StoredEntry[] }

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

const bookExtras = levelExtras.and(z.object({ spec: cardSpec.catch('v3') })).catch({ spec: 'v3' })
const fileExtras = z
  .object({ file: z.object({ spec: z.string().optional(), root: anyObject.optional() }).optional() })
  .catch({})

/** Reads a `character_book` or the data of a lorebook file. */
export function readBook(raw: JsonObject, spec: CardSpec, reading: Reading, understands: Understands): StoredBook {
  const { row, extras } = readLevel(bookLevel, raw, spec, reading, ['entries'])
  const place = at(reading.place, 'entries')
  // Lore files of some editors have an object here, from numbers to entries.
  const list = typeof raw.entries === 'object' ? Object.entries(raw.entries ?? {}) : []
  if (list.length > limits.entries) {
    throw new CardError(
      'lore_entries_too_many',
      `A lorebook holds at most ${limits.entries} entries.`,
      pointerOf(place),
    )
  }
  if (!Array.isArray(raw.entries)) warnOfChange(reading, 'entries', list.length > 0 ? null : raw.entries, [])
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
  const entries = list.flatMap(([index, entry]) => {
    const here = { ...reading, place: at(place, index) }
    if (!isObject(entry)) {
      warnOfChange({ ...reading, place }, index, entry, undefined)
      return []
    }
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
