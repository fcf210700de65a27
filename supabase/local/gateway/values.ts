/**
 * Values that JavaScript's numbers cannot hold stay exact on their way from the database to the client and back.
 * JSON.rawJSON is what V8 offers for that; TypeScript does not know it yet.
 */
const { rawJSON, isRawJSON } = JSON as unknown as {
  rawJSON(text: string): unknown
  isRawJSON(value: unknown): value is { rawJSON: string }
}

/** Makes `JSON.stringify` write a bigint with all its digits, wherever in an answer it stands. */
export function writeBigIntsExactly() {
  Object.defineProperty(BigInt.prototype, 'toJSON', {
    configurable: true,
    value(this: bigint) {
      return rawJSON(this.toString())
    },
  })
}

/** `NaN` and the infinities have no JSON number; Postgres writes them as strings. */
export function numberOrText(text: string): number | string {
  const number = Number(text)
  return Number.isFinite(number) ? number : text
}

export function numberOrBigInt(text: string): number | bigint {
  const number = Number(text)
  return Number.isSafeInteger(number) ? number : BigInt(text)
}

type Reviver = (this: unknown, key: string, value: unknown, context: { source?: string }) => unknown

const exactNumbers: Reviver = (_key, value, { source }) => {
  if (typeof value !== 'number' || !source) return value
  if (!Number.isSafeInteger(value) && /^-?\d+$/.test(source)) return BigInt(source)
  // Beyond the largest double, or so small that nothing is left of it.
  const isLost = !Number.isFinite(value) || (value === 0 && /^-?[0.]*[1-9]/.test(source))
  return isLost ? rawJSON(source) : value
}

/** JSON.parse that gives a bigint for an integer beyond 2^53, and what stands for itself for other lost numbers. */
export function parseJson(text: string): unknown {
  return MAY_BE_LOST.test(text) ? JSON.parse(text, exactNumbers as never) : JSON.parse(text)
}
const MAY_BE_LOST = /\d{16}|(?:^|[\s,:[])-?[\d.]+e[+-]?\d{3}/i

/** The digits of a number that `parseJson` kept beside JavaScript's numbers; undefined for any other value. */
export function exactDigits(value: unknown): string | undefined {
  if (typeof value === 'bigint') return value.toString()
  return isRawJSON(value) ? value.rawJSON : undefined
}

/** Whether any string in a parsed JSON value is one that Postgres cannot store: with a NUL or half a surrogate pair. */
export function hasUnstorableText(value: unknown): boolean {
  if (typeof value === 'string') return value.includes('\0') || !value.isWellFormed()
  if (Array.isArray(value)) return value.some(hasUnstorableText)
  if (typeof value !== 'object' || value === null) return false
  return Object.entries(value).some(([key, inner]) => hasUnstorableText(key) || hasUnstorableText(inner))
}

/**
 * How deep JSON may nest. Postgres itself gives up a few thousand levels further on; the recursion of lite and of the
 * driver would end before that, in the middle of a transaction, which then never ends.
 */
export const MAX_DEPTH = 1_000

/** Whether arrays and objects nest deeper than that. Never recurses. */
export function isDeeperThan(value: unknown, limit: number): boolean {
  let level = [value].filter(isContainer)
  for (let depth = 1; level.length > 0; depth += 1) {
    if (depth > limit) return true
    level = level.flatMap((container) => Object.values(container)).filter(isContainer)
  }
  return false
}

const isContainer = (value: unknown): value is object =>
  typeof value === 'object' && value !== null && !(value instanceof Date) && !ArrayBuffer.isView(value)
