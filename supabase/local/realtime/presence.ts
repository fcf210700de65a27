import { isDeepStrictEqual } from 'node:util'
import type { Payload } from './codec.ts'

interface Entry {
  key: string
  payload: Payload
  meta: Payload
}

type Listing = Record<string, { metas: Payload[] }>

/** Unique across restarts too, because clients match leaves by it. */
const refPrefix = crypto.randomUUID().slice(0, 8)
let refCount = 0

/** Who is present in a room: one entry for each channel that tracks, grouped by key for clients. */
export class Presence {
  #entries = new Map<object, Entry>()
  #notify: (diff: { joins: Listing; leaves: Listing }) => void

  constructor(notify: (diff: { joins: Listing; leaves: Listing }) => void) {
    this.#notify = notify
  }

  state(): Listing {
    return listing([...this.#entries.values()])
  }

  /** Adds or replaces the owner's entry; the same payload again changes nothing. */
  track(owner: object, key: string, payload: Payload): void {
    const previous = this.#entries.get(owner)
    if (previous && isDeepStrictEqual(previous.payload, payload)) return
    const phx_ref = `${refPrefix}${(++refCount).toString(36)}`
    const meta = { ...payload, phx_ref, ...(previous && { phx_ref_prev: previous.meta.phx_ref }) }
    const entry = { key, payload, meta }
    this.#entries.set(owner, entry)
    this.#notify({ joins: listing([entry]), leaves: listing(previous ? [previous] : []) })
  }

  untrack(owner: object): void {
    const entry = this.#entries.get(owner)
    if (!entry) return
    this.#entries.delete(owner)
    this.#notify({ joins: {}, leaves: listing([entry]) })
  }
}

/** `Object.fromEntries`, because a key comes from a client and may be `__proto__`. */
function listing(entries: Entry[]): Listing {
  const grouped = Map.groupBy(entries, (entry) => entry.key)
  return Object.fromEntries([...grouped].map(([key, group]) => [key, { metas: group.map((entry) => entry.meta) }]))
}
