import { resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { Stack } from '../supabase/local/stack.ts'
import { type Run, madeData, serve, shared, stop, until } from './local/fixtures/processes.ts'
import {
  attach,
  events,
  marker,
  modelRequests,
  named,
  type StreamEvent,
  send,
  shown,
  signUpAt,
  startTalk,
  type Talk,
} from './support/chat.ts'
import { type Child, halfAMinutePasses, kill, sweep, sweepOften } from './support/crash.ts'

const project = resolve('.')

interface Scene {
  talk: Talk
  said: string
  /** Events until the moment of the crash. */
  seen: StreamEvent[]
}

/** An answer of which three pieces were seen. */
async function midAnswer(running: Run, model = 'sandbox/slow-60'): Promise<Scene> {
  const stack = running.stack()
  const functions = `${stack.url}/functions/v1`
  const said = marker()
  const talk = await startTalk({ person: await signUpAt(stack), model, sql: running.sql() })
  const response = await send(talk, { content: said, functions })
  const seen: StreamEvent[] = []
  for await (const event of events(response)) {
    seen.push(event)
    if (seen.filter(({ id }) => id).length === 3) break
  }
  return { talk, said, seen }
}

/** Reads on as a client does: from the last event seen, again and again, until the answer has ended. */
async function readOn({ talk, seen }: Scene, stack: Stack): Promise<StreamEvent[]> {
  const all = [...seen]
  const generationId = named(all, 'connected')!.data.generation_id
  return await until(async () => {
    const last = all.findLast(({ id }) => id)?.id
    const response = await attach(talk.person, generationId, last, `${stack.url}/functions/v1`)
    for await (const event of events(response)) all.push(event)
    return all.at(-1)?.data === '[DONE]' ? all : null
  }, 90_000)
}

/** What may be true of an answer in the end, whatever happened: it is whole, it is one, and it is what was shown. */
async function expectOneWholeAnswer(scene: Scene, all: StreamEvent[], running: Run) {
  const { message } = named(all, 'completed')!.data
  expect(message.content).toBe(shown(all))
  expect(message.content).toContain(scene.said.slice(0, 40))
  const rows = await running.sql()`
    select role, content, status from public.messages
    where conversation_id = ${scene.talk.conversationId} order by id`
  expect(rows).toEqual([
    { role: 'assistant', content: 'Hello, you.', status: 'completed' },
    { role: 'user', content: scene.said, status: 'completed' },
    { role: 'assistant', content: message.content, status: 'completed' },
  ])
  const [generation] = await running.sql()`
    select g.attempt, g.status, count(a)::int as calls,
      (count(a) filter (where a.outcome = 'completed'))::int as completed
    from public.generations as g join private.generation_attempts as a on a.generation_id = g.id
    where g.message_id = ${message.id} group by g.id`
  expect(generation).toMatchObject({ status: 'completed', completed: 1 })
  return generation!
}

describe('a process that others need, killed in the middle of an answer', () => {
  const own = shared({ project })

  it.each<Child>(['platform', 'sandbox'])(
    '%s: the model is lost with it, and another attempt gives one whole answer',
    async (child) => {
      const { running } = own
      await sweepOften(running.sql())
      const scene = await midAnswer(running)

      await kill(running, child)

      const all = await readOn(scene, running.stack())
      expect((await expectOneWholeAnswer(scene, all, running)).attempt).toBeGreaterThan(1)
    },
    120_000,
  )
})

describe('the whole stack ended in the middle of an answer', () => {
  it.each(['SIGINT', 'SIGKILL'] as const)(
    '%s: it ends after the next start, and nothing acknowledged is lost',
    async (signal) => {
      const data = await madeData()
      const first = await serve({ project, data })
      const scene = await midAnswer(first)

      await stop(first, signal)
      const second = await serve({ project, data, port: Number(new URL(first.stack().url).port) })

      await (signal === 'SIGKILL' ? halfAMinutePasses : sweep)(second.sql())
      const all = await readOn(scene, second.stack())
      const { attempt } = await expectOneWholeAnswer(scene, all, second)
      // What ends in peace hands over: the same attempt goes on, and nobody sees a word twice.
      if (signal === 'SIGINT') {
        expect(attempt).toBe(1)
        expect(named(all, 'reset')).toBeUndefined()
      }
    },
    180_000,
  )
})

/** As the sandbox's model counts. */
const tokens = (text: string) => Math.ceil(text.length / 4)
/** As an estimate counts Latin text: digits and punctuation are dearer than letters. */
const estimate = (text: string) => Math.ceil((text.length * 5 + (text.match(/[^A-Za-z\s]/g)?.length ?? 0) * 3) / 20)
const counter = (usage: { estimated: boolean }) => (usage.estimated ? estimate : tokens)

describe('a wall clock shorter than the answer', () => {
  it('B-29 has the answer handed over and finished, without a reset and without losing a word', async () => {
    const running = await serve({ project, flags: ['--quiet', '--wall-clock', '5'] })
    const scene = await midAnswer(running, 'sandbox/slow-150')

    const all = await readOn(scene, running.stack())

    expect(named(all, 'reset')).toBeUndefined()
    const { attempt, calls } = await expectOneWholeAnswer(scene, all, running)
    expect(attempt).toBe(1)
    expect(calls).toBeGreaterThan(1)

    // Each call is billed for what it was given and for what it said, and no word twice.
    const { message, usage } = named(all, 'completed')!.data
    const requests = (await modelRequests(scene.said, running.stack())).reverse()
    const bills = await running.sql()`
      select outcome, usage from private.generation_attempts where generation_id = ${message.generation_id} order by call`
    expect(bills.map(({ outcome }) => outcome)).toEqual([...Array(calls - 1).fill('handed_over'), 'completed'])
    expect(requests).toHaveLength(calls)
    let written = ''
    for (const [index, { body }] of requests.entries()) {
      const messages = body.messages as { role: string; content: string }[]
      const prefill = messages.at(-1)!.role === 'assistant' ? messages.at(-1)!.content : ''
      // What the call before said, and only that, is what this one goes on after.
      expect(prefill.startsWith(written)).toBe(true)
      if (index > 0) {
        const before = bills[index - 1]!.usage
        expect(before.completion_tokens).toBeCloseTo(counter(before)(prefill.slice(written.length)), -1)
      }
      written = prefill
      const bill = bills[index]!.usage
      const given = messages.reduce((sum, { content }) => sum + counter(bill)(content) + 4, 3)
      expect(bill.prompt_tokens).toBeCloseTo(given, -1)
    }
    const last = bills.at(-1)!.usage
    expect(last).toMatchObject({ completion_tokens: tokens(message.content.slice(written.length)), estimated: false })
    const sum = bills.reduce((total, bill) => total + bill.usage.completion_tokens, 0)
    expect(sum - estimate(message.content)).toBeLessThan(2 * calls)
    expect(usage.completion_tokens).toBe(sum)
    const streamed = requests.reduce((total, { deltas }) => total + deltas, 0)
    // A word that was on its way when the time was over is the only one that the model may have said for nothing.
    expect(streamed - message.content.match(/\S+/g).length).toBeLessThan(calls)
  }, 120_000)
})
