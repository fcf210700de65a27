import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { type Arena, openArena, refusal, type Session } from './support/races.ts'

/** Caps hold however many ask at once, and what was held is always settled. In a database that no worker serves. */
let arena: Arena
beforeAll(async () => {
  arena = await openArena('races_entitlements')
  // A millionth of a dollar for each token: what an answer costs is what it uses.
  await arena.sql`update public.ai_models set is_default = false where is_default`
  await arena.sql`
    insert into public.ai_models (id, display_name, context_window, max_output, is_default)
    values ('coin', 'Coin', 8000, 1024, true)`
  await arena.sql`
    insert into private.ai_routes (model, provider, provider_model, prompt_price, completion_price)
    values ('coin', 'openai', 'coin', 1000000, 1000000)`
})
afterAll(() => arena?.close())

const sessions = (count: number) => Promise.all(Array.from({ length: count }, () => arena.session()))
const unlimited = [
  'max_model_tier',
  'requests_per_minute',
  'requests_per_day',
  'tokens_per_month',
  'micro_usd_per_month',
  'concurrent_generations',
]

/** Gives a person one limit and no other. */
const allow = (person: string, limit: string, value: number) =>
  arena.sql`
    insert into private.plan_overrides ${arena.sql({
      user_id: person,
      [limit]: value,
      unlimited: unlimited.filter((name) => name !== limit),
    })} on conflict (user_id) do update set ${arena.sql({ [limit]: value, unlimited: unlimited.filter((name) => name !== limit) })}`

const createCharacter = (session: Session, person: string) =>
  session.call<string>(person, `insert into public.characters (name, age) values ('Ada', 36) returning id`)
const startTalk = (session: Session, person: string, character: string) =>
  session.call<string>(person, 'select id from public.start_conversation($1)', [character])

/** Conversations of somebody with a character of theirs, answered by a model whose tokens cost a millionth each. */
async function talks(person: string, count: number): Promise<string[]> {
  const session = await arena.session()
  const character = await createCharacter(session, person)
  const made: string[] = []
  for (let n = 0; n < count; n++) made.push(await startTalk(session, person, character))
  return made
}

interface Sent {
  generation: { id: string }
}
const send = (session: Session, person: string, conversation: string) =>
  session.call<Sent>(person, `select public.send_message($1, 'Hi')`, [conversation])
/** What chat/complete and the OpenAI-compatible routes call, with a model or a character. */
const begin = (
  session: Session,
  person: string,
  tokens: number,
  request: object = { kind: 'complete', model: 'coin' },
) =>
  session.call<{ completion_id: string }>('service_role', 'select service.begin_completion($1, $2)', [
    person,
    { prompt_tokens: tokens - 1, max_tokens: 1, ...request },
  ])
/** What they call with a character where the conversation is kept. */
const talk = (session: Session, person: string, character_id: string, conversation_id?: string) =>
  session.call<Sent>('service_role', 'select service.talk_to_character($1, $2)', [
    person,
    { character_id, content: 'Hi', idempotency_key: randomUUID(), ...(conversation_id && { conversation_id }) },
  ])
const finish = (session: Session, completion: string, outcome = 'completed') =>
  session.call('service_role', 'select service.finish_completion($1, $2)', [completion, { outcome }])
const report = (session: Session, completion: string, prompt: number, answer: number) =>
  session.call('service_role', 'select service.report_call($1)', [
    {
      completion_id: completion,
      route_id: null,
      usage: { prompt_tokens: prompt, completion_tokens: answer, cached_tokens: 0, estimated: false },
    },
  ])

/** Holds what everybody who asks for an answer of this person has to lock, until the session commits. */
async function gate(person: string, session: Session): Promise<Session> {
  await session.begin('postgres')
  await session.value('select id from private.owners where user_id = $1 for update', [person])
  return session
}

const holds = async (person: string) => {
  const rows = await arena.sql`
    select h.* from private.usage_holds as h join private.owners as o on o.id = h.owner_id where o.user_id = ${person}`
  return rows
}
const drift = (person: string) => arena.sql`select * from admin.usage_drift where user_id = ${person}`

describe('a hundred requests at once against a cap that allows ten', () => {
  const crowd = 50
  // One more than the crowd, and no others: a server has few connections.
  let callers: Session[]
  let keeper: Session
  beforeAll(async () => {
    ;[keeper, ...callers] = (await sessions(crowd + 1)) as [Session, ...Session[]]
  })
  afterAll(() => arena.endSessions())

  it.each([
    { limit: 'requests_per_day', code: 'requests_per_day_exceeded', cap: () => 10 },
    { limit: 'tokens_per_month', code: 'tokens_per_month_exceeded', cap: (one: number) => 11 * one - 1 },
    { limit: 'micro_usd_per_month', code: 'budget_per_month_exceeded', cap: (one: number) => 11 * one - 1 },
    { limit: 'concurrent_generations', code: 'too_many_generations', cap: () => 10 },
  ])('let ten pass of $limit, whichever way they come', async ({ limit, code, cap }) => {
    const person = await arena.person()
    const character = await createCharacter(keeper, person)
    const conversations: string[] = []
    for (let n = 0; n <= crowd; n++) conversations.push(await startTalk(keeper, person, character))
    // What one answer holds, so that each request is as large as the others; it is over before the race.
    const { generation } = await send(keeper, person, conversations.pop()!)
    const one = Number((await holds(person))[0]!.tokens)
    await keeper.call(person, 'select public.cancel_generation($1)', [generation.id])
    expect(await holds(person)).toEqual([])
    await arena.sql`update public.usage_daily set requests = 0 where user_id = ${person}`
    await allow(person, limit, cap(one))
    const held = await gate(person, keeper)

    const told: string[] = []
    const kind = 'openai'
    // Each of the two rounds of the crowd comes all five ways, and no conversation is asked twice.
    const ways: ((session: Session, index: number) => Promise<unknown>)[] = [
      (session, index) => send(session, person, conversations[index]!),
      (session) => begin(session, person, one, { kind, model: 'coin' }),
      (session) => begin(session, person, one, { kind, character_id: character }),
      (session) => talk(session, person, character),
      (session, index) => talk(session, person, character, conversations[index]!),
    ]
    const ask = async (session: Session, index: number, way: number) =>
      told.push(await refusal(ways[way % ways.length]!(session, index).then(() => Promise.reject({ code: 'passed' }))))
    const race = callers.map(async (session, index) => {
      await ask(session, index, index)
      await ask(session, index, index + 2)
    })
    await arena.blocked(...callers)
    await held.commit()
    await Promise.all(race)

    expect(told).toHaveLength(2 * crowd)
    expect(told.filter((what) => what === 'passed')).toHaveLength(10)
    expect(new Set(told)).toEqual(new Set(['passed', code]))
    expect(await holds(person)).toHaveLength(10)
  })

  it('let ten tokens be taken of a bucket of ten', async () => {
    const key = `race user:${randomUUID()}`
    const take = (session: Session) =>
      session.call<boolean>(
        'postgres',
        `select (private.take_token($1, 10, 0.001, at => '2026-11-24T12:00:00Z')).allowed`,
        [key],
      )
    await keeper.begin('postgres')
    await keeper.value(
      `insert into private.rate_buckets (key, full_at) values ($1, '2026-11-24T11:00:00Z') returning key`,
      [key],
    )

    const race = callers.map(async (session) => [await take(session), await take(session)])
    await arena.blocked(...callers)
    await keeper.commit()

    const allowed = (await Promise.all(race)).flat()
    expect(allowed).toHaveLength(2 * crowd)
    expect(allowed.filter(Boolean)).toHaveLength(10)
  })

  it('count one after the other at midnight, where each has a day and a month of its own', async () => {
    const person = await arena.person()
    await allow(person, 'concurrent_generations', 1)
    const ten = callers.slice(0, 10)
    const held = await gate(person, keeper)

    const told = ten.map((session, index) =>
      refusal(
        session
          .call('postgres', `select private.hold_usage($1, 'coin', 1, 1, completion_id => $2, at => $3)`, [
            person,
            randomUUID(),
            index % 2 ? '2026-11-30T23:59:59.999Z' : '2026-12-01T00:00:00.000Z',
          ])
          .then(() => Promise.reject({ code: 'passed' })),
      ),
    )
    await arena.blocked(...ten)
    await held.commit()

    expect((await Promise.all(told)).filter((what) => what === 'passed')).toHaveLength(1)
  })

  it('let as many characters be made as the plan allows', async () => {
    const person = await arena.person()
    await allow(person, 'max_characters', 3)
    const ten = callers.slice(0, 10)
    const held = await gate(person, keeper)

    const told = ten.map((session) =>
      refusal(
        session
          .call(person, `insert into public.characters (name, age) values ('Ada', 36) returning id`)
          .then(() => Promise.reject({ code: 'made' })),
      ),
    )
    await arena.blocked(...ten)
    await held.commit()

    expect((await Promise.all(told)).toSorted()).toEqual([
      ...Array(3).fill('made'),
      ...Array(7).fill('too_many_characters'),
    ])
  })
})

describe('what is held', () => {
  afterEach(() => arena.endSessions())

  const ended = (generation: string, outcome: object = { status: 'completed' }) =>
    [
      'select service.finish_generation($1, $2, $3, $4)',
      async (session: Session) => {
        const lease = await session.call<{ attempt: number; lease_token: string }>(
          'service_role',
          'select service.claim_generation($1)',
          [generation],
        )
        return [generation, lease.attempt, lease.lease_token, outcome] as const
      },
    ] as const

  it('is there again when the session that ended the answer died before its commit, and is settled by the reaper', async () => {
    const person = await arena.person()
    const [conversation] = await talks(person, 1)
    const [asking, dying] = (await sessions(2)) as [Session, Session]
    const { generation } = await send(asking, person, conversation!)
    const [statement, values] = ended(generation.id)
    const given = await values(asking)
    await asking.call('service_role', 'select service.append_chunks($1)', [
      [
        {
          generation_id: generation.id,
          attempt: given[1],
          lease_token: given[2],
          chunks: [{ seq: 1, text: 'Hello' }],
          usage: { prompt_tokens: 40, completion_tokens: 2, cached_tokens: 0, estimated: true },
        },
      ],
    ])
    await dying.begin('service_role')
    await dying.value(statement, [...given])

    await arena.sql`select pg_terminate_backend(${dying.pid})`
    await expect.poll(() => holds(person)).toHaveLength(1)
    await arena.sql`update public.generations set max_attempts = 1 where id = ${generation.id}`
    // Without the reaper's skipping the dying session's locks this waits for them; they are gone in a moment.
    await expect
      .poll(async () => {
        await arena.sql`select private.reap_generations(now() + interval '1 minute')`
        return holds(person)
      })
      .toHaveLength(0)

    const receipts = await asking.call(
      'postgres',
      'select jsonb_agg(r) from public.usage_receipts as r where generation_id = $1',
      [generation.id],
    )
    expect(receipts).toMatchObject([{ prompt_tokens: 40, completion_tokens: 2, estimated: true, kind: 'answer' }])
    expect(await drift(person)).toEqual([])
  })

  it('of a completion that was lost with its function counts as used, as nobody can say what it used', async () => {
    const person = await arena.person()
    const session = await arena.session()
    const lost = await begin(session, person, 300)
    const told = await begin(session, person, 300)
    await report(session, told.completion_id, 7, 5)

    await arena.sql`select private.end_lost_completions(now() + interval '29 minutes')`
    expect(await holds(person)).toHaveLength(2)
    await arena.sql`select private.end_lost_completions(now() + interval '31 minutes')`

    expect(await holds(person)).toEqual([])
    const receipts = await arena.sql`
      select prompt_tokens::int, completion_tokens::int, estimated from public.usage_receipts
      where completion_id in (${lost.completion_id}, ${told.completion_id}) order by prompt_tokens`
    expect(receipts).toEqual([
      { prompt_tokens: 7, completion_tokens: 5, estimated: false },
      { prompt_tokens: 299, completion_tokens: 1, estimated: true },
    ])
    expect(await drift(person)).toEqual([])
  })

  it('is settled when the conversation goes before the answer has ended', async () => {
    const person = await arena.person()
    const [conversation] = await talks(person, 1)
    const session = await arena.session()
    await send(session, person, conversation!)

    await arena.sql`delete from public.conversations where id = ${conversation!}`

    expect(await holds(person)).toEqual([])
    expect(await drift(person)).toEqual([])
  })

  it('is settled when the account is deleted while the answer ends, whichever comes first', async () => {
    for (const first of ['answer', 'account']) {
      const person = await arena.person()
      const [conversation] = await talks(person, 1)
      const [asking, one, two] = (await sessions(3)) as [Session, Session, Session]
      const { generation } = await send(asking, person, conversation!)
      const [statement, values] = ended(generation.id)
      const given = await values(asking)
      const end = (session: Session) => session.value(statement, [...given])
      const remove = (session: Session) => session.value('select service.begin_account_deletion($1)', [person])
      const [before, after] = first === 'answer' ? [end, remove] : [remove, end]

      await one.begin('service_role')
      await before(one)
      await two.begin('service_role')
      const waiting = after(two)
      await arena.blocked(two)
      await one.commit()
      await waiting
      await two.commit()

      const [left] = await arena.sql`
        select count(*)::int as holds from private.usage_holds where generation_id = ${generation.id}`
      expect(left!.holds).toBe(0)
    }
  })

  it('is left for the next time by a reaper that would have to wait, which keeps no other answer from ending', async () => {
    const [busy, free] = [await arena.person(), await arena.person()]
    const [[theirs], [others]] = [await talks(busy, 1), await talks(free, 1)]
    const session = await arena.session()
    await send(session, busy, theirs!)
    await send(session, free, others!)
    const held = await gate(busy, await arena.session())

    await arena.sql`select private.reap_generations(now() + interval '11 minutes')`

    expect([(await holds(busy)).length, (await holds(free)).length]).toEqual([1, 0])
    await held.commit()
    await arena.sql`select private.reap_generations(now() + interval '11 minutes')`
    expect(await holds(busy)).toEqual([])
  })
})

describe('for any series of requests', () => {
  afterEach(() => arena.endSessions())

  type Step =
    | { kind: 'begin'; tokens: number; at: string }
    | { kind: 'raise'; which: number; tokens: number }
    | { kind: 'settle'; which: number; share: number }
    | { kind: 'fail'; which: number }
    | { kind: 'lose'; which: number }
  const times = ['2026-11-30T12:00:00Z', '2026-11-30T23:59:59.999Z', '2026-12-01T00:00:00Z', '2026-12-31T23:00:00Z']
  const which = fc.nat({ max: 30 })
  const step: fc.Arbitrary<Step> = fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        kind: fc.constant('begin' as const),
        tokens: fc.integer({ min: 2, max: 400 }),
        at: fc.constantFrom(...times),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({ kind: fc.constant('raise' as const), which, tokens: fc.integer({ min: 1, max: 900 }) }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constant('settle' as const),
        which,
        share: fc.double({ min: 0, max: 1, noNaN: true }),
      }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('fail' as const), which }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('lose' as const), which }) },
  )
  const caps = { requests_per_day: 12, tokens_per_month: 1500, micro_usd_per_month: 1200, concurrent_generations: 4 }

  /** One step of one person, as the private functions do it; refusals are part of the game. */
  async function play(session: Session, person: string, completions: string[], step: Step): Promise<void> {
    const chosen = 'which' in step ? completions[step.which % Math.max(1, completions.length)] : undefined
    if ('which' in step && !chosen) return
    const run: Record<Step['kind'], () => Promise<unknown>> = {
      async begin() {
        const { tokens, at } = step as Extract<Step, { kind: 'begin' }>
        const id = await session.call<string>(
          'postgres',
          `with begun as (insert into private.completions (user_id, kind, model_id) values ($1, 'complete', 'coin') returning id),
             held as (select b.id, private.hold_usage($1, 'coin', $2, 1, completion_id => b.id, at => $3) from begun as b)
           select id from held`,
          [person, tokens - 1, at],
        )
        completions.push(id)
      },
      raise: () =>
        session.call('service_role', 'select service.raise_hold($1, $2, $2)', [
          chosen,
          (step as { tokens: number }).tokens,
        ]),
      async settle() {
        const [hold] = await session.sql`select tokens::int from private.usage_holds where completion_id = ${chosen!}`
        const used = Math.floor((hold?.tokens ?? 0) * (step as { share: number }).share)
        if (hold) await report(session, chosen!, used, 0)
        await finish(session, chosen!)
      },
      fail: () => finish(session, chosen!, 'failed'),
      lose: () =>
        session.call(
          'postgres',
          `with lost as (
             update private.completions set outcome = 'lost', finished_at = now() where id = $1 and finished_at is null returning id
           ) select private.settle_completion(id, 'complete', true) from lost`,
          [chosen],
        ),
    }
    const told = await refusal(run[step.kind]().then(() => Promise.reject({ code: 'done' })))
    expect([
      'done',
      'requests_per_day_exceeded',
      'tokens_per_month_exceeded',
      'budget_per_month_exceeded',
      'too_many_generations',
    ]).toContain(told)
  }

  /** The counters are the sums of receipts and open holds, and never more than the caps. */
  async function expectBooks(person: string): Promise<void> {
    expect(await drift(person)).toEqual([])
    const [most] = await arena.sql`
      select
        coalesce(max(p.prompt_tokens + p.completion_tokens + p.held_tokens), 0)::int as tokens_per_month,
        coalesce(max(p.cost_micro_usd + p.held_micro_usd), 0)::int as micro_usd_per_month,
        coalesce((select max(d.requests) from public.usage_daily as d where d.user_id = ${person}), 0)::int as requests_per_day,
        (select count(*) from private.usage_holds as h join private.owners as o on o.id = h.owner_id where o.user_id = ${person})::int
          as concurrent_generations
      from public.usage_periods as p where p.user_id = ${person}`
    for (const [limit, cap] of Object.entries(caps)) expect(most![limit]).toBeLessThanOrEqual(cap)
  }

  const cappedPerson = async () => {
    const person = await arena.person()
    await arena.sql`
      insert into private.plan_overrides ${arena.sql({ user_id: person, ...caps })}`
    return person
  }

  it('counters are the sums of receipts and open holds and never exceed a cap, after every step', async () => {
    const session = await arena.session()
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 25 }), async (steps) => {
        const person = await cappedPerson()
        const completions: string[] = []
        for (const one of steps) {
          await play(session, person, completions, one)
          await expectBooks(person)
        }
      }),
      { numRuns: 12 },
    )
  })

  it('and when four people’s hands do them at once', async () => {
    const hands = await sessions(4)
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 20, maxLength: 60 }), async (steps) => {
        const person = await cappedPerson()
        const completions: string[] = []
        await Promise.all(
          hands.map(async (session, hand) => {
            for (const [index, one] of steps.entries())
              if (index % hands.length === hand) await play(session, person, completions, one)
          }),
        )
        await expectBooks(person)
      }),
      { numRuns: 6 },
    )
  })
})
