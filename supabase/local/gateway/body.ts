import { restError } from './errors.ts'
import type { Schema } from './lite.ts'
import { exactDigits, hasUnstorableText, isDeeperThan, MAX_DEPTH, parseJson } from './values.ts'

/** Hosted takes larger ones, but a body is held in memory several times over here. */
export const MAX_BODY_BYTES = 10 * 1024 * 1024

/** A request that is refused before it reaches the database. */
export class Refusal extends Error {
  constructor(readonly response: Response) {
    super('refused')
  }
}

/** The whole body as text; refuses what is too large or no UTF-8. */
export async function readBody(request: Request): Promise<string> {
  const tooLarge = () =>
    new Refusal(restError(413, '413', 'Request body too large', `At most ${MAX_BODY_BYTES} bytes are accepted.`))
  if (Number(request.headers.get('content-length') ?? 0) > MAX_BODY_BYTES) throw tooLarge()
  if (!request.body) return ''
  const decoder = new TextDecoder('utf-8', { fatal: true })
  let text = ''
  let size = 0
  try {
    for await (const chunk of request.body) {
      size += chunk.byteLength
      if (size > MAX_BODY_BYTES) throw tooLarge()
      text += decoder.decode(chunk, { stream: true })
    }
    return text + decoder.decode()
  } catch (error) {
    if (error instanceof Refusal) throw error
    throw unreadable()
  }
}

const unreadable = () => new Refusal(restError(400, 'PGRST102', 'Empty or invalid json'))

export const tooDeep = () =>
  new Refusal(restError(400, '54001', 'stack depth limit exceeded', `JSON is nested at most ${MAX_DEPTH} levels deep.`))

export interface Target {
  schema: string
  /** Table or view, or the function's name when `isRpc`. */
  name: string
  isRpc: boolean
}

export interface Preferences {
  /** Names of the `columns` parameter: supabase-js sends the union of all keys of a bulk insert. */
  columns: string[]
  missing: 'null' | 'default'
}

/**
 * Rewrites a JSON body into one that lite stores as PostgREST would: integers beyond 2^53 keep their digits, scalars
 * reach jsonb columns as JSON, and a key that some rows of a bulk insert lack is null in those.
 */
export function normaliseJson(text: string, target: Target, preferences: Preferences, schema: Schema): string {
  if (text.trim() === '') return text
  let body: unknown
  try {
    body = parseJson(text)
  } catch (error) {
    // Keeping digits takes a recursion.
    throw error instanceof RangeError ? tooDeep() : unreadable()
  }
  if (isDeeperThan(body, MAX_DEPTH)) throw tooDeep()
  if (/\\u(0000|d[89a-f])/i.test(text) && hasUnstorableText(body)) throw unstorable(text)
  const types = target.isRpc ? argumentTypes(target, schema) : columnTypes(target, schema)
  if (types === null) return text
  const rows = Array.isArray(body) ? body : [body]
  if (!rows.every((row) => typeof row === 'object' && row !== null && !Array.isArray(row))) {
    if (target.isRpc) return text
    throw unreadable()
  }
  const fill = !target.isRpc && preferences.missing === 'null' ? preferences.columns : []
  const rewritten = rows.map((row) => {
    const lacking = fill.filter((column) => !Object.hasOwn(row, column)).map((column) => [column, null])
    const given = Object.entries(row).map(([key, value]) => [key, writable(value, types.get(key))])
    return Object.fromEntries([...given, ...lacking])
  })
  return JSON.stringify(Array.isArray(body) ? rewritten : rewritten[0])
}

/**
 * lite turns the text of numbers and of JSON into JavaScript values, and loses digits or quotes. Text behind this mark,
 * which nobody outside can know, passes it untouched; `unmark` takes it off on the way to the database.
 */
const MARK = `\u0001${crypto.randomUUID()}:`
export function unmark(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(unmark)
  return typeof value === 'string' && value.startsWith(MARK) ? value.slice(MARK.length) : value
}

/** Marks the numbers in filters that lite would round: whole operands of 16 digits and more. */
export const exactOperands = (search: string): string =>
  search.replace(/([=.(,]|%28|%2C)(-?\d{16,})(?=$|&|[,)]|%2C|%29)/gi, `$1${encodeURIComponent(MARK)}$2`)

function writable(value: unknown, type: string | undefined): unknown {
  if (value === null || value === undefined) return value
  if (type === 'json' || type === 'jsonb') return MARK + JSON.stringify(value)
  if (Array.isArray(value)) return value.map((item) => writable(item, undefined))
  const digits = exactDigits(value)
  return digits === undefined ? value : MARK + digits
}

/** Postgres gives these two codes when it reads such a body itself. */
function unstorable(text: string): Refusal {
  return /\\u0000/.test(text)
    ? new Refusal(
        restError(400, '22P05', 'unsupported Unicode escape sequence', '\\u0000 cannot be converted to text.'),
      )
    : new Refusal(
        restError(400, '22P02', 'invalid input syntax for type json', 'Unicode surrogates must come in pairs.'),
      )
}

function columnTypes({ schema, name }: Target, { columns }: Schema): Map<string, string> {
  return new Map(
    columns
      .filter((column) => column.schema === schema && column.table === name)
      .map((column) => [column.name, column.pg_type ?? column.type]),
  )
}

/** Types by argument name over all overloads; null when the whole body is the one unnamed argument. */
function argumentTypes({ schema, name }: Target, { functions = [] }: Schema): Map<string, string> | null {
  const overloads = functions.filter((f) => f.schema === schema && f.name === name)
  if (overloads.some((f) => f.arg_names.length === 0 && f.arg_types.length > 0)) return null
  return new Map(overloads.flatMap((f) => f.arg_names.map((arg, i) => [arg, f.arg_types[i] ?? ''] as const)))
}
