import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import type postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  attach,
  events,
  marker,
  modelRequests,
  named,
  readAll,
  type StreamEvent,
  send,
  shown,
  startTalk,
  type Talk,
} from './support/chat.ts'
import { invite } from './support/follow.ts'
import { choosePlan, database, type Person, signUp, until } from './support/local.ts'
import { type Arena, openArena, refusal } from './support/races.ts'

/** Who comes first wins, and everybody is told the same: races over HTTP, and the rules below them as properties. */

const cancel = async (person: Person, generation_id: string) =>
  (await person.client.rpc('cancel_generation', { generation_id })).data as {
    status: string
    cancel_requested: boolean
  }

const ended = (all: StreamEvent[]) => all.at(-2)!.event!.replace('generation.', '')

async function stored(generation: string) {
  const [row] = await database()`
    select g.status, m.status as message_status, m.content,
      (select count(*)::int from private.generation_attempts as a where a.generation_id = g.id and a.outcome = 'completed') as completed,
      g.usage = private.usage_of(g.id) as is_settled
    from public.generations as g join public.messages as m on m.id = g.message_id where g.id = ${generation}`
  return row!
}

async function startShared(model: string): Promise<{ talk: Talk; guest: Person }> {
  const [talk, guest] = await Promise.all([startTalk({ model }), signUp()])
  await invite(talk, guest)
  return { talk, guest }
}

const connected = async (stream: AsyncIterable<StreamEvent>): Promise<string> => {
  for await (const event of stream) if (event.event === 'generation.connected') return event.data.generation_id
  throw new Error('The stream ended before its first event.')
}

describe('a cancellation from another client', () => {
  it('B-02 B-03 meets the end of an answer at any moment, and state, message, stream and answer agree', async () => {
    const [owner, guest] = await Promise.all([signUp(), signUp()])
    await choosePlan('enterprise', owner)

    const outcomes = await Promise.all(
      Array.from({ length: 10 }, async (_, index) => {
        const talk = await startTalk({ person: owner, model: 'sandbox-small' })
        await invite(talk, guest)
        const run = index % 2 ? 'inline' : 'queued'
        const { generation, job_id } = await (
          await send(talk, { body: { run: 'queued', stream: false }, headers: { 'idempotency-key': `${index}${run}` } })
        ).json()
        const reading = readAll(await attach(owner, generation.id))
        await new Promise((resolve) => setTimeout(resolve, index * 60))
        const told = await cancel(guest, generation.id)
        const all = await reading
        const row = await stored(generation.id)

        expect(row.message_status).toBe(row.status)
        expect(ended(all)).toBe(row.status)
        expect(shown(all)).toBe(row.content)
        expect(row.completed).toBe(row.status === 'completed' ? 1 : 0)
        if (!told.cancel_requested) expect(told.status).toBe(row.status)
        const job = await owner.client.from('jobs').select('status').eq('id', job_id).single()
        expect(job.data!.status).toBe(row.status)
        return row.status
      }),
    )

    expect(outcomes).toContain('cancelled')
  }, 45_000)

  it('B-02 stops an answer whose model has fallen silent, and the request to the model with it', async () => {
    const said = marker()
    const { talk, guest } = await startShared('sandbox/stall')
    const response = await send(talk, { content: said })
    const all: StreamEvent[] = []
    let began = 0

    for await (const event of events(response)) {
      all.push(event)
      if (event.event !== 'generation.delta' || began) continue
      began = Date.now()
      expect(await cancel(guest, all[0]!.data.generation_id)).toMatchObject({ cancel_requested: true })
    }

    expect(ended(all)).toBe('cancelled')
    expect(Date.now() - began).toBeLessThan(3000)
    await until(async () => (await modelRequests(said))[0]?.closed_early)
    expect(await stored(all[0]!.data.generation_id)).toMatchObject({
      status: 'cancelled',
      content: shown(all),
      is_settled: true,
    })
  })

  it('leaves an answer that has ended as it is', async () => {
    const { talk, guest } = await startShared('sandbox-small')
    const all = await readAll(await send(talk))
    const { generation_id } = named(all, 'connected')!.data
    const before = await stored(generation_id)

    expect(await cancel(guest, generation_id)).toEqual({ generation_id, status: 'completed', cancel_requested: false })

    expect(await stored(generation_id)).toEqual(before)
  })
})

describe('senders at the same moment', () => {
  it('V-16 K-07 get one answer for one key from twenty connections, whole on each of them', async () => {
    const said = marker()
    const talk = await startTalk({ model: 'sandbox/slow-30' })
    const headers = { 'idempotency-key': randomUUID() }

    const streams = await Promise.all(
      Array.from({ length: 20 }, async () => readAll(await send(talk, { content: said, headers }))),
    )

    const messages = streams.map((all) => named(all, 'completed')!.data.message)
    expect(new Set(messages.map(({ id }) => id)).size).toBe(1)
    for (const all of streams) expect(shown(all)).toBe(messages[0].content)
    expect(await modelRequests(said)).toHaveLength(1)
    const [row] = await database()`
      select count(*)::int as calls from private.generation_attempts where generation_id = ${messages[0].generation_id}`
    expect(row!.calls).toBe(1)
  }, 30_000)

  it('are told that one of them came first when two members send at once', async () => {
    const { talk, guest } = await startShared('sandbox/slow-30')

    const both = await Promise.all([
      send(talk, { content: 'First!' }),
      send({ ...talk, person: guest }, { content: 'No, me!' }),
    ])

    expect(both.map(({ status }) => status).sort()).toEqual([200, 409])
    const [lost] = both.filter(({ status }) => status === 409)
    expect(await lost!.json()).toMatchObject({ code: 'generation_in_progress' })
    const won = await readAll(both.find(({ status }) => status === 200)!)
    expect(named(won, 'completed')!.data.message.content).toBe(shown(won))
  })
})

describe('metering', () => {
  it('B-04 shows a running estimate while the answer is written, and the provider’s figures at its end', async () => {
    const talk = await startTalk({ model: 'sandbox/slow-100' })
    const response = await send(talk)
    const generation_id = await connected(events(response))
    const usage = async () =>
      (await talk.person.client.from('generations').select('usage, status').eq('id', generation_id).single()).data!

    const running = await until(async () => {
      const now = await usage()
      return now.usage && now.status === 'running' ? now : null
    })
    const last = await readAll(await attach(talk.person, generation_id))

    expect(running.usage).toMatchObject({ estimated: true, completion_tokens: expect.any(Number) })
    const settled = named(last, 'completed')!.data.usage
    expect(settled).toMatchObject({ estimated: false })
    expect((await usage()).usage).toEqual(settled)
    expect(settled.completion_tokens).toBeGreaterThan(
      (running.usage as { completion_tokens: number }).completion_tokens,
    )
  })
})

describe('below them', () => {
  let arena: Arena
  beforeAll(async () => {
    arena = await openArena('properties')
  })
  afterAll(() => arena?.close())

  async function generation(person: string): Promise<string> {
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
    await arena.endSessions()
    return sent.generation.id
  }

  it('states of generations and messages move along their edges only, whoever writes', async () => {
    const person = await arena.person()
    const id = await generation(person)
    const edges: Record<string, string[]> = {
      queued: ['running', 'failed', 'cancelled'],
      running: ['queued', 'completed', 'failed', 'cancelled'],
    }
    const over = ['completed', 'failed', 'cancelled']
    const move = (sql: postgres.TransactionSql, status: string) =>
      refusal(
        sql.savepoint(
          (point) => point`
            update public.generations
            set status = ${status}, finished_at = ${over.includes(status) ? new Date() : null} where id = ${id}`,
        ),
      )
    const states = ['queued', 'running', ...over]

    await fc.assert(
      fc.asyncProperty(fc.array(fc.constantFrom(...states), { minLength: 1, maxLength: 6 }), async (path) => {
        await arena.sql
          .begin(async (sql) => {
            let now = 'queued'
            let message = 'pending'
            for (const next of path) {
              const allowed = next === now || (edges[now] ?? []).includes(next)
              expect(await move(sql, next)).toMatch(allowed ? /^no refusal/ : /^status_edge_forbidden$/)
              if (allowed) now = next
              const shown = over.includes(next) ? next : 'pending'
              const told = await refusal(
                sql.savepoint(
                  (point) => point`update public.messages set status = ${shown} where generation_id = ${id}`,
                ),
              )
              expect(told).toMatch(
                shown === message || message === 'pending' ? /^no refusal/ : /^status_edge_forbidden$/,
              )
              if (told.startsWith('no refusal')) message = shown
            }
            throw new Error('undo')
          })
          .catch((error) => {
            if (error.message !== 'undo') throw error
          })
      }),
      { numRuns: 60 },
    )
  })

  it('chunks are numbered without a gap, whatever is appended in whatever order and however often', async () => {
    const person = await arena.person()
    const text = (seq: number) => `<${seq}>`
    const batches = fc.array(fc.array(fc.integer({ min: 1, max: 12 }), { maxLength: 6 }), {
      minLength: 1,
      maxLength: 6,
    })
    const id = await generation(person)
    const lease = (await arena.sql`select private.claim_generation(${id}) as lease`)[0]!.lease

    await fc.assert(
      fc.asyncProperty(batches, async (appended) => {
        let last = 0
        await arena.sql
          .begin(async (sql) => {
            for (const seqs of appended) {
              const batch = [{ ...lease, chunks: seqs.map((seq) => ({ seq, text: text(seq) })) }]
              const [row] = await sql`select private.append_chunks(${sql.json(batch as never)}) as answers`
              while (seqs.includes(last + 1)) last += 1
              expect(row!.answers[0]).toMatchObject({ lease_lost: false, last_seq: last })
              const chunks =
                await sql`select seq, text from public.generation_chunks where generation_id = ${id} order by seq`
              expect([...chunks]).toEqual(
                Array.from({ length: last }, (_, at) => ({ seq: at + 1, text: text(at + 1) })),
              )
            }
            throw new Error('undo')
          })
          .catch((error) => {
            if (error.message !== 'undo') throw error
          })
      }),
      { numRuns: 60 },
    )
  })
})
