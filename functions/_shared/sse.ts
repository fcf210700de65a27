const encoder = new TextEncoder()

/** One server-sent event. `data` is JSON unless it is text already; line breaks cannot occur in JSON. */
export interface ServerSentEvent {
  event?: string
  id?: string
  data: unknown
}

export interface EventSink {
  send(event: ServerSentEvent): void
  /** Tells the client how long to wait before it connects again. */
  retry(milliseconds: number): void
  /** Fires when the client went away, or the answer ended. */
  signal: AbortSignal
}

const keepAliveMs = 15_000

/**
 * Answers with the events that `run` sends until it returns. The client's going away fires `signal` and nothing else:
 * what `run` started elsewhere goes on. A comment every 15 s keeps proxies from closing a silent stream.
 */
export function eventStream(run: (sink: EventSink) => Promise<void>, headers: Record<string, string> = {}): Response {
  const gone = new AbortController()
  let keepAlive: ReturnType<typeof setInterval> | undefined

  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      const write = (text: string) => {
        if (!gone.signal.aborted) controller.enqueue(encoder.encode(text))
      }
      // Opens the stream at once, also through proxies that wait for a first byte.
      write(': ok\n\n')
      keepAlive = setInterval(() => write(': keep-alive\n\n'), keepAliveMs)
      const sink: EventSink = {
        signal: gone.signal,
        send: ({ event, id, data }) => {
          const lines = [
            ...(event ? [`event: ${event}`] : []),
            ...(id ? [`id: ${id}`] : []),
            `data: ${typeof data === 'string' ? data : JSON.stringify(data)}`,
          ]
          write(`${lines.join('\n')}\n\n`)
        },
        retry: (milliseconds) => write(`retry: ${milliseconds}\n\n`),
      }
      run(sink)
        .catch(() => {})
        .finally(() => {
          clearInterval(keepAlive)
          if (gone.signal.aborted) return
          gone.abort()
          controller.close()
        })
    },
    cancel() {
      clearInterval(keepAlive)
      gone.abort()
    },
  })

  return new Response(body, {
    headers: {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store, no-transform',
      'x-accel-buffering': 'no',
      ...headers,
    },
  })
}
