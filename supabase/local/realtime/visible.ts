import type { Sql } from 'postgres'

/** With ever longer pauses, five seconds in all. */
const TRIES = 100

/**
 * Makes a function that resolves when a transaction, which the stream has shown, is visible to new snapshots. The stream
 * follows the flush of the WAL, and the backend that flushed its commit is still running for a moment: who asks the database
 * within it, we for RLS or a client for what a message announced, would not find the rows.
 */
export function visibility(sql: Sql): (transaction: { xid: number }) => Promise<void> {
  let near: bigint | undefined
  return async ({ xid }) => {
    if (near === undefined) {
      const [row] = await sql<{ next: string }[]>`select pg_snapshot_xmax(pg_current_snapshot())::text as next`
      near = BigInt(row!.next)
    }
    // The stream gives the lower 32 bits; the id meant is the one nearest to the last.
    near += BigInt.asIntN(32, BigInt(xid) - near)
    for (let tries = 0; tries < TRIES; tries++) {
      const [row] = await sql<{ status: string }[]>`select pg_xact_status(${String(near)}::text::xid8) as status`
      if (row!.status !== 'in progress') return
      await new Promise((resolve) => setTimeout(resolve, tries))
    }
  }
}
