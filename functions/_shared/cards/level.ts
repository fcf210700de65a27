import { z } from 'zod'
import type { CardSpec, Json, JsonObject } from '../../../types/cards.ts'
import { at, CardError, type Place, pointerOf } from './error.ts'
import { anyObject, isObject, same } from './json.ts'
import { isLost } from './loss.ts'
import type { Reading } from './texts.ts'

/**
 * A card has three levels that hold fields, unknown keys and `extensions`: the card's data, its book, and each entry. On
 * every level the same rule makes round trips lossless: columns hold what the product understands; beside them is kept
 * whatever the columns alone would not give back, and on export it is put back where it still says what the columns say.
 * So an untouched card comes back as it came, and an edited column wins.
 */

/** Values of one level; a key inside `extensions` is written with `inExtensions`. */
export type Values = Map<string, Json>

// NUL is in no key that can be stored.
const prefix = 'extensions\u0000'
export const inExtensions = (key: string): string => prefix + key

/** Keys of a card that say the same thing as some columns. */
export interface Field<Row> {
  keys: string[]
  /** Columns for whatever stands in a card, also nothing and nonsense. */
  read(values: Values, reading: Reading): Partial<Row>
  /** What the columns alone give; undefined where an optional key is left out. */
  write(row: Row): Record<string, Json | undefined>
}

/** The fields of a specification. A map: in an object, `constructor` would be known. */
export type Shape = Map<string, z.ZodType>
export const shapeOf = (schema: z.ZodObject): Shape =>
  new Map(Object.entries(schema.shape as Record<string, z.ZodType>))
const noShape: Shape = new Map()

export interface Level<Row> {
  fields: Field<Row>[]
  /** What a specification knows on this level. */
  shapes: Partial<Record<CardSpec, Shape>>
  /** Values for required keys that no column gives. */
  defaults: Record<string, Json>
}

/** What stands beside the columns; only what there is. People may write to the column it lies in: nonsense is nothing. */
export const levelExtras = z
  .object({
    kept: anyObject.optional().catch(undefined),
    /** Optional keys that the card left out, where the columns would write them. */
    omitted: z.array(z.string()).optional().catch(undefined),
  })
  .catch({})
export type LevelExtras = z.infer<typeof levelExtras>

const required = new WeakMap<z.ZodType, boolean>()

function isRequired(shape: z.ZodType | undefined): boolean {
  if (!shape) return false
  const known = required.get(shape) ?? !shape.safeParse(undefined).success
  required.set(shape, known)
  return known
}

/**
 * Whether a specification allows this value; it allows anything under keys that it does not know. Nothing that we could
 * keep has so many parts, and a schema would describe what is wrong with each of them.
 */
const isLegal = (shape: z.ZodType | undefined, value: Json) =>
  shape === undefined ||
  ((typeof value !== 'object' || value === null || Object.keys(value).length <= 50_000) &&
    shape.safeParse(value).success)

function flatten(object: JsonObject): Values {
  const { extensions, ...rest } = object
  const values: Values = new Map(Object.entries(rest))
  if (isObject(extensions)) for (const [key, value] of Object.entries(extensions)) values.set(inExtensions(key), value)
  return values
}

function unflatten(values: Values, withExtensions: boolean): JsonObject {
  const own: [string, Json][] = []
  const extensions: [string, Json][] = []
  for (const [key, value] of values) {
    if (key.startsWith(prefix)) extensions.push([key.slice(prefix.length), value])
    else own.push([key, value])
  }
  if (withExtensions || extensions.length > 0) own.push(['extensions', Object.fromEntries(extensions)])
  // Not by assignment: `__proto__` is a key like any other.
  return Object.fromEntries(own)
}

/** Reads one level. Keys in `apart` are read elsewhere; `spec` is the specification that the object follows. */
export function readLevel<Row>(
  level: Level<Row>,
  object: JsonObject,
  spec: CardSpec,
  reading: Reading,
  apart: string[] = [],
): { row: Row; extras: LevelExtras } {
  const shape = level.shapes[spec] ?? noShape
  const values = flatten(object)
  for (const key of apart) values.delete(key)

  const row = Object.assign({}, ...level.fields.map((field) => field.read(values, reading))) as Row
  const plain = emit(level, row, { from: spec, to: spec, kept: new Map(), omitted: [] })
  const kept: Values = new Map()
  for (const [key, value] of values) {
    if (same(plain.get(key), value)) continue
    if (isLegal(shape.get(key), value)) kept.set(key, value)
    else if (value !== null) warnOfChange(reading, key, value, plain.get(key))
  }
  const { extensions } = object
  if (extensions !== undefined && extensions !== null && !isObject(extensions)) {
    warnOfChange(reading, 'extensions', extensions, undefined)
  }
  const omitted = [...plain.keys()].filter((key) => !values.has(key) && !isRequired(shape.get(key)))
  return {
    row,
    extras: {
      ...(kept.size > 0 && { kept: unflatten(kept, false) }),
      ...(omitted.length > 0 && { omitted: omitted.map((key) => key.replace(prefix, 'extensions/')) }),
    },
  }
}

/** Says that a value which could not stay was written in another form, or, where that says less, that it is lost. */
export function warnOfChange(
  { warn, place }: Reading,
  key: string,
  value: Json | undefined,
  written: Json | undefined,
): void {
  const pointer = pointerOf(placeOf(place, key))
  if (isLost(value, written)) {
    warn({ pointer, code: 'value_lost', detail: 'The value, or a part of it, has no place here: no export has it.' })
    return
  }
  warn({
    pointer,
    code: 'value_repaired',
    detail: 'The value does not have the form that the specification asks for; an export writes it in that form.',
  })
}

const placeOf = (place: Place, key: string): Place =>
  key.startsWith(prefix) ? at(at(place, 'extensions'), key.slice(prefix.length)) : at(place, key)

/** Writes one level of a card that came as `from`, and is wanted as `to`; V1 has no `extensions`. */
export function writeLevel<Row>(
  level: Level<Row>,
  row: Row,
  extras: LevelExtras,
  { from, to }: { from: CardSpec; to: CardSpec },
): JsonObject {
  const kept = flatten(extras.kept ?? {})
  const omitted = (extras.omitted ?? []).map((key) => key.replace('extensions/', prefix))
  return unflatten(emit(level, row, { from, to, kept, omitted }), to !== 'v1')
}

interface Conversion {
  from: CardSpec
  to: CardSpec
  kept: Values
  omitted: string[]
}

function emit<Row>(level: Level<Row>, row: Row, { from, to, kept, omitted }: Conversion): Values {
  const source = level.shapes[from] ?? noShape
  const target = level.shapes[to] ?? noShape
  const known = new Set(level.fields.flatMap(({ keys }) => keys))
  // What a newer specification added stays out of a copy for an older one; what nobody specified stays, but V1 has no
  // place for it.
  const isWritten = (key: string) =>
    target.has(key) || (to !== 'v1' && (key.startsWith(prefix) || (kept.has(key) && !source.has(key))))
  const out: Values = new Map()

  for (const field of level.fields) {
    const own = field.write(row)
    const isAsWritten = field.keys.every((key) => !kept.has(key) && !omitted.includes(key))
    const again = { ...own }
    for (const key of field.keys) {
      const value = kept.get(key)
      if (value !== undefined && isLegal(target.get(key), value)) again[key] = value
      else if (omitted.includes(key)) delete again[key]
    }
    const chosen = !isAsWritten && saysTheSame(field, again, row) ? again : own
    for (const key of field.keys) {
      const isMissing = chosen[key] === undefined && isRequired(target.get(key))
      const value = isMissing ? level.defaults[key] : chosen[key]
      if (value !== undefined && isWritten(key)) out.set(key, value)
    }
  }
  for (const [key, value] of kept) {
    if (!known.has(key) && isWritten(key) && isLegal(target.get(key), value)) out.set(key, value)
  }
  return out
}

const silently: Reading = { warn: () => {}, place: null }

function saysTheSame<Row>(field: Field<Row>, values: Record<string, Json | undefined>, row: Row): boolean {
  const given = Object.entries(values).filter((entry): entry is [string, Json] => entry[1] !== undefined)
  try {
    const columns = field.read(new Map(given), silently)
    return Object.entries(columns).every(([column, value]) => same(value as Json, row[column as keyof Row] as Json))
  } catch (error) {
    if (error instanceof CardError) return false
    throw error
  }
}
