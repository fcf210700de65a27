import type { ServiceDatabase } from '../database.ts'
import { pause } from '../deadline.ts'
import type { Log } from '../log.ts'
import type { FinishResult } from './contract.ts'
import { LiveRun, liveRuns } from './live.ts'
import type { Cursor, GenerationState } from './reader.ts'

const fastestPollMs = 100
const slowestPollMs = 1000

/** What another isolate makes, as it is copied here, and how far it has come. */
interface Copy {
  run: LiveRun
  cursor: Cursor
}

interface Answer {
  /** Each has a reader's id and is told when that person may not read any more. */
  readers: Set<{ id: string; lost: AbortController }>
  /** Null while nobody needs it: then no chunks are asked for, only who may still read. */
  copy: Copy | null
  wait: number
  due: number
}

/** An answer of another runner, or the word that its reader may not follow it any more. */
export interface Attachment {
  /** Fires when the reader may not read any more: a removed member hears nothing further. */
  lost: AbortSignal
  /** The answer as another runner makes it, from `state` on; the same copy for all readers of this isolate. */
  copy(state: GenerationState): LiveRun
  leave(): void
}

/**
 * Asks the database for all answers that this isolate follows, once for all their readers: the new chunks of those made
 * elsewhere, at intervals that grow while nothing comes, and every second who may still read. What a reader may see is
 * decided there, by the ids of the readers, as `read_generation` decides it for one.
 */
export class Poller {
  readonly #answers = new Map<string, Answer>()
  #polling = false
  #sooner = Promise.withResolvers<void>()

  constructor(
    private readonly service: Pick<ServiceDatabase, 'call'>,
    private readonly log: Log,
  ) {}

  attach(generationId: string, readerId: string): Attachment {
    const answer = this.#answers.get(generationId) ?? {
      readers: new Set(),
      copy: null,
      wait: slowestPollMs,
      due: Date.now() + slowestPollMs,
    }
    this.#answers.set(generationId, answer)
    const reader = { id: readerId, lost: new AbortController() }
    answer.readers.add(reader)
    this.#poll()
    return {
      lost: reader.lost.signal,
      copy: (state) => this.#copy(answer, state),
      leave: () => {
        answer.readers.delete(reader)
        if (answer.readers.size > 0) return
        if (this.#answers.get(generationId) === answer) this.#answers.delete(generationId)
      },
    }
  }

  #copy(answer: Answer, state: GenerationState): LiveRun {
    // A reader may come with a state that is older than what another one has seen since.
    const before = answer.copy?.run
    if (before && !before.over && before.attempt >= state.attempt) return before
    before?.push({ type: 'released' })
    const run = new LiveRun(state.generation_id, state.attempt, state.last_seq + 1)
    answer.copy = { run, cursor: { attempt: state.attempt, seq: state.last_seq } }
    answer.wait = fastestPollMs
    answer.due = Date.now() + fastestPollMs
    this.#sooner.resolve()
    return run
  }

  async #poll(): Promise<void> {
    if (this.#polling) return
    this.#polling = true
    while (this.#answers.size > 0) {
      const next = Math.min(...[...this.#answers.values()].map(({ due }) => due))
      await Promise.race([pause(Math.max(0, next - Date.now())), this.#sooner.promise])
      this.#sooner = Promise.withResolvers()
      const due = this.#due()
      if (due.size > 0) await this.#ask(due)
    }
    this.#polling = false
  }

  /** What is to be asked now. Answers that are past half of their wait come along, so that soon all go in the same calls. */
  #due(): Map<string, Answer> {
    const now = Date.now()
    const answers = [...this.#answers]
    if (answers.every(([, { due }]) => due > now)) return new Map()
    return new Map(answers.filter(([, { due, wait }]) => due - wait / 2 <= now))
  }

  async #ask(due: Map<string, Answer>): Promise<void> {
    for (const [id, answer] of due) this.#letGo(id, answer)
    const asked = new Map([...due].map(([id, { readers, copy }]) => [id, { readers: [...readers], copy }]))
    const batch = [...due].map(([generation_id, { copy, readers }]) => ({
      generation_id,
      ...copy?.cursor,
      readers: [...new Set([...readers].map(({ id }) => id))],
    }))
    let states: (GenerationState & { readers: string[] })[]
    try {
      states = await this.service.call('follow_generations', batch)
    } catch (error) {
      // A passing failure is no loss of access.
      this.log.warn('follow_failed', { generations: batch.length }, error)
      for (const answer of due.values()) answer.due = Date.now() + slowestPollMs
      return
    }
    const found = new Map(states.map((state) => [state.generation_id, state]))
    for (const [id, answer] of due) {
      const state = found.get(id)
      const allowed = new Set(state?.readers)
      const { readers, copy } = asked.get(id)!
      for (const reader of readers) if (!allowed.has(reader.id)) reader.lost.abort()
      // One that began meanwhile has not been asked for.
      if (copy && copy === answer.copy) this.#take(answer, copy, state)
      answer.due = Date.now() + answer.wait
    }
  }

  /** An answer that this isolate makes itself is followed in memory; only its readers are looked after. */
  #letGo(id: string, answer: Answer): void {
    const live = liveRuns.get(id)
    if (!answer.copy || !live || live.over || live.attempt < answer.copy.cursor.attempt) return
    answer.copy.run.push({ type: 'released' })
    this.#rest(answer)
  }

  #take(answer: Answer, { run, cursor }: Copy, state: GenerationState | undefined): void {
    if (!state || state.attempt !== cursor.attempt) {
      run.push({ type: 'released' })
      this.#rest(answer)
      return
    }
    for (const { seq, text } of state.chunks) {
      if (seq <= cursor.seq) continue
      cursor.seq = seq
      run.push({ type: 'delta', attempt: state.attempt, seq, text })
    }
    if (state.status !== 'queued' && state.status !== 'running') {
      run.push({ type: 'ended', result: state as GenerationState & FinishResult })
      this.#rest(answer)
      return
    }
    answer.wait = state.chunks.length > 0 ? fastestPollMs : Math.min(slowestPollMs, answer.wait * 1.5)
  }

  #rest(answer: Answer): void {
    answer.copy = null
    answer.wait = slowestPollMs
  }
}
