import type { Sql } from 'postgres'
import type { Changes } from './changes.ts'
import type { Payload } from './codec.ts'
import { textBytes } from './codec.ts'
import { MAX_PAYLOAD_BYTES } from './limits.ts'
import type { Rooms } from './rooms.ts'
import { visibility } from './visible.ts'
import { type Change, followWal, type Wal } from './wal.ts'

/** Made with the platform's schemas; rows of all partitions arrive under the table's own name. */
const BROADCASTS = 'supabase_realtime_messages_publication'
/** The project's: which tables send `postgres_changes`. */
const TABLES = 'supabase_realtime'
const START_TIMEOUT_MS = 10_000

/** Connects the database's stream of committed changes with the rooms (broadcasts) and with `postgres_changes`. */
export class Feed {
  #wal: Wal
  #sql: Sql

  constructor({ url, sql, rooms, changes }: { url: string; sql: Sql; rooms: Rooms; changes: Changes }) {
    this.#sql = sql
    this.#wal = followWal({
      url,
      publications: () => this.#existing(),
      onOpen: () => changes.resumed(),
      onBegin: visibility(sql),
      onChange: (change) => {
        if (change.relation.schema === 'realtime' && change.relation.name === 'messages') {
          if (change.kind === 'insert') broadcast(rooms, change)
        } else return changes.add(change)
      },
    })
  }

  async start(): Promise<void> {
    this.#wal.start()
    const timeout = Promise.withResolvers<void>()
    const timer = setTimeout(timeout.resolve, START_TIMEOUT_MS)
    await Promise.race([this.#wal.streaming(), timeout.promise])
    clearTimeout(timer)
  }

  /** Resolves when changes flow. */
  streaming(): Promise<void> {
    return this.#wal.streaming()
  }

  /** Resolves when changes of published tables flow, also when the publication was made after the stream was opened. */
  async streamingTables(): Promise<void> {
    await this.#wal.streaming()
    if (this.#wal.publications.includes(TABLES)) return
    if ((await this.#existing()).includes(TABLES)) await this.#wal.restart()
  }

  stop(): Promise<void> {
    return this.#wal.stop()
  }

  async #existing(): Promise<string[]> {
    const rows = await this.#sql<{ pubname: string }[]>`
      select pubname from pg_publication where pubname in (${BROADCASTS}, ${TABLES})`
    return rows.map((row) => row.pubname)
  }
}

/** Everybody in the room gets it: who may read was decided when they joined. */
function broadcast(rooms: Rooms, { relation, after }: Change) {
  const row: Record<string, string | null | undefined> = {}
  for (const [index, column] of relation.columns.entries()) row[column.name] = after![index]
  const { id, topic, event, payload, binary_payload, inserted_at } = row
  const body = payload ?? binary_payload
  if (
    !id ||
    !topic ||
    event === null ||
    event === undefined ||
    !row.private ||
    !inserted_at ||
    typeof body !== 'string'
  ) {
    return console.warn('realtime: a row of realtime.messages is incomplete and is not broadcast')
  }
  const raw = typeof payload !== 'string'
  const bytes = raw ? Uint8Array.fromHex(body.slice('\\x'.length)) : textBytes(body)
  if (bytes.length > MAX_PAYLOAD_BYTES) return console.warn(`realtime: message ${id} exceeds the payload limit`)
  rooms.broadcast(topic, row.private === 't', { event, raw, bytes, meta: { id } satisfies Payload })
}
