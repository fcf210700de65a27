import { z } from 'zod'
import { type CardSpec, cardSpec, cardV1, type CardWarning, type Json, type JsonObject } from '../../../types/cards.ts'
import { readBook, type StoredBook, writeBook } from './book.ts'
import type { Understands } from './entry.ts'
import { at, CardError, type Warn } from './error.ts'
import {
  type CardCharacter,
  type CardDefinition,
  cardLevel,
  type CardRow,
  characterColumns,
  definitionColumns,
  pick,
} from './fields.ts'
import { anyObject, isObject, octets, same } from './json.ts'
import { levelExtras, readLevel, warnOfChange, writeLevel } from './level.ts'
import { limits } from './limits.ts'
import { asString, tagList } from './texts.ts'

/** A card as the database holds it: columns, and beside them what no column holds. */
export interface StoredCard {
  character: CardCharacter
  definition: CardDefinition & { card_extras: JsonObject }
  lorebook: StoredBook | null
}

export interface ReadCard extends StoredCard {
  spec: CardSpec
  /** All tags as they stand; a character has room for fewer. */
  tags: string[]
  warnings: CardWarning[]
}

const specNames: Record<CardSpec, string | null> = { v1: null, v2: 'chara_card_v2', v3: 'chara_card_v3' }
const specVersions: Record<CardSpec, string | null> = { v1: null, v2: '2.0', v3: '3.0' }

/** Reads a card of any version into its stored form. `json` was parsed by `parseJson`. */
export function readCard(json: Json, understands: Understands): ReadCard {
  if (!isObject(json)) throw notACard('A card is a JSON object.')
  const warnings: CardWarning[] = []
  const warn: Warn = (warning) => {
    if (warnings.length < limits.warnings) warnings.push(warning)
  }
  const spec = detect(json, warn)
  const card = spec === 'v1' ? readRoot(json, warn) : readData(json, spec, warn, understands)
  const tags = tagList(spec === 'v1' ? json.tags : (json.data as JsonObject).tags)
  return { ...card, spec, tags, warnings }
}

function detect(json: JsonObject, warn: Warn): CardSpec {
  const { spec } = json
  if (spec === undefined) {
    if (typeof json.name === 'string' || typeof json.first_mes === 'string') return 'v1'
    throw notACard('There is neither a `spec` nor the fields of a V1 card.')
  }
  if (spec === 'lorebook_v3') throw notACard('This is a lorebook, not a card.')
  const number = typeof spec === 'string' ? /^chara_card_v(\d{1,4})$/.exec(spec)?.[1] : undefined
  if (number === undefined || Number(number) < 2) throw notACard('`spec` names no version of character cards.')
  if (!isObject(json.data)) throw notACard('`data` is not an object.')
  const known = Number(number) === 2 ? 'v2' : 'v3'
  const version = Number.parseFloat(asString(json.spec_version))
  if (Number(number) > 3 || version > Number(specVersions[known])) {
    warn({
      pointer: '#/spec_version',
      code: 'card_version_newer',
      detail: 'The card follows a newer specification than this importer; what it does not know is kept.',
    })
  }
  return known
}

const notACard = (detail: string) => new CardError('card_not_recognised', detail)

const split = (row: CardRow): { character: CardCharacter; definition: CardDefinition } => ({
  character: pick(row, characterColumns),
  definition: pick(row, definitionColumns),
})

/** V1: the six fields stand at the root, and everything else there is unknown. */
function readRoot(json: JsonObject, warn: Warn): StoredCard {
  const entries = Object.entries(json)
  const known = Object.fromEntries(entries.filter(([key]) => Object.hasOwn(cardV1.shape, key)))
  const root = Object.fromEntries(entries.filter(([key]) => !Object.hasOwn(cardV1.shape, key)))
  const { row, extras } = readLevel(cardLevel, known, 'v1', { warn, place: null })
  const { character, definition } = split(row)
  const card_extras = pack({ spec: 'v1', root, data: extras }, warn)
  return { character, definition: { ...definition, card_extras }, lorebook: null }
}

/** V2 and V3: everything stands under `data`; what editors repeat at the root follows it. */
function readData(json: JsonObject, spec: CardSpec, warn: Warn, understands: Understands): StoredCard {
  const { spec: name, spec_version, data: raw, ...rest } = json
  const data = raw as JsonObject
  const place = at(null, 'data')
  const { row, extras } = readLevel(cardLevel, data, spec, { warn, place }, ['character_book'])
  const book = data.character_book
  const reading = { warn, place: at(place, 'character_book') }
  const lorebook = isObject(book) ? readBook(book, spec, reading, understands) : null
  if (!lorebook && book !== undefined && book !== null) warnOfChange({ warn, place }, 'character_book', book, undefined)

  const isMirror = (key: string, value: Json) => Object.hasOwn(data, key) && same(data[key], value)
  const root = Object.fromEntries(Object.entries(rest).filter(([key, value]) => !isMirror(key, value)))
  const mirrored = Object.entries(rest).flatMap(([key, value]) => (isMirror(key, value) ? [key] : []))
  const { character, definition } = split(row)
  const named = name !== specNames[spec] && { spec_name: name as string }
  const versioned = typeof spec_version === 'string' && spec_version !== specVersions[spec] && { spec_version }
  const card_extras = pack({ spec, ...named, ...versioned, root, mirrored, data: extras }, warn)
  return { character, definition: { ...definition, card_extras }, lorebook }
}

/** What `card_extras` holds. People may write to the column: nonsense is nothing. */
const cardExtras = z
  .object({
    spec: cardSpec.catch('v3'),
    spec_name: z.string().optional().catch(undefined),
    spec_version: z.string().optional().catch(undefined),
    /** Unknown keys at the root. */
    root: anyObject.catch({}).default({}),
    /** Keys at the root that repeat those of `data`. */
    mirrored: z.array(z.string()).catch([]).default([]),
    data: levelExtras.default({}),
  })
  .catch({ spec: 'v3', root: {}, mirrored: [], data: {} })

/** Leaves out what is empty, and embedded assets where there is no room for them. */
function pack({ root, mirrored = [], data, ...rest }: z.input<typeof cardExtras>, warn: Warn): JsonObject {
  const extras = {
    ...rest,
    ...(isObject(root) && Object.keys(root).length > 0 && { root }),
    ...(mirrored.length > 0 && { mirrored }),
    ...(isObject(data) && Object.keys(data).length > 0 && { data }),
  } as JsonObject
  if (octets(extras) <= limits.cardExtras) return extras
  const { assets, ...kept } = (data?.kept ?? {}) as JsonObject
  if (!Array.isArray(assets)) throw tooMuchExtra('#')
  const linked = assets.filter((asset) => isObject(asset) && !/^data:/i.test(asString(asset.uri)))
  if (linked.length === assets.length) throw tooMuchExtra('#/data/assets')
  warn({
    pointer: '#/data/assets',
    code: 'asset_not_kept',
    detail: 'Assets inside the card are too large to be kept; an export does not have them.',
  })
  return pack({ ...rest, root, mirrored, data: { ...data, kept: { ...kept, assets: linked } } }, warn)
}

const tooMuchExtra = (pointer: string) =>
  new CardError('card_extras_too_large', 'Extensions and unknown keys hold at most 256 KB in all.', pointer)

export interface WriteOptions {
  /** What V3 states, in Unix seconds: when a character was made that came of no card, */
  createdAt?: number | null
  /** and when it was changed last, since it was made or came in. */
  modifiedAt?: number | null
  understands: Understands
}

/** Writes a stored card in a version; in the one it came in, an untouched card is what it was. */
export function writeCard(
  { character, definition, lorebook }: StoredCard,
  to: CardSpec,
  { createdAt = null, modifiedAt = null, understands }: WriteOptions,
): JsonObject {
  const { card_extras, ...columns } = definition
  const extras = cardExtras.parse(card_extras)
  const data = writeLevel(cardLevel, { ...character, ...columns }, extras.data, { from: extras.spec, to })
  if (to === 'v1') return { ...(extras.spec === 'v1' && extras.root), ...data }
  if (to === 'v3' && createdAt !== null) data.creation_date ??= createdAt
  if (to === 'v3' && modifiedAt !== null) data.modification_date = modifiedAt
  if (lorebook) data.character_book = writeBook(lorebook, to, understands)
  const isSource = extras.spec === to
  return {
    ...extras.root,
    ...Object.fromEntries(extras.mirrored.filter((key) => Object.hasOwn(data, key)).map((key) => [key, data[key]!])),
    spec: (isSource ? extras.spec_name : undefined) ?? specNames[to],
    spec_version: (isSource ? extras.spec_version : undefined) ?? specVersions[to],
    data,
  }
}
