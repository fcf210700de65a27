/**
 * Hosted's limits of a small project. Two always hold, since exceeding them can only be a mistake here as there: the size
 * of a frame and of a payload. The others are enforced with `--realtime-limits`.
 */
export const MAX_FRAME_BYTES = 5_000_000
export const MAX_PAYLOAD_BYTES = 3_000_000 + 500

const EVENTS_PER_SECOND = 100
const JOINS_PER_SECOND = 100
const PRESENCE_EVENTS_PER_SECOND = 1_000
const CHANNELS_PER_SOCKET = 100
const USERS = 200
const PRESENCE_CALLS = 5
const PRESENCE_CALLS_WINDOW_MS = 30_000

/** Counts within fixed windows; the first call after a window's end begins the next one. */
class Rate {
  #limit: number
  #windowMs: number
  #count = 0
  #began = 0

  constructor(limit: number, windowMs: number) {
    this.#limit = limit
    this.#windowMs = windowMs
  }

  /** Counts `events`; false when the window now holds more than the limit. */
  add(events = 1): boolean {
    const now = performance.now()
    if (now - this.#began >= this.#windowMs) [this.#began, this.#count] = [now, 0]
    this.#count += events
    return this.#count <= this.#limit
  }

  /** Whether `events` more are within the limit. */
  fits(events: number): boolean {
    return this.add(0) && this.#count + events <= this.#limit
  }
}

export class Limits {
  #enabled: boolean
  #events = new Rate(EVENTS_PER_SECOND, 1_000)
  #joins = new Rate(JOINS_PER_SECOND, 1_000)
  #presence = new Rate(PRESENCE_EVENTS_PER_SECOND, 1_000)

  constructor(enabled: boolean) {
    this.#enabled = enabled
  }

  /** Counts for the whole project, as hosted: a message once, and once for each channel that receives it; false above the limit. */
  event(count: number): boolean {
    return this.#events.add(count) || !this.#enabled
  }

  /** Whether so many messages more would stay within the limit; counts nothing. */
  mayRequest(messages = 1): boolean {
    return this.#events.fits(messages) || !this.#enabled
  }

  presence(): boolean {
    return this.#presence.add() || !this.#enabled
  }

  /** Why a join is refused, or null. `users` counts sockets with a channel, `channels` those of this socket. */
  join({ isNewUser, users, channels }: { isNewUser: boolean; users: number; channels: number }): string | null {
    const tooFast = !this.#joins.add()
    if (!this.#enabled) return null
    if (isNewUser && users >= USERS) return 'ConnectionRateLimitReached: Too many connected users'
    if (tooFast) return TOO_MANY_JOINS
    return channels > CHANNELS_PER_SOCKET ? 'ChannelRateLimitReached: Too many channels' : null
  }

  /** One per channel: false when its client calls track or untrack too often. */
  presenceCalls(): () => boolean {
    const calls = new Rate(PRESENCE_CALLS, PRESENCE_CALLS_WINDOW_MS)
    return () => calls.add() || !this.#enabled
  }
}

export const TOO_MANY_JOINS = 'ClientJoinRateLimitReached: Too many joins per second'
