import type { ChatMessage } from './answer.ts'

/** One request that the model received, and what became of it. */
export interface Entry {
  id: string
  at: string
  path: string
  model: string
  headers: Record<string, string>
  body: Record<string, unknown> & { messages?: ChatMessage[] }
  state: 'waiting' | 'streaming' | 'stalled' | 'done' | 'closed-early'
  /** The caller closed the connection before the answer was complete. */
  closed_early: boolean
  deltas: number
}

const kept = 500

/** The requests of the last while, newest first, and the switch that lets stalled answers go on. */
export class Log {
  #entries: Entry[] = []
  #stalled = new Map<string, () => void>()

  open(request: Request, body: Entry['body']): Entry {
    const headers = Object.fromEntries(request.headers)
    // The key itself is nobody's business; that there was one is.
    if (headers.authorization) headers.authorization = headers.authorization.replace(/(?<=^\S+\s+).*/, '…')
    const entry: Entry = {
      id: crypto.randomUUID(),
      at: new Date().toISOString(),
      path: new URL(request.url).pathname,
      model: String(body.model ?? ''),
      headers,
      body,
      state: 'waiting',
      closed_early: false,
      deltas: 0,
    }
    this.#entries.unshift(entry)
    this.#entries.length = Math.min(this.#entries.length, kept)
    return entry
  }

  /** `contains` finds one's own requests among those of others by any text of their bodies. */
  list({ model, contains }: { model?: string; contains?: string }): Entry[] {
    return this.#entries.filter(
      (entry) =>
        (!model || entry.model === model) &&
        (!contains || JSON.stringify(entry.body).includes(JSON.stringify(contains).slice(1, -1))),
    )
  }

  clear() {
    this.#entries = []
  }

  /** Waits until `release` names this entry, or until the caller goes away. */
  stall(entry: Entry, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const before = entry.state
      const go = () => {
        this.#stalled.delete(entry.id)
        if (entry.state === 'stalled') entry.state = before
        resolve()
      }
      if (signal.aborted) return resolve()
      entry.state = 'stalled'
      this.#stalled.set(entry.id, go)
      signal.addEventListener('abort', go, { once: true })
    })
  }

  /** Lets stalled answers go on: all, or those that match. Returns how many. */
  release(filter: { id?: string; model?: string; contains?: string }): number {
    const chosen = this.list(filter).filter(
      (entry) => this.#stalled.has(entry.id) && (!filter.id || entry.id === filter.id),
    )
    for (const entry of chosen) this.#stalled.get(entry.id)!()
    return chosen.length
  }
}
