import type { Duplex } from 'node:stream'
import postgres from 'postgres'
import { decodeMessage, type Relation, type Transaction, type Tuple } from './pgoutput.ts'

export interface Change {
  kind: 'insert' | 'update' | 'delete'
  relation: Relation
  after: Tuple | null
  before: Tuple | null
  transaction: Transaction
}

interface Options {
  url: string
  /** Asked at every (re)connection: naming one that does not exist ends the stream at its first change. */
  publications(): Promise<string[]>
  /** The stream is open, for the first time or again: what was committed in between was not seen. */
  onOpen(): void
  /** Resolves when the transaction may be shown: see `visible`. */
  onBegin(transaction: Transaction): Promise<void>
  /** Called in commit order. Returns a promise only when the reader is behind: the stream then waits for it. */
  onChange(change: Change): Promise<void> | void
}

export interface Wal {
  start(): void
  /** Publications the current stream was opened with; empty while there is none. */
  readonly publications: readonly string[]
  /** Resolves at once when streaming, else when the stream is up again. */
  streaming(): Promise<void>
  /** Opens the stream anew, to take in a publication that was created meanwhile. */
  restart(): Promise<void>
  stop(): Promise<void>
}

/**
 * A walsender of Postgres 17 can miss the wake-up for a commit that falls between its look at the WAL's end and its going to
 * sleep (seconds of delay, about once in 200 commits on a busy machine). Whatever we send makes it look again, so we nudge:
 * soon after each message, when it is about to sleep again, then ever more rarely.
 */
const FIRST_NUDGE_MS = 5
const LAST_NUDGE_MS = 100
const FIRST_RETRY_MS = 50
const LAST_RETRY_MS = 2_000

/**
 * Follows committed changes over one temporary logical replication slot, and opens the stream again whenever it ends
 * (walsender killed, Postgres restarted). A temporary slot leaves nothing behind when this process is killed; the price,
 * paid by hosted Realtime too, is that changes committed while no stream is open are not seen.
 */
export function followWal({ url, publications, onOpen, onBegin, onChange }: Options): Wal {
  let stopped = false
  let named: string[] = []
  let end: () => void = () => {}
  let up = Promise.withResolvers<void>()
  let isUp = false
  let pause = new AbortController()

  /** From now on `streaming` waits for the next stream. */
  function down(): void {
    if (isUp) up = Promise.withResolvers()
    isUp = false
    named = []
  }

  async function stream(): Promise<void> {
    const closed = Promise.withResolvers<void>()
    const names = await publications()
    const sql = postgres(url, {
      max: 1,
      fetch_types: false,
      idle_timeout: undefined,
      max_lifetime: null,
      onnotice: () => {},
      connection: { replication: 'database', application_name: `realtime ${Deno.pid} changes` } as Record<
        string,
        string
      >,
      onclose: () => closed.resolve(),
    })
    try {
      const slot = `realtime_${Deno.pid}_${crypto.randomUUID().slice(0, 8)}`
      const [row] = await sql.unsafe(`CREATE_REPLICATION_SLOT ${slot} TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT`)
      const duplex = (await sql
        .unsafe(
          `START_REPLICATION SLOT ${slot} LOGICAL ${row!.consistent_point} (proto_version '1', publication_names '${names.map((name) => `"${name}"`).join(',')}')`,
        )
        .writable()) as unknown as Duplex
      const stopReading = read(duplex, { onBegin, onChange }, closed.reject)
      duplex.on('close', () => closed.resolve())
      end = () => closed.resolve()
      named = names
      isUp = true
      up.resolve()
      onOpen()
      await closed.promise.finally(stopReading)
    } finally {
      down()
      end = () => {}
      await sql.end({ timeout: 0 }).catch(() => {})
    }
  }

  async function run(): Promise<void> {
    let retry = FIRST_RETRY_MS
    let said = ''
    while (!stopped) {
      const since = Date.now()
      try {
        await stream()
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error)
        if (!stopped && reason !== said) console.error(`realtime: change stream: ${reason}`)
        said = reason // once, not every two seconds of an outage
      }
      if (stopped) break
      retry = Date.now() - since > LAST_RETRY_MS ? FIRST_RETRY_MS : Math.min(retry * 2, LAST_RETRY_MS)
      pause = new AbortController()
      await delay(retry, pause.signal)
    }
  }
  let running: Promise<void> = Promise.resolve()

  return {
    start() {
      running = run()
    },
    get publications() {
      return named
    },
    streaming: () => up.promise,
    async restart() {
      down()
      end()
      await up.promise
    },
    async stop() {
      stopped = true
      end()
      pause.abort()
      await running
    },
  }
}

/** Reads the stream's messages one by one and acknowledges them; returns what ends the reading. */
function read(duplex: Duplex, on: Pick<Options, 'onBegin' | 'onChange'>, fail: (error: unknown) => void): () => void {
  const relations = new Map<number, Relation>()
  let transaction: Transaction = { committedAt: new Date(), xid: 0 }
  let position = 0n

  const acknowledge = () => {
    if (duplex.writable) duplex.write(statusUpdate(position))
  }
  let timer: ReturnType<typeof setTimeout> | undefined
  const nudgeAfter = (ms: number) => {
    clearTimeout(timer)
    timer = setTimeout(() => {
      acknowledge()
      nudgeAfter(Math.min(ms * 2, LAST_NUDGE_MS))
    }, ms)
  }
  nudgeAfter(FIRST_NUDGE_MS)

  const handle = (bytes: Uint8Array): Promise<void> | void => {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    if (bytes[0] === 0x6b /* k: keep-alive */) {
      position = view.getBigUint64(1)
      if (bytes[17]) acknowledge()
      return // no reason to nudge: our own nudges cause these
    }
    if (bytes[0] !== 0x77 /* w: WAL data */) return
    position = view.getBigUint64(9)
    nudgeAfter(FIRST_NUDGE_MS)
    const message = decodeMessage(bytes.subarray(25))
    if (message?.kind === 'begin') {
      transaction = message.transaction
      return on.onBegin(transaction)
    }
    if (message?.kind === 'relation') relations.set(message.relation.oid, message.relation)
    else if (message) {
      const relation = relations.get(message.oid)
      if (!relation) return
      const after = message.kind === 'delete' ? null : message.after
      const before = message.kind === 'insert' ? null : message.before
      return on.onChange({ kind: message.kind, relation, after, before, transaction })
    }
  }

  // Only `data` events keep messages apart: other ways of reading join buffered ones.
  duplex.on('data', (bytes: Uint8Array) => {
    try {
      const wait = handle(bytes)
      if (!wait) return
      duplex.pause()
      wait.then(() => duplex.resume(), fail)
    } catch (error) {
      fail(error)
    }
  })
  duplex.on('error', fail)
  return () => clearTimeout(timer)
}

function statusUpdate(position: bigint): Uint8Array {
  const message = new DataView(new ArrayBuffer(34))
  message.setUint8(0, 0x72)
  for (const at of [1, 9, 17]) message.setBigUint64(at, position)
  message.setBigInt64(25, BigInt(Date.now() - Date.UTC(2000, 0, 1)) * 1000n)
  return new Uint8Array(message.buffer)
}

function delay(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms)
    signal.addEventListener('abort', () => {
      clearTimeout(timer)
      resolve()
    })
  })
}
