import { onUnload } from '../_shared/background.ts'
import { pause } from '../_shared/deadline.ts'
import type { Env } from '../_shared/env.ts'
import type { Log } from '../_shared/log.ts'

export interface Job {
  job_id: string
  kind: string
  payload: Record<string, unknown>
  attempt: number
  lease_token: string
}

/** How a handler ended; what it throws counts as a retry. */
export type JobOutcome =
  | { status: 'completed'; result?: Record<string, unknown> }
  | { status: 'failed' | 'retry'; error: { code: string; detail: string }; retry_after_seconds?: number }

export interface JobContext {
  env: Env
  log: Log
  /** Fires when its owner cancels the job, it is not ours any more, or the worker must stop; a handler then ends soon. */
  signal: AbortSignal
  /** Percent done, told to the owner with the next heartbeat. */
  progress(percent: number): void
}

export type Handler = (job: Job, context: JobContext) => Promise<JobOutcome>

const slots = 5
const cancelRequested = 'cancel_requested'
/** Also the heartbeat: while it beats nobody wakes another worker, and the leases of 30 s are extended. */
const beatMs = 2000
/** How long a claim waits in the database for work: there a look costs microseconds, from here a round trip. */
const waitMs = 500
/** How often the outbox is emptied while a worker lives; without one a schedule does it. */
const deliverMs = 1000
/** An idle worker ends after this; the database wakes another when there is work. */
const lingerMs = 20_000

interface LeaseAnswer {
  job_id: string
  lease_lost: boolean
  cancel_requested: boolean
}

interface Finished {
  status: string
  next?: Job[]
}

interface Active {
  job: Job
  stop: AbortController
  progress: number | undefined
  done: Promise<void>
}

const begun = (job: Job): Omit<Active, 'done'> => ({ job, stop: new AbortController(), progress: undefined })

/** A worker of this isolate: takes up to five jobs at a time until the queue is empty or its time is over. */
export function createWorker(env: Env, handlers: Record<string, Handler>) {
  let id = crypto.randomUUID()
  const active = new Map<string, Active>()
  let running: Promise<void> | null = null
  let stopping = new AbortController()
  let lastWoken = 0

  /** Works in one slot: on `first`, and on what the end of each job gives it next. */
  const work = async (first: Job): Promise<void> => {
    for (let job: Job | undefined = first; job; ) {
      const slot = active.get(job.job_id)!
      const next: Job | undefined = await attempt(slot)
      active.delete(job.job_id)
      // Claimed in the moment of the stop: handed back with whatever else is held.
      job = isOver() ? undefined : next
      if (job) active.set(job.job_id, { ...begun(job), done: slot.done })
    }
  }

  /** Runs one job to the end of its attempt; returns the next one, when the queue has one for this slot. */
  const attempt = async (slot: Active): Promise<Job | undefined> => {
    const { job } = slot
    const log = env.log.with({ job_id: job.job_id, kind: job.kind, attempt: job.attempt })
    const started = performance.now()
    const handler = handlers[job.kind]
    let outcome: JobOutcome
    try {
      outcome = handler
        ? await handler(job, { env, log, signal: slot.stop.signal, progress: (percent) => (slot.progress = percent) })
        : { status: 'retry', error: { code: 'kind_unknown', detail: 'This worker does not know this kind of job.' } }
    } catch (error) {
      log.error('job_crashed', {}, error)
      const code = (error as { code?: unknown }).code
      outcome = {
        status: 'retry',
        error: {
          code: typeof code === 'string' ? code : 'internal_error',
          detail: 'The job failed and is tried again.',
        },
      }
    }
    // A job whose lease is lost, or that is handed back, is not ours to finish; one that was cancelled is.
    const cancelled = slot.stop.signal.reason === cancelRequested
    if (slot.stop.signal.aborted && !cancelled && outcome.status !== 'completed') return
    const said = cancelled && outcome.status !== 'completed' ? { status: 'cancelled' } : outcome
    const { status, next } = await finish(job, said).catch((error): Finished => {
      log.warn('finish_job_failed', {}, error)
      return { status: 'lost_lease' }
    })
    log.info('job_ran', { outcome: outcome.status, status, ms: Math.round(performance.now() - started) })
    return next?.[0]
  }

  const finish = ({ job_id, lease_token }: Job, outcome: object): Promise<Finished> =>
    isOver()
      ? env.service.call('finish_job', job_id, lease_token, outcome)
      : env.service.call('finish_and_claim', job_id, lease_token, outcome, id)

  /** No more jobs are taken: somebody asked for it, or the isolate is about to end. */
  const isOver = () => stopping.signal.aborted || env.clock.remaining() <= 0

  const beat = async (until: AbortSignal): Promise<void> => {
    while (!until.aborted) {
      await pause(beatMs, until)
      if (until.aborted) return
      const leases = [...active.values()].map(({ job, progress }) => ({
        job_id: job.job_id,
        lease_token: job.lease_token,
        ...(progress !== undefined && { progress }),
      }))
      try {
        const answers = await env.service.call<LeaseAnswer[]>('extend_jobs', id, leases)
        for (const { job_id, lease_lost, cancel_requested } of answers) {
          if (lease_lost) active.get(job_id)?.stop.abort('lease_lost')
          else if (cancel_requested) active.get(job_id)?.stop.abort(cancelRequested)
        }
      } catch (error) {
        env.log.warn('extend_jobs_failed', { jobs: leases.length }, error)
      }
    }
  }

  const deliver = async (until: AbortSignal): Promise<void> => {
    while (!until.aborted) {
      const events = await env.service.call<number>('deliver_events', 500).catch((error) => {
        env.log.warn('deliver_events_failed', {}, error)
        return 0
      })
      if (events < 500) await pause(deliverMs, until)
    }
  }

  const loop = async (): Promise<void> => {
    const beating = new AbortController()
    const beats = Promise.all([beat(beating.signal), deliver(beating.signal)])
    const forget = onUnload(() => stop('unload'))
    let idleSince = Date.now()
    env.log.info('worker_started', { worker_id: id })
    while (!isOver()) {
      if (active.size === slots) {
        const freed = [...active.values()].map(({ done }) => done)
        await Promise.race([pause(Math.min(beatMs, env.clock.remaining()), stopping.signal), ...freed])
        continue
      }
      const jobs = await claim(slots - active.size)
      // Claimed in the moment of the stop: handed back below with whatever else is held.
      if (stopping.signal.aborted) break
      for (const job of jobs) {
        const slot: Active = { ...begun(job), done: Promise.resolve() }
        active.set(job.job_id, slot)
        slot.done = work(job)
      }
      if (jobs.length > 0 || active.size > 0) idleSince = Date.now()
      else if (Date.now() - Math.max(idleSince, lastWoken) > lingerMs) break
    }
    // Whatever still runs gets a moment to hand over what it has; the rest is handed back as it is.
    for (const { stop: end } of active.values()) end.abort('worker_stopping')
    await Promise.race([Promise.all([...active.values()].map(({ done }) => done)), pause(3000)])
    beating.abort()
    await beats
    await env.service.call('release_jobs', id).catch((error) => env.log.warn('release_jobs_failed', {}, error))
    env.log.info('worker_stopped', { worker_id: id, handed_back: active.size })
    forget()
    active.clear()
  }

  const claim = (free: number): Promise<Job[]> =>
    env.service.call<Job[] | null>('claim_jobs', id, free, waitMs).then(
      (jobs) => jobs ?? [],
      async (error) => {
        env.log.warn('claim_jobs_failed', {}, error)
        await pause(waitMs, stopping.signal)
        return []
      },
    )

  const stop = (reason: string): Promise<void> => {
    stopping.abort(reason)
    return running ?? Promise.resolve()
  }

  return {
    get id() {
      return id
    },
    get running() {
      return running !== null
    },
    /** Starts the loop unless it runs; resolves when it has ended. */
    wake(): Promise<void> {
      lastWoken = Date.now()
      if (!running) {
        // A new name for each loop: a slow last word of the one before cannot touch its jobs.
        id = crypto.randomUUID()
        stopping = new AbortController()
        running = loop().finally(() => {
          running = null
        })
      }
      return running
    },
  }
}
