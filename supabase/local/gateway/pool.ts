import postgres from 'postgres'
import { databaseUrl, type Stack } from '../stack.ts'
import { isConnectionError } from './errors.ts'
import { wireTypes } from './wire.ts'

/** One database connection with the driver's whole state for it, thrown away together when the connection ends. */
export interface Connection {
  sql: postgres.Sql
  /** Rejects when the connection ends. */
  lost: Promise<never>
  isLost: boolean
  /** Made before the schema changed: not lent again. */
  isStale: boolean
}

export interface Pool {
  /** Lends a connection for as long as `work` runs. */
  use<T>(work: (connection: Connection) => Promise<T>): Promise<T>
  /** Replaces all connections, each when it is free: the plans and types that they remember may be wrong. */
  renew(): void
  stop(): Promise<void>
}

/** All connections were busy for too long. */
export class PoolTimeout extends Error {}
/** The connection ended; nothing that was not committed is kept. */
export class ConnectionLost extends Error {
  readonly code = 'CONNECTION_CLOSED'
}

const SIZE = 10
const ACQUIRE_MS = 10_000
const IDLE_IN_TRANSACTION_MS = 20_000

/**
 * Connections of the login role `rest`. Not postgres.js's own pool: that connects again on its own, and a statement could
 * then reach a new connection, outside the transaction and the role that it was meant for; and it was seen to wait for
 * ever after a connection had ended at a bad moment.
 */
export function createPool(stack: Stack): Pool {
  const idle: Connection[] = []
  const all = new Set<Connection>()
  const waiting: PromiseWithResolvers<Connection>[] = []

  function connect(): Connection {
    const lost = Promise.withResolvers<never>()
    lost.promise.catch(() => {})
    const connection: Connection = {
      lost: lost.promise,
      isLost: false,
      isStale: false,
      sql: postgres(databaseUrl(stack, 'rest'), {
        max: 1,
        max_lifetime: null,
        connect_timeout: 5,
        connection: {
          application_name: 'gateway',
          TimeZone: 'UTC',
          // Whatever holds a request up in this process gives its connection and its locks back.
          idle_in_transaction_session_timeout: IDLE_IN_TRANSACTION_MS,
        },
        types: wireTypes,
        onnotice: () => {},
        onclose() {
          connection.isLost = true
          lost.reject(new ConnectionLost())
          drop(connection)
        },
      }),
    }
    all.add(connection)
    return connection
  }

  function drop(connection: Connection) {
    if (!all.delete(connection)) return
    const at = idle.indexOf(connection)
    if (at >= 0) idle.splice(at, 1)
    connection.sql.end({ timeout: 0 }).catch(() => {})
    waiting.shift()?.resolve(connect())
  }

  async function acquire(): Promise<Connection> {
    const free = idle.pop()
    if (free) return free
    if (all.size < SIZE) return connect()
    const turn = Promise.withResolvers<Connection>()
    waiting.push(turn)
    const timer = setTimeout(() => {
      waiting.splice(waiting.indexOf(turn), 1)
      turn.reject(new PoolTimeout())
    }, ACQUIRE_MS)
    try {
      return await turn.promise
    } finally {
      clearTimeout(timer)
    }
  }

  return {
    async use(work) {
      const connection = await acquire()
      try {
        return await Promise.race([work(connection), connection.lost])
      } catch (error) {
        // A connection that never came about is of no further use either.
        if (isConnectionError(error)) drop(connection)
        throw error
      } finally {
        if (connection.isStale) drop(connection)
        else if (all.has(connection)) {
          const next = waiting.shift()
          if (next) next.resolve(connection)
          else idle.push(connection)
        }
      }
    },
    renew() {
      for (const connection of all) connection.isStale = true
      for (const connection of [...idle]) drop(connection)
    },
    async stop() {
      await Promise.all([...all].map(({ sql }) => sql.end({ timeout: 2 })))
    },
  }
}
