import type { WallClock } from '../wall-clock.ts'
import type { FinishResult } from './contract.ts'
import { type LiveRun, liveRuns } from './live.ts'
import type { Poller } from './poller.ts'
import type { Cursor, GenerationState, Reader } from './reader.ts'

export interface Followed {
  event: string
  id?: string
  data: Record<string, unknown>
}

export interface FollowOptions {
  read: Reader
  poller: Poller
  clock: WallClock
  generationId: string
  readerId: string
  jobId: string | null
  cursor: Cursor
  signal: AbortSignal
}

/** Why following stopped: it ended; the reader may not read any more, or left; the isolate is about to end. */
export type Stopped = 'ended' | 'gone' | 'left' | 'reconnect'

/**
 * Yields the events of one answer from `cursor` until it has ended. The reader's own right is asked first; then an answer
 * made in this isolate is followed in memory, any other through the one poller of the isolate.
 */
export async function* follow(options: FollowOptions): AsyncGenerator<Followed, Stopped> {
  const { read, poller, clock, generationId, readerId, jobId } = options
  const place = new Place(generationId, options.cursor)
  const attached = poller.attach(generationId, readerId)
  const isolateEnds = endOf(clock)
  const signal = AbortSignal.any([options.signal, attached.lost, isolateEnds.signal])
  let first = true
  try {
    yield { event: 'generation.connected', data: { generation_id: generationId, job_id: jobId } }
    while (!signal.aborted) {
      let run = liveRuns.get(generationId)
      if (!run || run.over || !place.reaches(run)) {
        const state = await read(place.cursor)
        if (!state) {
          yield gone(generationId)
          return 'gone'
        }
        const over = state.status !== 'queued' && state.status !== 'running'
        if (over && first) {
          // A late reader gets the whole text at once; the chunks of an answer that ended are dropped after a while.
          if (state.message?.content) yield { event: 'generation.snapshot', data: { content: state.message.content } }
        } else yield* place.take(state)
        if (over) {
          yield ending(generationId, state as GenerationState & FinishResult)
          return 'ended'
        }
        run = attached.copy(state)
      }
      first = false
      if (yield* followRun(run, place, read, signal)) return 'ended'
    }
  } finally {
    attached.leave()
    isolateEnds.forget()
  }
  if (options.signal.aborted) return 'left'
  if (!attached.lost.aborted) return 'reconnect'
  yield gone(generationId)
  return 'gone'
}

/** Follows one run; true when the answer ended with it, false when another runner goes on. */
async function* followRun(
  run: LiveRun,
  place: Place,
  read: Reader,
  signal: AbortSignal,
): AsyncGenerator<Followed, boolean> {
  if (run.attempt > 0) yield* place.enter(run.attempt)
  // What was written before this run began is stored; it is read once.
  if (run.firstSeq > place.cursor.seq + 1) {
    const state = await read(place.cursor)
    if (state?.attempt === run.attempt) yield* place.take(state)
  }
  for await (const event of run.read(signal)) {
    if (event.type === 'delta') yield* place.delta(event)
    if (event.type === 'ended') {
      yield ending(run.generationId, event.result)
      return true
    }
  }
  return false
}

/** Fires when the isolate is about to end. */
function endOf(clock: WallClock) {
  const controller = new AbortController()
  const remaining = clock.remaining()
  const timer = Number.isFinite(remaining) ? setTimeout(() => controller.abort(), remaining) : undefined
  return { signal: controller.signal, forget: () => clearTimeout(timer) }
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

  *take(state: GenerationState): Generator<Followed> {
    if (state.attempt === 0) return
    yield* this.enter(state.attempt)
    for (const chunk of state.chunks) yield* this.delta(chunk)
  }

  *delta({ seq, text }: { seq: number; text: string }): Generator<Followed> {
    if (seq <= this.cursor.seq) return
    this.cursor.seq = seq
    const { attempt } = this.cursor
    yield { event: 'generation.delta', id: `${attempt}.${seq}`, data: { attempt, seq, text } }
  }
}

/** Who was removed is not told from whose conversation was deleted: each may not read it any more, and no more is said. */
const gone = (generationId: string): Followed => ({
  event: 'generation.gone',
  data: { generation_id: generationId, code: 'generation_not_found' },
})

function ending(generationId: string, { status, message, usage, error }: FinishResult): Followed {
  switch (status) {
    case 'completed':
      return { event: 'generation.completed', data: { message: message ?? null, usage: usage ?? null } }
    case 'cancelled':
      return {
        event: 'generation.cancelled',
        data: { generation_id: generationId, message: message ?? null, usage: usage ?? null },
      }
    default:
      return {
        event: 'generation.failed',
        data: {
          code: error?.code ?? 'generation_failed',
          retryable: error?.retryable ?? false,
          message: message ?? null,
        },
      }
  }
}
