import type { ServiceDatabase } from '../database.ts'
import { pause } from '../deadline.ts'
import type { Usage } from '../llm/read.ts'
import type { Log } from '../log.ts'
import type { AppendEntry, AppendResult, Chunk, Claim } from './contract.ts'

/** Why a runner must stop, as the reason of `Lease.signal`. */
export type StopReason = 'lease_lost' | 'cancel_requested'

const tickMs = 150
const batchChunks = 500

/**
 * The lease of one running generation: numbers its chunks, and stores them with those of all other runs of this isolate,
 * one call every 150 ms. The call goes out also with nothing to store: it extends the leases and brings back who must stop.
 */
export class Lease {
  readonly pending: Chunk[] = []
  /** Says what the call has used until now; asked with each append. */
  meter: () => Usage | null = () => null
  /** The route that is asked. */
  routeId: string | null = null
  readonly #stop = new AbortController()
  #nextSeq: number
  #until: number

  constructor(
    readonly claim: Claim,
    private readonly appender: Appender,
  ) {
    this.#nextSeq = claim.next_seq
    this.#until = Date.now() + claim.lease_seconds * 1000
  }

  /** Fires with a StopReason. */
  get signal(): AbortSignal {
    return this.#stop.signal
  }

  get expired(): boolean {
    return Date.now() > this.#until
  }

  write(text: string): Chunk {
    const chunk = { seq: this.#nextSeq, text }
    this.#nextSeq += 1
    this.pending.push(chunk)
    return chunk
  }

  /** Resolves when everything written is stored, or cannot be any more because the lease is gone. */
  async flush(): Promise<void> {
    while (this.pending.length > 0 && this.signal.reason !== 'lease_lost') await this.appender.tick()
  }

  stop(reason: StopReason): void {
    this.#stop.abort(reason)
  }

  entry(): AppendEntry {
    const { generation_id, attempt, lease_token } = this.claim
    const chunks = this.pending.slice(0, batchChunks)
    return { generation_id, attempt, lease_token, chunks, route_id: this.routeId, usage: this.meter() }
  }

  stored(lastSeq: number, askedAt: number): void {
    while (this.pending[0] && this.pending[0].seq <= lastSeq) this.pending.shift()
    // Counted from before the question, so that our clock gives up no later than the database's.
    this.#until = askedAt + this.claim.lease_seconds * 1000
  }
}

export class Appender {
  /** One per generation: a lease that is taken anew in this isolate has replaced the one before. */
  readonly #leases = new Map<string, Lease>()
  #call: Promise<void> | null = null
  #ticking = false

  constructor(
    private readonly service: Pick<ServiceDatabase, 'call'>,
    private readonly log: Log,
  ) {}

  open(claim: Claim): Lease {
    const lease = new Lease(claim, this)
    this.#leases.get(claim.generation_id)?.stop('lease_lost')
    this.#leases.set(claim.generation_id, lease)
    this.#start()
    return lease
  }

  close(lease: Lease): void {
    if (this.#leases.get(lease.claim.generation_id) === lease) this.#leases.delete(lease.claim.generation_id)
  }

  /** Stores what is pending now. Calls never overlap; one that comes while another is under way waits for it. */
  tick(): Promise<void> {
    this.#call ??= this.#append([...this.#leases.values()]).finally(() => {
      this.#call = null
    })
    return this.#call
  }

  async #start(): Promise<void> {
    if (this.#ticking) return
    this.#ticking = true
    while (this.#leases.size > 0) {
      await pause(tickMs)
      await this.tick()
    }
    this.#ticking = false
  }

  async #append(leases: Lease[]): Promise<void> {
    if (leases.length === 0) return
    const askedAt = Date.now()
    const batch = leases.map((lease) => lease.entry())
    let results: AppendResult[]
    try {
      results = await this.service.call<AppendResult[]>('append_chunks', batch)
    } catch (error) {
      // One text that the database refuses must not hold up the others: then each goes alone.
      const refused = ((error as { status?: number }).status ?? 500) !== 503
      if (refused && leases.length > 1) {
        for (const lease of leases) await this.#append([lease])
        return
      }
      this.log.warn('append_failed', { generations: leases.length }, error)
      for (const lease of leases) if (refused || lease.expired) lease.stop('lease_lost')
      await pause(tickMs)
      return
    }
    const answers = new Map(results.map((result) => [result.generation_id, result]))
    for (const lease of leases) {
      const answer = answers.get(lease.claim.generation_id)
      if (!answer || answer.lease_lost) {
        lease.stop('lease_lost')
        continue
      }
      lease.stored(answer.last_seq, askedAt)
      if (answer.cancel_requested) lease.stop('cancel_requested')
    }
  }
}
