import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import OpenAI from 'openai'
import type postgres from 'postgres'
import { beforeAll, describe, expect, it } from 'vitest'
import { shared, until } from './local/fixtures/processes.ts'
import {
  addModel,
  attach,
  marker,
  modelRequests,
  named,
  readAll,
  releaseModel,
  type StreamEvent,
  shown,
  signUpAt,
  startTalk,
  type Talk,
} from './support/chat.ts'
import {
  asking,
  type Child,
  freeze,
  halfAMinutePasses,
  hold,
  kill,
  readAfresh,
  rollBack,
  waiting,
} from './support/crash.ts'
import { invite } from './support/follow.ts'
import type { Person } from './support/local.ts'

/**
 * The process that writes an answer is killed at each point of its way. Points are reached from outside: a model that
 * keeps silent until it is released, or a lock that the test holds.
 */
const own = shared({ project: resolve('.') })
let owner: Person
let guest: Person
beforeAll(async () => {
  const stack = own.running.stack()
  ;[owner, guest] = await Promise.all([signUpAt(stack), signUpAt(stack)])
  await guest.client.realtime.setAuth(guest.token)
})

interface Heard {
  event: string
  // biome-ignore lint/suspicious/noExplicitAny: payloads differ by event, and tests assert what they hold.
  payload: any
}

/** A question that somebody asks and reads the answer of, while a guest watches over Realtime. */
interface Scene {
  sql: postgres.Sql
  talk: Talk
  said: string
  all: StreamEvent[]
  done: Promise<unknown>
  heard: Heard[]
}

async function watched(model: string) {
  const sql = own.running.sql()
  const talk = await startTalk({ person: owner, model, sql })
  // A millionth of a dollar for each token: what an attempt cost is what it used.
  await sql`update private.ai_routes set prompt_price = 1000000, completion_price = 1000000 where model = ${model}`
  await invite(talk, guest)
  const watch = await guest.client.rpc('watch_conversation', { conversation_id: talk.conversationId })
  if (watch.error) throw watch.error
  const { topic } = watch.data as unknown as { topic: string }
  const heard: Heard[] = []
  const channel = guest.client
    .channel(topic, { config: { private: true } })
    .on('broadcast', { event: '*' }, ({ event, payload }) => heard.push({ event, payload }))
  await new Promise((joined) => channel.subscribe((status) => status === 'SUBSCRIBED' && joined(null)))
  return { sql, talk, heard }
}

async function ask(model: string, run: string): Promise<Scene> {
  const { sql, talk, heard } = await watched(model)
  const said = marker()
  return { sql, talk, said, heard, ...asking(talk, said, run, own.running.stack()) }
}

const stalled = ({ said }: Scene, times: number) =>
  until(async () => {
    const requests = await modelRequests(said, own.running.stack())
    return requests.length === times && requests[0]!.state === 'stalled'
  })
const release = ({ said }: Scene) =>
  until(async () => (await (await releaseModel(said, own.running.stack())).json()).released > 0)
const seen = ({ all, heard }: Scene) =>
  until(() => shown(all) !== '' && heard.some(({ event }) => event === 'generation.delta'))

/** The prompt is with the provider, and will be paid for. */
const metered = ({ sql, talk }: Pick<Scene, 'sql' | 'talk'>) =>
  until(async () => {
    const [attempt] = await sql`
      select a.usage from private.generation_attempts as a join public.generations as g on g.id = a.generation_id
      where g.conversation_id = ${talk.conversationId}`
    return attempt?.usage
  })

/** Lets the model speak on, and holds the transaction that ends the answer just before its commit. */
async function holdEnd(scene: Scene) {
  await stalled(scene, 1)
  await seen(scene)
  const letGo = await hold(
    own.running,
    `select from public.messages where conversation_id = $1 and status = 'pending' for update`,
    [scene.talk.conversationId],
  )
  await release(scene)
  return { letGo, end: await waiting(scene.sql, 'finish_generation') }
}

/** The way of an answer to the point at which its runner is killed, and what has to be done for it to come to an end. */
const points: Record<string, { attempts: string[]; crash(child: Child, run: string): Promise<Scene> }> = {
  'before the claim': {
    attempts: ['completed'],
    async crash(child, run) {
      const letGo = await hold(own.running, 'lock table private.generation_attempts in share mode')
      const scene = await ask('sandbox-small', run)
      const claim = await waiting(scene.sql, 'claim_generation')
      await kill(own.running, child)
      await rollBack(scene.sql, claim)
      await letGo()
      await halfAMinutePasses(scene.sql)
      return scene
    },
  },
  'before the first token': {
    attempts: ['lost', 'completed'],
    async crash(child, run) {
      const scene = await ask('sandbox/stall-before', run)
      await stalled(scene, 1)
      await metered(scene)
      await kill(own.running, child)
      await halfAMinutePasses(scene.sql)
      await stalled(scene, 2)
      await release(scene)
      return scene
    },
  },
  'in the middle': {
    attempts: ['lost', 'completed'],
    async crash(child, run) {
      const scene = await ask('sandbox/stall', run)
      await stalled(scene, 1)
      await seen(scene)
      await kill(own.running, child)
      await halfAMinutePasses(scene.sql)
      await stalled(scene, 2)
      await release(scene)
      return scene
    },
  },
  'after the last token, before the commit': {
    attempts: ['lost', 'completed'],
    async crash(child, run) {
      const scene = await ask('sandbox/stall', run)
      const { letGo, end } = await holdEnd(scene)
      await kill(own.running, child)
      await rollBack(scene.sql, end)
      await letGo()
      await halfAMinutePasses(scene.sql)
      await stalled(scene, 2)
      await release(scene)
      return scene
    },
  },
  'after the commit, before it hears of it': {
    attempts: ['completed'],
    async crash(child, run) {
      const scene = await ask('sandbox/stall', run)
      const { letGo } = await holdEnd(scene)
      freeze(own.running, child)
      await letGo()
      await until(() => scene.heard.some(({ event }) => event === 'generation.completed'))
      await kill(own.running, child)
      await halfAMinutePasses(scene.sql)
      return scene
    },
  },
}

/** Each chunk of each attempt once and in order, one end, and the text of the last attempt is the message. */
function expectStream({ all }: Scene, content: string, attempts: number): void {
  const deltas = all.filter(({ event }) => event === 'generation.delta')
  for (let attempt = 1; attempt <= attempts; attempt += 1) {
    const seqs = deltas.filter(({ data }) => data.attempt === attempt).map(({ data }) => data.seq)
    expect(seqs).toEqual(seqs.map((_, index) => index + 1))
  }
  expect(shown(all)).toBe(content)
  const ends = all.filter(({ event }) => /completed|cancelled|failed/.test(event ?? ''))
  expect(ends.map(({ event }) => event)).toEqual(['generation.completed'])
  const said = deltas.some(({ data }) => data.attempt === 1)
  const resets = all.flatMap(({ event, data }) => (event === 'generation.reset' ? [data.attempt] : []))
  expect(resets).toEqual(attempts > 1 && said ? [2] : [])
}

/** The same over Realtime: each state once, each delta the next piece of its attempt, and the message at the end. */
async function expectBroadcasts({ heard }: Scene, content: string, attempts: number): Promise<void> {
  await until(() => heard.some(({ event }) => event === 'generation.completed'))
  const states = heard.filter(({ event }) => event !== 'generation.delta')
  const again = attempts > 1 ? ['generation.reset 2', 'generation.processing 2'] : []
  expect(states.map(({ event, payload }) => `${event} ${payload.attempt ?? ''}`.trim())).toEqual([
    'message.created',
    'generation.processing 1',
    ...again,
    'generation.completed',
  ])
  expect(states.at(-1)!.payload.message.content).toBe(content)
  let place = { attempt: 0, seq: 0 }
  let text = ''
  for (const { event, payload } of heard) {
    if (event !== 'generation.delta') continue
    if (payload.attempt !== place.attempt) text = ''
    expect(payload.first_seq).toBe(payload.attempt === place.attempt ? place.seq + 1 : 1)
    place = payload
    text += payload.text
  }
  if (place.attempt === attempts) expect(content.startsWith(text)).toBe(true)
}

describe.each<[Child, string]>([
  ['functions', 'inline'],
  ['worker', 'queued'],
])('the %s killed', (child, run) => {
  it.each(Object.entries(points))(
    '%s: one answer, one charge, and everybody is told the same',
    async (_, { attempts, crash }) => {
      const scene = await crash(child, run)
      await scene.done
      const { sql, talk, said } = scene
      const stack = own.running.stack()

      const { messages, generations, jobs } = await readAfresh(talk, stack)
      const content: string = messages[2].content
      expect(messages).toEqual([
        { role: 'assistant', content: 'Hello, you.', status: 'completed' },
        { role: 'user', content: said, status: 'completed' },
        { role: 'assistant', content: expect.stringContaining(said), status: 'completed' },
      ])
      expect(generations).toMatchObject([{ status: 'completed', attempt: attempts.length }])
      const [{ id, usage }] = generations
      expect(jobs).toMatchObject([{ status: 'completed', result: { generation_id: id } }])

      expectStream(scene, content, attempts.length)
      await expectBroadcasts(scene, content, attempts.length)
      const late = await readAll(await attach(guest, id, undefined, `${stack.url}/functions/v1`))
      expect(late.map(({ event }) => event)).toEqual([
        'generation.connected',
        'generation.snapshot',
        'generation.completed',
        undefined,
      ])
      expect(shown(late)).toBe(content)

      // One charge: the sum of the attempts, of which one was completed, at the provider's own figure.
      const calls = await sql`
        select outcome, usage, route_id is not null as has_route, cost_micro_usd::int as cost
        from private.generation_attempts where generation_id = ${id} order by attempt, call`
      expect(calls.map(({ outcome }) => outcome)).toEqual(attempts)
      const sum = (what: string) => calls.reduce((total, call) => total + call.usage[what], 0)
      expect(usage).toEqual({
        prompt_tokens: sum('prompt_tokens'),
        completion_tokens: sum('completion_tokens'),
        cached_tokens: 0,
        estimated: calls.some((call) => call.usage.estimated),
      })
      expect(named(scene.all, 'completed')!.data.usage).toEqual(usage)
      expect(calls.at(-1)!.usage).toMatchObject({
        completion_tokens: Math.ceil(content.length / 4),
        estimated: false,
      })
      // What a provider was asked is paid for, also when nobody is left to say so.
      for (const call of calls) {
        expect(call.usage.prompt_tokens).toBeGreaterThan(20)
        const cost = call.usage.prompt_tokens + call.usage.completion_tokens
        expect(call).toMatchObject({ has_route: true, cost })
      }
      expect(await modelRequests(said, stack)).toHaveLength(calls.length)

      // Nothing is left that could begin again.
      const [left] = await sql`
        select (select count(*)::int from private.job_work) as jobs, (select count(*)::int from pgmq.q_jobs) as messages,
          (select count(*)::int from private.generation_leases) as leases`
      expect(left).toEqual({ jobs: 0, messages: 0, leases: 0 })
    },
    90_000,
  )
})

describe('a kept answer of an OpenAI client whose function is killed in the middle', () => {
  it('is finished by a worker and charged once, and the same request hears it', async () => {
    const sql = own.running.sql()
    const stack = own.running.stack()
    const talk = await startTalk({ person: owner, model: 'sandbox/stall', sql })
    const said = marker()
    const client = new OpenAI({ apiKey: owner.token, baseURL: `${stack.url}/functions/v1/openai/v1`, maxRetries: 0 })
    const ask = () =>
      client.chat.completions.create(
        { model: `character:${talk.characterId}`, messages: [{ role: 'user', content: said }], stream: true },
        { headers: { 'X-Parlor-Conversation': talk.conversationId, 'Idempotency-Key': said } },
      )
    const heard = async (stream: Awaited<ReturnType<typeof ask>>, until = (_: string) => false) => {
      let text = ''
      for await (const { choices } of stream) {
        text += choices[0]?.delta.content ?? ''
        if (until(text)) break
      }
      return text
    }
    const stalled = (times: number) =>
      until(async () => {
        const requests = await modelRequests(said, stack)
        return requests.length === times && requests[0]!.state === 'stalled'
      })
    const first = await ask()
    await stalled(1)
    await metered({ sql, talk })
    const lost = heard(first).catch((error) => error)

    await kill(own.running, 'functions')
    expect(await lost).toBeInstanceOf(Error)
    await halfAMinutePasses(sql)
    await stalled(2)
    const again = heard(await ask())
    await until(async () => (await (await releaseModel(said, stack)).json()).released > 0)

    const { messages, generations } = await readAfresh(talk, stack)
    const text = await again
    expect(text).toContain(said)
    const whole = await until(async () => {
      const now = await readAfresh(talk, stack)
      return now.generations[0].status === 'completed' ? now : null
    })
    expect([messages.length, generations.length]).toEqual([3, 1])
    expect(whole.messages[2]).toEqual({ role: 'assistant', content: text, status: 'completed' })
    const receipts = await sql`
      select r.calls, r.completion_tokens::int, r.estimated from public.usage_receipts as r
      where r.generation_id = ${generations[0].id}`
    expect(receipts).toMatchObject([{ calls: 2, estimated: true }])
    expect(await sql`select from private.usage_holds where generation_id = ${generations[0].id}`).toHaveLength(0)
  }, 60_000)
})

describe('a completion of an OpenAI client whose function is killed in the middle', () => {
  it('holds what it may have used until it counts as lost, and is then charged for all of it', async () => {
    const sql = own.running.sql()
    const stack = own.running.stack()
    const person = await signUpAt(stack)
    const said = marker()
    const client = new OpenAI({ apiKey: person.token, baseURL: `${stack.url}/functions/v1/openai/v1`, maxRetries: 0 })
    await addModel('sandbox/stall', sql)
    const stream = await client.chat.completions.create({
      model: 'sandbox/stall',
      messages: [{ role: 'user', content: said }],
      max_tokens: 100,
      stream: true,
    })
    const used = async () => {
      const { data } = await person.client.rpc('my_entitlements')
      return (data as unknown as { used: Record<string, number> }).used
    }
    const { held_tokens } = await used()
    const broken = (async () => {
      for await (const _ of stream);
    })().catch((error) => error)

    await kill(own.running, 'functions')

    expect(await broken).toBeInstanceOf(Error)
    expect(await used()).toMatchObject({ held_tokens, concurrent_generations: 1, tokens_this_month: 0 })
    await sql`select private.end_lost_completions(clock_timestamp() + interval '31 minutes')`
    expect(await used()).toMatchObject({ held_tokens: 0, concurrent_generations: 0, tokens_this_month: held_tokens })
    const { data: statement } = await person.client.rpc('my_statement')
    expect(statement).toMatchObject([{ kind: 'openai', calls: 1, completion_tokens: 100, estimated: true }])
  }, 60_000)
})

describe('the worker', () => {
  it('killed after its work is done, before the job has left the queue: the job is done again, and ends once', async () => {
    const { running } = own
    const [sql, victim] = [running.sql(), await signUpAt(running.stack())]
    await sql`update public.profiles set status = 'deleted' where id = ${victim.id}`
    const isGone = async () => (await sql`select from auth.users where id = ${victim.id}`).length === 0
    const letDelete = await hold(
      running,
      'select from auth.users where id = $1 for update',
      [victim.id],
      'supabase_admin',
    )
    const payload = sql.json({ user_id: victim.id })
    const [job] = await sql`select private.enqueue_job('erase', ${owner.id}, ${payload}) as id`
    const jobOf = async () =>
      (await owner.client.from('jobs').select('status, attempts, result').eq('id', job!.id).single()).data!
    await until(async () => (await jobOf()).status === 'active')
    const letGo = await hold(running, 'select from private.job_work where job_id = $1 for update', [job!.id])

    await letDelete()
    const end = await waiting(sql, 'finish_and_claim')
    expect(await isGone()).toBe(true)
    await kill(running, 'worker')
    await rollBack(sql, end)
    await letGo()

    expect(await jobOf()).toMatchObject({ status: 'active', attempts: 1 })
    await halfAMinutePasses(sql)
    await until(async () => (await jobOf()).status === 'completed')
    expect(await jobOf()).toEqual({ status: 'completed', attempts: 2, result: { files: 0 } })
    const left =
      await sql`select from pgmq.q_jobs union all select from pgmq.a_jobs union all select from private.job_work`
    expect(left).toHaveLength(0)
  }, 60_000)

  it('that stood still while another took its answer over changes nothing when it goes on', async () => {
    const { running } = own
    const stack = running.stack()
    const pid = running.pids().worker
    const scene = await ask('sandbox/stall', 'queued')
    const { sql, talk, said } = scene
    const written = () => sql`
      select a.generation_id, a.attempt, a.outcome, l.lease_token, l.last_seq, g.status,
        case when a.outcome is not null then to_jsonb(a) end as ended,
        (select string_agg(c.text, '' order by c.seq) from public.generation_chunks as c
          where c.generation_id = g.id and c.attempt = a.attempt) as text
      from private.generation_attempts as a
      join public.generations as g on g.id = a.generation_id
      join private.generation_leases as l on l.generation_id = g.id
      where g.conversation_id = ${talk.conversationId} order by a.attempt`
    /** The newest attempt has stored every word that the model said before its silence. */
    const stored = () =>
      until(async () => {
        const attempts = await written()
        const [request] = await modelRequests(said, stack)
        return attempts.at(-1)!.text?.match(/\S+/g).length === request!.deltas ? [...attempts] : null
      })
    await stalled(scene, 1)
    await seen(scene)
    await stored()

    // Its model says everything while it sleeps: the whole rest waits in its socket, and then it wants to end the answer.
    const thaw = freeze(running, 'worker')
    await release(scene)
    await until(async () => (await modelRequests(said, stack))[0]!.state === 'done')
    await halfAMinutePasses(sql)
    const again = asking(talk, said, 'inline', stack)
    await stalled(scene, 2)
    const before = await stored()
    expect(before.map(({ outcome }) => outcome)).toEqual(['lost', null])
    thaw()
    const log = () => readFileSync(`${running.data}/logs/worker.log`, 'utf8').split('\n')
    await until(() => log().some((line) => line.includes('generation_ran') && line.includes(before[0]!.generation_id)))

    expect([...(await written())]).toEqual(before)
    await release(scene)
    await Promise.all([scene.done, again.done])
    const { messages, generations } = await readAfresh(talk, stack)
    const content: string = messages[2].content
    expect(messages).toHaveLength(3)
    expectStream(scene, content, 2)
    await expectBroadcasts(scene, content, 2)
    const [first, second] = await sql`
      select outcome, usage, cost_micro_usd from private.generation_attempts
      where generation_id = ${generations[0].id} order by attempt`
    expect(first).toMatchObject({ outcome: 'lost', usage: before[0]!.ended.usage })
    expect(second).toMatchObject({ outcome: 'completed', usage: { estimated: false } })
    expect(generations[0].usage.completion_tokens).toBe(
      first!.usage.completion_tokens + second!.usage.completion_tokens,
    )
    const lines = log().filter((line) => line.includes('generation_ran') && line.includes(generations[0].id))
    expect(lines).toHaveLength(1)
    expect(lines[0]).toContain('lost_lease')

    // It lives, and makes the next answer.
    const next = await ask('sandbox-small', 'queued')
    await next.done
    expect(named(next.all, 'completed')).toBeDefined()
    expect(running.pids().worker).toBe(pid)
  }, 60_000)
})
