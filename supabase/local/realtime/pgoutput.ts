/** Decoder of Postgres' logical replication messages (pgoutput, protocol version 1); values stay the text Postgres wrote. */

export interface Relation {
  oid: number
  schema: string
  name: string
  /** `key`: part of the replica identity. */
  columns: { name: string; key: boolean }[]
}

/** One object for all changes of a transaction. */
export interface Transaction {
  committedAt: Date
  /** The lower 32 bits. */
  xid: number
}

/** One value a column: null, or undefined when a TOASTed value did not change and is therefore absent. */
export type Tuple = (string | null | undefined)[]

export type Message =
  | { kind: 'begin'; transaction: Transaction }
  | { kind: 'relation'; relation: Relation }
  | { kind: 'insert'; oid: number; after: Tuple }
  | { kind: 'update'; oid: number; after: Tuple; before: Tuple | null }
  | { kind: 'delete'; oid: number; before: Tuple }

const POSTGRES_EPOCH_MS = Date.UTC(2000, 0, 1)
const decoder = new TextDecoder()

class Reader {
  #at = 0
  #bytes: Uint8Array
  #view: DataView

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  /** Moves on by `length` and returns where that began. */
  #take(length: number): number {
    this.#at += length
    return this.#at - length
  }
  byte(): number {
    return this.#view.getUint8(this.#take(1))
  }
  char(): string {
    return String.fromCharCode(this.byte())
  }
  int16(): number {
    return this.#view.getInt16(this.#take(2))
  }
  /** Oids and lengths are unsigned. */
  uint32(): number {
    return this.#view.getUint32(this.#take(4))
  }
  int64(): bigint {
    return this.#view.getBigInt64(this.#take(8))
  }
  string(): string {
    const end = this.#bytes.indexOf(0, this.#at)
    const text = decoder.decode(this.#bytes.subarray(this.#at, end))
    this.#at = end + 1
    return text
  }
  text(length: number): string {
    const start = this.#take(length)
    return decoder.decode(this.#bytes.subarray(start, start + length))
  }
  tuple(): Tuple {
    return Array.from({ length: this.int16() }, () => {
      const kind = this.char()
      if (kind === 'n') return null
      if (kind === 'u') return undefined
      return this.text(this.uint32())
    })
  }
}

/** Null for messages that say nothing to us: commit, type, origin, truncate (hosted sends no event for it either). */
export function decodeMessage(bytes: Uint8Array): Message | null {
  const reader = new Reader(bytes)
  switch (reader.char()) {
    case 'B': {
      reader.int64() // final LSN
      const committedAt = new Date(Number(reader.int64() / 1000n) + POSTGRES_EPOCH_MS)
      return { kind: 'begin', transaction: { committedAt, xid: reader.uint32() } }
    }
    case 'R': {
      const oid = reader.uint32()
      const schema = reader.string() || 'pg_catalog'
      const name = reader.string()
      reader.byte() // replica identity: the columns' flags say it better
      const columns = Array.from({ length: reader.int16() }, () => {
        const key = (reader.byte() & 1) === 1
        const column = { name: reader.string(), key }
        reader.uint32() // type
        reader.uint32() // modifier
        return column
      })
      return { kind: 'relation', relation: { oid, schema, name, columns } }
    }
    case 'I': {
      const oid = reader.uint32()
      reader.char()
      return { kind: 'insert', oid, after: reader.tuple() }
    }
    case 'U': {
      const oid = reader.uint32()
      const before = reader.char() === 'N' ? null : reader.tuple()
      if (before) reader.char()
      return { kind: 'update', oid, before, after: reader.tuple() }
    }
    case 'D': {
      const oid = reader.uint32()
      reader.char()
      return { kind: 'delete', oid, before: reader.tuple() }
    }
    default:
      return null
  }
}
