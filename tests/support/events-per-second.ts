import type postgres from 'postgres'

/** Sets the limit of Realtime that the deltas of answers go by. */
export const setEventsPerSecond = (sql: postgres.Sql, limit: number) => sql`
  insert into private.settings (key, value) values ('realtime_events_per_second', ${limit})
  on conflict (key) do update set value = excluded.value`
