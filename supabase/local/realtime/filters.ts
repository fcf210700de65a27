import { isObject } from './config.ts'

/** Filters of `postgres_changes`: `column=op.value`, comma means and, `not.` before the operator negates. */

export const OPERATORS = [
  'eq',
  'neq',
  'lt',
  'lte',
  'gt',
  'gte',
  'in',
  'like',
  'ilike',
  'is',
  'match',
  'imatch',
  'isdistinct',
] as const
export type Operator = (typeof OPERATORS)[number]

export interface Filter {
  column: string
  op: Operator
  value: string
  negate: boolean
}

export type Action = 'INSERT' | 'UPDATE' | 'DELETE'

export interface Subscription {
  event: Action | '*'
  schema: string
  table: string
  filters: Filter[]
  select: string[] | null
}

/** The text is hosted's, word for word: clients show it. */
export class BadSubscription extends Error {}

/** Reads one requested binding. */
export function readSubscription(request: Record<string, unknown>): Subscription {
  const event = String(request.event ?? '*').toUpperCase()
  const action = event === 'INSERT' || event === 'UPDATE' || event === 'DELETE' ? event : '*'
  const select = readSelect(request.select)
  const { schema, table, filter } = request
  const names = { hasSchema: typeof schema === 'string', hasTable: typeof table === 'string' }
  const known = ['schema', 'table', 'filter'].filter((key) => key in request).join()
  const shapes: Record<string, boolean> = {
    'schema,table,filter': names.hasSchema && names.hasTable && typeof filter === 'string',
    'schema,table': names.hasSchema && names.hasTable,
    schema: names.hasSchema,
    table: names.hasTable,
  }
  if (!shapes[known]) {
    const shown = 'user_token' in request || 'auth_token' in request ? '<redacted>' : inspect(request)
    throw new BadSubscription(
      `No subscription params provided. Please provide at least a \`schema\` or \`table\` to subscribe to: ${shown}`,
    )
  }
  const subscription = {
    event: action,
    schema: names.hasSchema ? (schema as string) : 'public',
    table: names.hasTable ? (table as string) : '*',
    filters: typeof filter === 'string' ? parseFilters(filter) : [],
    select,
  } satisfies Subscription
  if (select && (subscription.schema === '*' || subscription.table === '*')) {
    throw new BadSubscription(
      'Column selection is not supported for wildcard subscriptions. Provide an explicit schema and table name.',
    )
  }
  return subscription
}

function readSelect(select: unknown): string[] | null {
  if (typeof select === 'string') {
    throw new BadSubscription(
      'Error parsing `select` params: expected a list of column name strings, e.g. select: ["col1", "col2"]',
    )
  }
  const names = Array.isArray(select) ? select.filter((name): name is string => typeof name === 'string') : []
  return names.length > 0 ? names.sort() : null
}

export function parseFilters(text: string): Filter[] {
  if (text.trim() === '') return []
  try {
    return splitTopLevel(text.trim()).map(parseSegment)
  } catch (error) {
    throw error instanceof BadSubscription
      ? new BadSubscription(`Error parsing \`filter\` params: ${error.message}`)
      : error
  }
}

/** Splits at commas outside of quotes and parentheses. A quote opens only where a value or a list element begins. */
function splitTopLevel(text: string): string[] {
  const segments = ['']
  let depth = 0
  let quoted = false
  let previous = ''
  for (let at = 0; at < text.length; at++) {
    const char = text[at]!
    let taken = char
    if (quoted) {
      if (char === '\\' && at + 1 < text.length) taken += text[++at]
      else if (char === '"') quoted = false
    } else if (char === '"' && ['.', '(', ','].includes(previous)) quoted = true
    else if (char === '(') depth++
    else if (char === ')') depth = Math.max(0, depth - 1)
    else if (char === ',' && depth === 0) {
      segments.push('')
      previous = ''
      continue
    }
    segments[segments.length - 1] += taken
    previous = char
  }
  return segments
}

function parseSegment(segment: string): Filter {
  const text = segment.trim()
  if (text === '') throw new BadSubscription('filter must not contain empty segments (check for extra commas)')
  const equals = text.indexOf('=')
  if (equals === -1) throw new BadSubscription(inspect([text]))
  const column = text.slice(0, equals)
  const negate = text.startsWith('not.', equals + 1)
  const rest = text.slice(equals + 1 + (negate ? 'not.'.length : 0))
  const dot = rest.indexOf('.')
  if (dot === -1) throw new BadSubscription(inspect([rest]))
  const [op, value] = [rest.slice(0, dot) as Operator, rest.slice(dot + 1)]
  if (!OPERATORS.includes(op)) throw new BadSubscription(inspect([op, value]))
  if (op !== 'in') return { column, op, value: unquote(value), negate }
  if (!/^\(.*\)$/s.test(value)) throw new BadSubscription('`in` filter value must be wrapped by parentheses')
  // The list becomes an array literal; Postgres reads quotes and backslashes in it as we do.
  return { column, op, value: `{${value.slice(1, -1)}}`, negate }
}

function unquote(value: string): string {
  const quoted = /^"((?:\\.|[^"\\])*)"$/s.exec(value)
  return quoted ? quoted[1]!.replace(/\\(.)/gs, '$1') : value
}

const SYMBOLS: Partial<Record<Operator, string>> = {
  eq: '=',
  neq: '!=',
  lt: '<',
  lte: '<=',
  gt: '>',
  gte: '>=',
  in: '= any',
  like: 'like',
  ilike: 'ilike',
  match: '~',
  imatch: '~*',
}

/**
 * The filter as an SQL condition over `cell`, an expression of type `type`; `value` is the placeholder of its text. Postgres
 * compares, so every type orders as it does in a query, and null, as there, is no match.
 */
export function conditionOf({ op, value: keyword, negate }: Filter, type: string, cell: string, value: string): string {
  if (op === 'is') return `(${cell} is ${negate ? 'not ' : ''}${keyword} and ${value}::text is not null)`
  if (op === 'isdistinct') return `(${cell} is ${negate ? 'not ' : ''}distinct from ${value}::text::${type})`
  const condition = `(${cell} ${SYMBOLS[op]} (${value}::text::${type}${op === 'in' ? '[]' : ''}))`
  return `coalesce(${negate ? 'not ' : ''}${condition}, false)`
}

/** How hosted's error texts show a subscription. */
export function describe({ event, schema, table, filters, select }: Subscription): string {
  const shown = filters.map(
    ({ column, op, value, negate }) => `{${[column, op, value, negate].map(inspect).join(', ')}}`,
  )
  return `event: ${event}, schema: ${schema}, table: ${table}, filters: [${shown.join(', ')}], select: ${inspect(select)}`
}

/** Elixir's `inspect`, as far as JSON goes. */
function inspect(value: unknown): string {
  if (value === null || value === undefined) return 'nil'
  if (Array.isArray(value)) return `[${value.map(inspect).join(', ')}]`
  if (!isObject(value)) return JSON.stringify(value)
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
  return `%{${entries.map(([key, item]) => `${JSON.stringify(key)} => ${inspect(item)}`).join(', ')}}`
}
