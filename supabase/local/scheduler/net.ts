import type postgres from 'postgres'

interface Request {
  id: string
  method: string
  url: string
  headers: Record<string, string> | null
  body: Uint8Array | null
  timeout_milliseconds: number
}

interface Outcome {
  status_code?: number
  content_type?: string | null
  headers?: Record<string, string>
  content?: string
  timed_out?: boolean
  error_msg?: string
}

/** pg_net's own settings. */
const batchSize = 200
const ttl = '6 hours'
/** Requests under way at once; beyond it the queue waits. */
const mostInFlight = 200
/** A lost notification (database restarted, connection broken) delays by at most this. */
const pollMs = 1000
const cleanMs = 60_000

/**
 * Sends what `net.http_get`, `http_post` and `http_delete` have queued, after their transaction has committed, and
 * writes `net._http_response`. At most once, as hosted: a request is taken from the queue before it is sent.
 */
export function startDispatcher(sql: postgres.Sql, report: (error: unknown) => void): { stop(): Promise<void> } {
  const stopped = new AbortController()
  const inFlight = new Set<Promise<void>>()
  let awake = true
  let wake = () => {
    awake = true
  }

  const listening = sql
    .listen(
      'net_http_request_queue',
      () => wake(),
      () => wake(),
    )
    .catch(report)
  const loop = (async () => {
    let cleaned = 0
    while (!stopped.signal.aborted) {
      awake = false
      try {
        while (await drain()) {
          /* until the queue is empty */
        }
        if (Date.now() - cleaned > cleanMs) {
          await sql`delete from net._http_response where created < clock_timestamp() - ${ttl}::interval`
          cleaned = Date.now()
        }
      } catch (error) {
        report(error)
      }
      await pause()
    }
  })()

  function pause(): Promise<void> {
    if (awake || stopped.signal.aborted) return Promise.resolve()
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, pollMs)
      wake = () => {
        awake = true
        clearTimeout(timer)
        resolve()
      }
    })
  }

  /** Takes what is committed and starts it. False when nothing was left to take. */
  async function drain(): Promise<boolean> {
    const room = Math.min(batchSize, mostInFlight - inFlight.size)
    if (room === 0) {
      await Promise.race(inFlight)
      return true
    }
    const taken = await sql<Request[]>`
      delete from net.http_request_queue where id in (
        select id from net.http_request_queue order by id limit ${room} for update skip locked)
      returning id, method, url, headers, body, timeout_milliseconds`
    for (const request of [...taken].sort((a, b) => Number(a.id) - Number(b.id))) {
      const sent = send(request, stopped.signal)
        .then((outcome) => record(request.id, outcome))
        .catch(report)
        .finally(() => inFlight.delete(sent))
      inFlight.add(sent)
    }
    return taken.length === room && !stopped.signal.aborted
  }

  async function record(id: string, outcome: Outcome): Promise<void> {
    await sql`
      insert into net._http_response (id, status_code, content_type, headers, content, timed_out, error_msg)
      values (${id}, ${outcome.status_code ?? null}, ${outcome.content_type ?? null},
        ${outcome.headers ? sql.json(outcome.headers) : null}, ${outcome.content ?? null},
        ${outcome.timed_out ?? false}, ${outcome.error_msg ?? null})`
  }

  return {
    async stop() {
      stopped.abort()
      wake()
      await Promise.race([Promise.all([loop, ...inFlight]), new Promise((resolve) => setTimeout(resolve, 500))])
      await Promise.race([
        listening.then((listener) => listener?.unlisten()),
        new Promise((resolve) => setTimeout(resolve, 200)),
      ])
    },
  }
}

/** Never throws: whatever goes wrong is the outcome. The timeout covers the body as well. */
async function send(request: Request, stopped: AbortSignal): Promise<Outcome> {
  const limit = AbortSignal.timeout(Math.max(1, request.timeout_milliseconds))
  try {
    const response = await fetch(httpUrl(request.url), {
      method: request.method,
      headers: { 'user-agent': 'pg_net/0.20.0', ...request.headers },
      body: request.method === 'GET' ? undefined : (request.body as BodyInit | null),
      signal: AbortSignal.any([limit, stopped]),
    })
    // NUL is what Postgres' text cannot hold.
    const content = (await response.text()).replaceAll('\0', '')
    return {
      status_code: response.status,
      content_type: response.headers.get('content-type'),
      headers: Object.fromEntries([...response.headers].map(([name, value]) => [name, value.replaceAll('\0', '')])),
      content,
    }
  } catch (error) {
    if (limit.aborted) return { timed_out: true, error_msg: `Timeout of ${request.timeout_milliseconds} ms reached.` }
    return { error_msg: (error instanceof Error ? error.message : String(error)).replaceAll('\0', '') }
  }
}

function httpUrl(url: string): URL {
  const parsed = new URL(url)
  if (!/^https?:$/.test(parsed.protocol))
    throw new Error(`Protocol "${parsed.protocol.slice(0, -1)}" not supported or disabled`)
  return parsed
}
