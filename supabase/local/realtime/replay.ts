import type { Sql } from 'postgres'
import { type Broadcast, type Payload, textBytes } from './codec.ts'
import { Refused } from './credentials.ts'

const MOST = 25

/** Stored broadcasts of a private topic since a moment (epoch ms), the newest 25 at most, oldest first. */
export async function replayed(sql: Sql, topic: string, since: unknown, limit: unknown): Promise<Broadcast[]> {
  if (!Number.isInteger(since) || (limit !== undefined && limit !== null && !Number.isInteger(limit))) {
    throw new Refused('UnableToReplayMessages', 'Replay params are not valid')
  }
  const rows = await sql<{ id: string; event: string; payload: string | null; binary_payload: Uint8Array | null }[]>`
    select id, event, payload::text, binary_payload from (
      select * from realtime.messages
      where topic = ${topic} and private and extension = 'broadcast' and event is not null
        and (payload is not null or binary_payload is not null)
        and inserted_at >= to_timestamp(${since as number}::float8 / 1000) at time zone 'UTC'
      order by inserted_at desc limit ${Math.min(Math.max((limit as number) ?? MOST, 1), MOST)}) newest
    order by inserted_at`
  return rows.map(({ id, event, payload, binary_payload }) => ({
    event,
    raw: binary_payload !== null,
    bytes: binary_payload ?? textBytes(payload ?? 'null'),
    meta: { replayed: true, id },
  }))
}

/** As a text frame carries it. */
export function replayPayload({ event, bytes, meta }: Broadcast): Payload {
  return { payload: JSON.parse(new TextDecoder().decode(bytes)), event, type: 'broadcast', meta }
}
