import { actionOf, type Binding } from './changes.ts'
import type { Channel } from './channel.ts'
import type { Column, Table } from './tables.ts'
import type { Change } from './wal.ts'

/** The payload of one `postgres_changes` frame, as JSON text. */
export interface Message {
  channel: Channel
  payload: string
}

const MAX_RECORD_BYTES = 1024 * 1024
/** What is left of a change that exceeds the limit: its small values. */
const MAX_KEPT_BYTES = 64

interface Seen {
  change: Change
  table: Table
  role: string
  bindings: Binding[]
  /** JSON text of each value. */
  after: Map<string, string> | undefined
  before: Map<string, string> | undefined
}

/** One message for each channel and column selection, with the ids of all its bindings that matched. */
export function messagesFor({ change, table, role, bindings, after, before }: Seen): Message[] {
  const tooLarge = bytesOf(change) > MAX_RECORD_BYTES
  const bySelection = Map.groupBy(bindings, ({ select }) => JSON.stringify(select))
  return [...bySelection.values()].flatMap((group) => {
    const select = group[0]!.select
    const columns = table.columns.filter(
      ({ name, isKey, readers }) => readers.includes(role) && (!select || isKey || select.includes(name)),
    )
    const record = (side: Map<string, string>, only: (column: Column) => boolean = () => true) =>
      objectText(
        columns.flatMap((column) => {
          const json = side.get(column.name)
          if (json === undefined || !only(column) || (tooLarge && json.length > MAX_KEPT_BYTES)) return []
          return [[column.name, column.type === 'bytea' ? json.replace('"\\\\x', '"') : json] as const]
        }),
      )
    const data: [string, string][] = [
      ...headOf(change),
      ['commit_timestamp', JSON.stringify(change.transaction.committedAt.toISOString())],
      ['columns', JSON.stringify(columns.map(({ name, type }) => ({ name, type })))],
    ]
    if (change.kind !== 'delete') data.push(['record', record(after!)])
    // RLS cannot be asked about a row that is gone: of a protected table only the key is told.
    if (change.kind === 'update') data.push(['old_record', record(before!)])
    if (change.kind === 'delete') data.push(['old_record', record(before!, ({ isKey }) => !table.hasRls || isKey)])
    data.push(['errors', tooLarge ? '["Error 413: Payload Too Large"]' : 'null'])
    return perChannel(group, objectText(data))
  })
}

/** What subscribers of a role are told about a change that cannot be shown to them at all. */
export function errorMessage(change: Change, bindings: Binding[], text: string): Message[] {
  const data: [string, string][] = [
    ...headOf(change),
    ['commit_timestamp', 'null'],
    ['columns', '[]'],
    ['record', '{}'],
    ['errors', JSON.stringify([text])],
  ]
  return perChannel(bindings, objectText(data))
}

function headOf(change: Change): [string, string][] {
  const { relation } = change
  return [
    ['schema', JSON.stringify(relation.schema)],
    ['table', JSON.stringify(relation.name)],
    ['type', JSON.stringify(actionOf(change))],
  ]
}

function perChannel(bindings: Binding[], data: string): Message[] {
  return [...Map.groupBy(bindings, ({ channel }) => channel)].map(([channel, own]) => ({
    channel,
    payload: `{"ids":[${own.map(({ id }) => id).join()}],"data":${data}}`,
  }))
}

/** Values are JSON text already: a bigint keeps all its digits. */
function objectText(entries: (readonly [string, string])[]): string {
  return `{${entries.map(([name, json]) => `${JSON.stringify(name)}:${json}`).join()}}`
}

function bytesOf({ after, before }: Change): number {
  return [...(after ?? []), ...(before ?? [])].reduce((sum, text) => sum + (text?.length ?? 0), 0)
}
