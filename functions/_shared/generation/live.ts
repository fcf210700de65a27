import type { FinishResult } from './contract.ts'

export type LiveEvent =
  | { type: 'delta'; attempt: number; seq: number; text: string }
  /** The generation ended, for good. */
  | { type: 'ended'; result: FinishResult }
  /** Another runner goes on with it, or will. */
  | { type: 'released' }

/** An answer that this isolate is making. Readers in the same isolate follow it without asking the database. */
export class LiveRun {
  readonly #events: LiveEvent[] = []
  #changed = Promise.withResolvers<void>()
  #over = false

  constructor(
    readonly generationId: string,
    readonly attempt: number,
    /** Number of the first chunk of this run; more than 1 when it continues what another runner began. */
    readonly firstSeq: number,
  ) {}

  get over(): boolean {
    return this.#over
  }

  push(event: LiveEvent): void {
    this.#events.push(event)
    this.#over ||= event.type !== 'delta'
    this.#wake()
  }

  /** Everything from the beginning of this run, then what comes, until it is over or `signal` fires. */
  async *read(signal: AbortSignal): AsyncGenerator<LiveEvent> {
    signal.addEventListener('abort', () => this.#wake(), { once: true })
    for (let next = 0; !signal.aborted; ) {
      const event = this.#events[next]
      if (event) {
        next += 1
        yield event
      } else if (this.#over) {
        return
      } else {
        await this.#changed.promise
      }
    }
  }

  /** All its readers look whether there is more for them. */
  #wake(): void {
    const { resolve } = this.#changed
    this.#changed = Promise.withResolvers()
    resolve()
  }
}

/** The runs of this isolate by generation. */
export const liveRuns = new Map<string, LiveRun>()
