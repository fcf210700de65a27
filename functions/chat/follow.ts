import { pause } from '../_shared/deadline.ts'
import { liveRuns } from '../_shared/generation/live.ts'
import type { WallClock } from '../_shared/wall-clock.ts'
import type { GenerationRow, Reader } from './reader.ts'

/** Where a reader is: everything up to `seq` of `attempt` has been shown. */
export interface Cursor {
  attempt: number
  seq: number
}

export interface Followed {
  event: string
  id?: string
  data: Record<string, unknown>
}

export interface FollowOptions {
  reader: Reader
  clock: WallClock
  generationId: string
  jobId: string | null
  cursor: Cursor
  signal: AbortSignal
}

const fastestPollMs = 100
const slowestPollMs = 1000
/** A removed member must hear nothing more, also of a run that is followed in memory. */
const accessCheckMs = 2000

const terminal = new Set(['completed', 'failed', 'cancelled'])

/**
 * Yields the events of one answer from `cursor` until it ended (returns `ended`), the reader lost access or went away
 * (`gone`), or the isolate is about to end (`reconnect`). An answer made in this isolate is followed in memory, any
 * other by asking the database as the reader, at intervals that grow while nothing comes.
 */
export async function* follow(options: FollowOptions): AsyncGenerator<Followed, 'ended' | 'gone' | 'reconnect'> {
  const { reader, clock, generationId, jobId, signal } = options
  const cursor = { ...options.cursor }
  let announced = 0
  let wait = fastestPollMs
  let first = true
  yield { event: 'generation.connected', data: { generation_id: generationId, job_id: jobId } }

  const position = function* (attempt: number): Generator<Followed> {
    if (attempt !== cursor.attempt) {
      if (cursor.seq > 0) yield { event: 'generation.reset', data: { attempt } }
      cursor.attempt = attempt
      cursor.seq = 0
    }
    if (announced !== attempt) {
      announced = attempt
      yield { event: 'generation.processing', data: { generation_id: generationId } }
    }
  }
  const delta = function* (chunk: { attempt: number; seq: number; text: string }): Generator<Followed> {
    if (chunk.seq <= cursor.seq) return
    cursor.seq = chunk.seq
    const { attempt, seq, text } = chunk
    yield { event: 'generation.delta', id: `${attempt}.${seq}`, data: { attempt, seq, text } }
  }

  while (!signal.aborted) {
    if (clock.remaining() <= 0) return 'reconnect'

    const live = liveRuns.get(generationId)
    if (live && !live.over && live.attempt >= cursor.attempt) {
      const access = watchAccess(reader, generationId, signal)
      try {
        yield* position(live.attempt)
        // A reader that is ahead of what this run made continues a handed-over attempt; its missing part is stored.
        let gap = live.firstSeq > cursor.seq + 1
        for await (const event of live.read(access.signal)) {
          if (gap) {
            for (const chunk of await reader.chunks(generationId, live.attempt, cursor.seq)) {
              if (chunk.seq < live.firstSeq) yield* delta({ ...chunk, attempt: live.attempt })
            }
            gap = false
          }
          if (event.type === 'delta') yield* delta(event)
          if (event.type === 'ended') {
            yield ended(generationId, event.result)
            return 'ended'
          }
        }
      } finally {
        access.stop()
      }
      if (access.lost()) return 'gone'
      first = false
      continue
    }

    const generation = await reader.generation(generationId)
    if (!generation) return 'gone'
    const over = terminal.has(generation.status)
    if (over && first) {
      // A late reader gets the whole text at once; the chunks of an ended answer are dropped after a while.
      const message = await reader.message(generation.message_id)
      if (message && generation.status === 'completed') {
        yield { event: 'generation.snapshot', data: { content: message.content } }
      }
      yield ended(generationId, { ...generation, message })
      return 'ended'
    }
    first = false

    let came = 0
    if (generation.attempt > 0 && generation.status !== 'queued') {
      yield* position(generation.attempt)
      const chunks = await reader.chunks(generationId, generation.attempt, cursor.seq)
      for (const chunk of chunks) yield* delta({ ...chunk, attempt: generation.attempt })
      came = chunks.length
    }
    if (over && came < reader.pageSize) {
      yield ended(generationId, { ...generation, message: await reader.message(generation.message_id) })
      return 'ended'
    }
    wait = came > 0 ? fastestPollMs : Math.min(slowestPollMs, wait * 1.5)
    await pause(Math.min(wait, clock.remaining()), signal)
  }
  return 'gone'
}

type Ending = Pick<GenerationRow, 'status'> & {
  message?: Record<string, unknown> | null
  usage?: Record<string, unknown> | null
  error?: { code?: string; retryable?: boolean } | null
}

function ended(generationId: string, { status, message, usage, error }: Ending): Followed {
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

/** Asks every two seconds whether the reader may still read; `signal` fires when not, or when `outer` does. */
function watchAccess(reader: Reader, generationId: string, outer: AbortSignal) {
  const stopped = new AbortController()
  const signal = AbortSignal.any([outer, stopped.signal])
  let lost = false
  const watch = async () => {
    while (!signal.aborted) {
      await pause(accessCheckMs, signal)
      if (signal.aborted) return
      // A passing failure of the database is no loss of access.
      const generation = await reader.generation(generationId).catch(() => ({}))
      if (generation) continue
      lost = true
      stopped.abort()
    }
  }
  watch()
  return { signal, lost: () => lost, stop: () => stopped.abort() }
}
