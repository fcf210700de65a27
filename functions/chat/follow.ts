import { pause } from '../_shared/deadline.ts'
import type { FinishResult } from '../_shared/generation/contract.ts'
import { type LiveRun, liveRuns } from '../_shared/generation/live.ts'
import type { WallClock } from '../_shared/wall-clock.ts'
import type { Cursor, GenerationState, Reader } from './reader.ts'

export interface Followed {
  event: string
  id?: string
  data: Record<string, unknown>
}

export interface FollowOptions {
  read: Reader
  clock: WallClock
  generationId: string
  jobId: string | null
  cursor: Cursor
  signal: AbortSignal
}

/** Why following stopped: it ended; the reader left or may not read any more; the isolate is about to end. */
export type Stopped = 'ended' | 'gone' | 'reconnect'

const fastestPollMs = 100
const slowestPollMs = 1000
/** A removed member must hear nothing more, also of a run that is followed in memory. */
const accessCheckMs = 1000

/**
 * Yields the events of one answer from `cursor` until it has ended. An answer made in this isolate is followed in
 * memory, any other by asking the database as the reader, at intervals that grow while nothing comes.
 */
export async function* follow(options: FollowOptions): AsyncGenerator<Followed, Stopped> {
  const { read, clock, generationId, jobId, signal } = options
  const place = new Place(generationId, options.cursor)
  let wait = fastestPollMs
  let first = true
  yield { event: 'generation.connected', data: { generation_id: generationId, job_id: jobId } }

  while (!signal.aborted) {
    if (clock.remaining() <= 0) return 'reconnect'
    const live = liveRuns.get(generationId)
    if (live && !live.over && place.reaches(live)) {
      first = false
      const stopped = yield* followLive(live, place, read, signal)
      if (stopped) return stopped
      continue
    }

    const state = await read(place.cursor)
    if (!state) return 'gone'
    const over = state.status !== 'queued' && state.status !== 'running'
    if (over && first) {
      // A late reader gets the whole text at once; the chunks of an answer that ended are dropped after a while.
      if (state.message?.content) yield { event: 'generation.snapshot', data: { content: state.message.content } }
    } else if (state.status !== 'queued') {
      yield* place.enter(state.attempt)
      for (const chunk of state.chunks) yield* place.delta(chunk)
    }
    if (over) {
      yield ending(generationId, state as GenerationState & FinishResult)
      return 'ended'
    }
    first = false
    wait = state.chunks.length > 0 ? fastestPollMs : Math.min(slowestPollMs, wait * 1.5)
    await pause(Math.min(wait, clock.remaining()), signal)
  }
  return 'gone'
}

/** Follows a run of this isolate; nothing when another runner goes on. */
async function* followLive(
  live: LiveRun,
  place: Place,
  read: Reader,
  outer: AbortSignal,
): AsyncGenerator<Followed, Stopped | undefined> {
  const access = watchAccess(read, outer)
  try {
    yield* place.enter(live.attempt)
    // What was written before this run began is stored; it is read once.
    if (live.firstSeq > place.cursor.seq + 1) {
      const state = await read(place.cursor)
      for (const chunk of state?.chunks ?? []) if (chunk.seq < live.firstSeq) yield* place.delta(chunk)
    }
    for await (const event of live.read(access.signal)) {
      if (event.type === 'delta') yield* place.delta(event)
      if (event.type === 'ended') {
        yield ending(live.generationId, event.result)
        return 'ended'
      }
    }
  } finally {
    access.stop()
  }
  return access.lost() || outer.aborted ? 'gone' : undefined
}

/** What one reader has seen, and so what comes next for it. */
class Place {
  readonly cursor: Cursor
  #announced = 0

  constructor(
    private readonly generationId: string,
    start: Cursor,
  ) {
    this.cursor = { ...start }
  }

  /** A reader that has seen a later attempt cannot follow an earlier one. */
  reaches(live: LiveRun): boolean {
    return live.attempt >= this.cursor.attempt
  }

  *enter(attempt: number): Generator<Followed> {
    if (attempt !== this.cursor.attempt) {
      if (this.cursor.seq > 0) yield { event: 'generation.reset', data: { attempt } }
      this.cursor.attempt = attempt
      this.cursor.seq = 0
    }
    if (this.#announced !== attempt) {
      this.#announced = attempt
      yield { event: 'generation.processing', data: { generation_id: this.generationId } }
    }
  }

  *delta({ seq, text }: { seq: number; text: string }): Generator<Followed> {
    if (seq <= this.cursor.seq) return
    this.cursor.seq = seq
    const { attempt } = this.cursor
    yield { event: 'generation.delta', id: `${attempt}.${seq}`, data: { attempt, seq, text } }
  }
}

function ending(generationId: string, { status, message, usage, error }: FinishResult): Followed {
  switch (status) {
    case 'completed':
      return { event: 'generation.completed', data: { message: message ?? null, usage: usage ?? null } }
    case 'cancelled':
      return { event: 'generation.cancelled', data: { generation_id: generationId, message: message ?? null } }
    default:
      return {
        event: 'generation.failed',
        data: { code: error?.code ?? 'generation_failed', retryable: error?.retryable ?? false },
      }
  }
}

/** Asks every second whether the reader may still read; `signal` fires when not, or when `outer` does. */
function watchAccess(read: Reader, outer: AbortSignal) {
  const stopped = new AbortController()
  const signal = AbortSignal.any([outer, stopped.signal])
  const beyond = { attempt: 0, seq: 0 }
  let lost = false
  const watch = async () => {
    while (!signal.aborted) {
      await pause(accessCheckMs, signal)
      if (signal.aborted) return
      // A passing failure is no loss of access.
      const state = await read(beyond).catch(() => undefined)
      if (state) Object.assign(beyond, { attempt: state.attempt, seq: 1_000_000_000 })
      if (state !== null) continue
      lost = true
      stopped.abort()
    }
  }
  watch()
  return { signal, lost: () => lost, stop: () => stopped.abort() }
}
