import postgres from 'postgres'
import { databaseUrl, type Stack } from '../stack.ts'

const AGAIN_MS = 200

/**
 * Calls `notified` for each notification, and with '' whenever a connection is made: while there was none, a
 * notification may have been missed.
 */
export function listen(
  stack: Stack,
  channel: string,
  notified: (payload: string) => Promise<void>,
): () => Promise<void> {
  let stopped = false
  let sql: postgres.Sql
  let timer: ReturnType<typeof setTimeout> | undefined
  const notify = (payload: string) =>
    void notified(payload).catch((error) => console.error(`${channel}:`, error.message))

  function connect() {
    let ended = false
    const again = () => {
      if (ended) return
      ended = true
      mine.end({ timeout: 0 }).catch(() => {})
      if (!stopped) timer = setTimeout(connect, AGAIN_MS)
    }
    const options = {
      max: 1,
      max_lifetime: null,
      fetch_types: false,
      connection: { application_name: 'gateway' },
      onclose: again,
      onnotify: (_channel: string, payload: string) => notify(payload),
    }
    const mine = postgres(databaseUrl(stack, 'rest'), options)
    sql = mine
    mine.unsafe(`listen ${channel}`).then(() => notify(''), again)
  }
  connect()
  return async () => {
    stopped = true
    clearTimeout(timer)
    await sql.end({ timeout: 0 })
  }
}
