import fc from 'fast-check'
import type postgres from 'postgres'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Arena, openArena } from './support/races.ts'

/**
 * A generation against a model of it, under any order of calls of runners, of people and of the schedule, with right and
 * with stale leases: the database says what the model says after each of them.
 */
let arena: Arena
let person: string
let generation: string
beforeAll(async () => {
  arena = await openArena('model')
  person = await arena.person()
  const session = await arena.session()
  const character = await session.call<string>(
    person,
    `insert into public.characters (name, age, greeting) values ('Ada', 36, 'Hello.') returning id`,
  )
  const talk = await session.call<string>(person, 'select id from public.start_conversation($1)', [character])
  const sent = await session.call<{ generation: { id: string } }>(person, 'select public.send_message($1, $2)', [
    talk,
    'Hi',
  ])
  generation = sent.generation.id
})
afterAll(() => arena?.close())

type Step =
  | { what: 'claim' | 'cancel' | 'reap' | 'lease runs out' | 'wait' }
  | { what: 'append'; lease: number; pieces: number }
  | { what: 'finish'; lease: number; how: string; told: boolean }

interface Lease {
  attempt: number
  lease_token: string
}

interface Call {
  attempt: number
  call: number
  outcome: string | null
  completion: number | null
}

const maxAttempts = 3
const open = (status: string) => status === 'queued' || status === 'running'

class Model {
  status = 'queued'
  attempt = 0
  /** Every lease that was ever given; the present one is the last, while `held`. */
  leases: Lease[] = []
  held = false
  ranOut = false
  available = true
  handedOver = false
  cancelRequested = false
  /** Chunks of the present attempt. */
  text: string[] = []
  calls: Call[] = []
  /** What the present call has told of its use. */
  told: number | null = null

  /** What the runner with this lease may do: nothing, when it is not the present one. */
  owns(lease: number): boolean {
    return this.held && lease === this.leases.length - 1
  }

  #end(status: string, outcome: string): void {
    this.status = status
    this.held = false
    this.#close(outcome)
  }

  #close(outcome: string): void {
    const call = this.calls.at(-1)
    if (!call || call.outcome !== null) return
    call.outcome = outcome
    call.completion = this.told
  }

  /** True when a lease is given. */
  claim(): boolean {
    if (!open(this.status) || (this.held ? !this.ranOut : !this.available)) return false
    const continued = !this.held && this.handedOver
    if (this.cancelRequested) this.#end('cancelled', 'lost')
    else if (!continued && this.attempt === maxAttempts) this.#end('failed', 'lost')
    else {
      this.#close('lost')
      if (!continued) {
        this.attempt += 1
        this.text = []
      }
      const call = continued ? this.calls.at(-1)!.call + 1 : 1
      this.calls.push({ attempt: this.attempt, call, outcome: null, completion: null })
      Object.assign(this, { status: 'running', held: true, ranOut: false, handedOver: false, told: null })
      return true
    }
    return false
  }

  append(pieces: string[]): void {
    this.text.push(...pieces)
    this.told = (this.told ?? 0) + pieces.length
    // Whoever can still write has its lease back.
    this.ranOut = false
  }

  finish(how: string, told: boolean): void {
    if (told) this.told = 100
    const [said, retry] = how.split(' ')
    if (said !== 'retry') this.#end(said!, said!)
    else if (this.cancelRequested) this.#end('cancelled', 'cancelled')
    else if (retry !== 'elsewhere' && this.attempt === maxAttempts) this.#end('failed', 'failed')
    else {
      this.#close(retry === 'elsewhere' ? 'handed_over' : 'retry')
      Object.assign(this, { status: 'queued', held: false, available: retry !== 'later' })
      this.handedOver = retry === 'elsewhere'
    }
  }

  cancel(): void {
    if (!open(this.status)) return
    if (!this.held || this.ranOut) this.#end('cancelled', 'lost')
    else this.cancelRequested = true
  }

  reap(): void {
    if (!this.held || !this.ranOut) return
    if (this.cancelRequested) this.#end('cancelled', 'lost')
    else if (this.attempt === maxAttempts) this.#end('failed', 'lost')
    else {
      this.#close('lost')
      Object.assign(this, { status: 'queued', held: false, available: true, handedOver: false })
    }
  }

  get usage() {
    const told = this.calls.flatMap(({ completion }) => completion ?? [])
    if (told.length === 0) return null
    return { calls: told.length, completion: told.reduce((sum, tokens) => sum + tokens) }
  }
}

const usageOf = (completion_tokens: number) => ({ prompt_tokens: 10, completion_tokens, estimated: true })

async function take(step: Step, model: Model, sql: postgres.TransactionSql): Promise<void> {
  switch (step.what) {
    case 'claim': {
      const [row] = await sql`select private.claim_generation(${generation}) as lease`
      const given = model.claim()
      expect(row!.lease !== null).toBe(given)
      if (!given) return
      model.leases.push(row!.lease)
      expect(row!.lease).toMatchObject({
        attempt: model.attempt,
        next_seq: model.text.length + 1,
        partial: model.text.join(''),
      })
      return
    }
    case 'cancel':
      await sql`select private.cancel_generation(${generation})`
      return model.cancel()
    case 'reap':
      await sql`select private.reap_generations()`
      return model.reap()
    case 'lease runs out':
      await sql`
        update private.generation_leases set lease_until = clock_timestamp() - interval '1 second'
        where generation_id = ${generation} and lease_token is not null`
      model.ranOut = model.held
      return
    case 'wait':
      await sql`update private.generation_leases set available_at = clock_timestamp() where generation_id = ${generation}`
      model.available = true
      return
    default:
  }
  if (model.leases.length === 0) return
  // -1 is the newest, of whoever is at it now.
  const lease = step.lease < 0 ? model.leases.length - 1 : step.lease % model.leases.length
  const { attempt, lease_token } = model.leases[lease]!
  if (step.what === 'append') {
    const pieces = Array.from({ length: step.pieces }, (_, index) => `${attempt}.${model.text.length + index + 1} `)
    const chunks = pieces.map((text, index) => ({ seq: model.text.length + index + 1, text }))
    const usage = usageOf((model.told ?? 0) + pieces.length)
    const batch = sql.json([{ generation_id: generation, attempt, lease_token, chunks, usage }])
    const [row] = await sql`select private.append_chunks(${batch}) as answers`
    const [answer] = row!.answers
    expect(answer.lease_lost).toBe(!model.owns(lease))
    if (!model.owns(lease)) return
    model.append(pieces)
    expect(answer).toMatchObject({ last_seq: model.text.length, cancel_requested: model.cancelRequested })
    return
  }
  const [status, retry] = step.how.split(' ')
  const outcome = sql.json({
    status: status!,
    finish_reason: retry === 'elsewhere' ? 'handed_over' : 'stop',
    retry_after_seconds: retry === 'later' ? 60 : 0,
    ...(step.told && { usage: usageOf(100) }),
  })
  const [row] = await sql`
    select private.finish_generation(${generation}, ${attempt}, ${lease_token}, ${outcome}) as answer`
  const owned = model.owns(lease)
  if (owned) model.finish(step.how, step.told)
  expect(row!.answer.status).toBe(owned ? model.status : 'lost_lease')
}

async function expectAgreement(model: Model, sql: postgres.TransactionSql): Promise<void> {
  const [row] = await sql`
    select g.status, g.attempt, g.usage, m.status as message, m.content, j.status as job,
      (select count(*)::int from private.generation_leases as l where l.generation_id = g.id) as leases,
      (select count(*)::int from private.job_work as w where w.job_id = g.job_id) as work,
      (select coalesce(string_agg(c.text, '' order by c.seq), '') from public.generation_chunks as c
        where c.generation_id = g.id and c.attempt = g.attempt) as text,
      (select coalesce(jsonb_agg(jsonb_build_object(
          'attempt', a.attempt, 'call', a.call, 'outcome', a.outcome,
          'completion', case when a.outcome is not null then a.usage -> 'completion_tokens' end
        ) order by a.attempt, a.call), '[]')
        from private.generation_attempts as a where a.generation_id = g.id) as calls
    from public.generations as g
    join public.messages as m on m.id = g.message_id
    join public.jobs as j on j.id = g.job_id
    where g.id = ${generation}`
  const { status, attempt, calls } = model
  const text = model.text.join('')
  const ended = !open(status)
  expect(row).toMatchObject({
    status,
    attempt,
    text,
    message: ended ? status : 'pending',
    content: ended ? text : '',
    job: ended ? status : { queued: 'waiting', running: 'active' }[status],
    leases: ended ? 0 : 1,
    work: ended ? 0 : 1,
    calls,
  })
  expect(calls.filter(({ outcome }) => outcome === 'completed').length).toBe(status === 'completed' ? 1 : 0)
  if (!ended) return
  const { usage } = model
  expect(row!.usage).toEqual(
    usage && {
      prompt_tokens: 10 * usage.calls,
      completion_tokens: usage.completion,
      cached_tokens: 0,
      estimated: true,
    },
  )
}

it('a generation is in the state that a model of it says, whoever calls what in which order', async () => {
  const lease = fc.oneof({ weight: 3, arbitrary: fc.constant(-1) }, { weight: 1, arbitrary: fc.nat(5) })
  const how = fc.constantFrom('completed', 'failed', 'cancelled', 'retry now', 'retry later', 'retry elsewhere')
  const step: fc.Arbitrary<Step> = fc.oneof(
    { weight: 4, arbitrary: fc.constant<Step>({ what: 'claim' }) },
    {
      weight: 4,
      arbitrary: fc.record({ what: fc.constant('append' as const), lease, pieces: fc.integer({ min: 1, max: 3 }) }),
    },
    { weight: 3, arbitrary: fc.record({ what: fc.constant('finish' as const), lease, how, told: fc.boolean() }) },
    { weight: 1, arbitrary: fc.constantFrom<Step>({ what: 'cancel' }, { what: 'wait' }) },
    { weight: 3, arbitrary: fc.constantFrom<Step>({ what: 'lease runs out' }, { what: 'reap' }) },
  )
  const reached = new Set<string>()

  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 4, maxLength: 24 }), async (steps) => {
      await arena.sql
        .begin(async (sql) => {
          await sql`select set_config('request.jwt.claims', ${JSON.stringify({ sub: person, role: 'authenticated' })}, true)`
          const model = new Model()
          for (const step of steps) {
            await take(step, model, sql)
            await expectAgreement(model, sql)
          }
          reached.add(model.status)
          for (const { outcome } of model.calls) reached.add(`call ${outcome}`)
          throw new Error('undo')
        })
        .catch((error) => {
          if (error.message !== 'undo') throw error
        })
    }),
    { numRuns: 150 },
  )

  expect([...reached]).toEqual(
    expect.arrayContaining([
      'completed',
      'failed',
      'cancelled',
      'queued',
      'running',
      'call lost',
      'call handed_over',
      'call retry',
    ]),
  )
}, 60_000)

it('a retry waits as long as the provider asks for, an hour at most, and by the schedule of jobs without a word', async () => {
  const asked = fc.option(fc.double({ min: 0, max: 10_000, noNaN: true }), { nil: null })

  await fc.assert(
    fc.asyncProperty(asked, fc.integer({ min: 1, max: 2 }), async (retry_after_seconds, attempts) => {
      await arena.sql
        .begin(async (sql) => {
          await sql`update private.generation_leases set attempt = ${attempts - 1} where generation_id = ${generation}`
          const [claimed] = await sql`select private.claim_generation(${generation}) as lease`
          const { attempt, lease_token } = claimed!.lease
          const outcome = sql.json({ status: 'retry', retry_after_seconds })
          await sql`select private.finish_generation(${generation}, ${attempt}, ${lease_token}, ${outcome})`

          const [wait] = await sql`
            select extract(epoch from l.available_at - clock_timestamp())::float8 as seconds,
              extract(epoch from w.due_at - l.available_at)::float8 as alarm
            from private.generation_leases as l
            join public.generations as g on g.id = l.generation_id join private.job_work as w on w.job_id = g.job_id
            where l.generation_id = ${generation}`
          const own = 2 ** (attempts - 1)
          const [least, most] =
            retry_after_seconds === null ? [own / 2, own] : Array(2).fill(Math.min(retry_after_seconds, 3600))
          expect(wait!.seconds).toBeGreaterThan(least - 1)
          expect(wait!.seconds).toBeLessThanOrEqual(most)
          // The alarm rings when the lease may be had, not before it.
          if (most > 0.001) expect(wait!.alarm).toBeGreaterThanOrEqual(0)
          throw new Error('undo')
        })
        .catch((error) => {
          if (error.message !== 'undo') throw error
        })
    }),
    { numRuns: 60 },
  )
})
