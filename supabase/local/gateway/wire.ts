import type postgres from 'postgres'
import { numberOrBigInt, numberOrText, parseJson } from './values.ts'

const iso = (text: string) => text.replace(' ', 'T').replace(/([+-]\d\d)$/, '$1:00')
const same = (value: unknown) => (typeof value === 'string' ? value : String(value))
const json = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value))

/**
 * How values cross the wire, so that answers carry them as PostgREST writes them. JSON arguments arrive here as text
 * already; serialising them again would store a JSON string.
 */
export const wireTypes: Record<string, postgres.PostgresType> = {
  bigint: { to: 20, from: [20], serialize: same, parse: numberOrBigInt },
  date: { to: 1082, from: [1082], serialize: same, parse: (text: string) => text },
  json: { to: 114, from: [114], serialize: json, parse: parseJson },
  jsonb: { to: 3802, from: [3802], serialize: json, parse: parseJson },
  timestamptz: { to: 1184, from: [1184], serialize: same, parse: iso },
  timestamp: { to: 1114, from: [1114], serialize: same, parse: (text: string) => text.replace(' ', 'T') },
  numeric: { to: 1700, from: [1700], serialize: same, parse: numberOrText },
  float: { to: 701, from: [700, 701], serialize: same, parse: numberOrText },
  bytea: { to: 17, from: [17], serialize: same, parse: (text: string) => text },
}
