import { deepEqual, equal } from 'node:assert/strict'
import { LiveRun, liveRuns } from '../../functions/_shared/generation/live.ts'
import { Poller } from '../../functions/_shared/generation/poller.ts'
import type { GenerationState } from '../../functions/_shared/generation/reader.ts'
import type { Log } from '../../functions/_shared/log.ts'

interface Asked {
  generation_id: string
  attempt?: number
  seq?: number
  readers: string[]
}

const state = (generation_id: string, told: Partial<GenerationState> = {}) => ({
  ...({ generation_id, status: 'running', attempt: 1, chunks: [], last_seq: 0 } as unknown as GenerationState),
  ...told,
})

/** A database that answers each call when the test says so, and otherwise at once that nothing is new. */
function pretended() {
  const calls: Asked[][] = []
  const answers: ((asked: Asked[]) => Promise<GenerationState[]>)[] = []
  const call = async (_name: string, asked: Asked[]) => {
    calls.push(asked)
    const states = (await answers.shift()?.(asked)) ?? asked.map(({ generation_id }) => state(generation_id))
    return states.map((found, at) => ({ ...found, readers: asked[at]!.readers }))
  }
  const log = { warn: () => {} } as unknown as Log
  return { calls, answers, poller: new Poller({ call } as never, log) }
}

/** Time that passes when the test says so. */
async function withClock(work: (pass: (milliseconds: number) => Promise<void>) => Promise<void>): Promise<void> {
  const real = { now: Date.now, set: globalThis.setTimeout }
  const timers: { at: number; ring: () => void }[] = []
  const settle = () => new Promise<void>((resolve) => real.set(resolve, 0))
  let now = 0
  Date.now = () => now
  globalThis.setTimeout = ((ring: () => void, after = 0) => timers.push({ at: now + after, ring })) as never
  try {
    await work(async (milliseconds) => {
      const until = now + milliseconds
      await settle()
      for (;;) {
        timers.sort((one, other) => one.at - other.at)
        if (!timers[0] || timers[0].at > until) break
        const { at, ring } = timers.shift()!
        now = at
        ring()
        await settle()
      }
      now = until
    })
  } finally {
    Date.now = real.now
    globalThis.setTimeout = real.set
  }
}

Deno.test('an answer of this isolate is asked for who may read it, once a second and without its text', () =>
  withClock(async (pass) => {
    const { calls, poller } = pretended()
    liveRuns.set('a', new LiveRun('a', 1, 1))
    const attached = poller.attach('a', 'ada')

    await pass(3000)
    attached.leave()
    liveRuns.delete('a')

    deepEqual(calls, Array(3).fill([{ generation_id: 'a', readers: ['ada'] }]))
  }))

Deno.test('answers that began at different times are soon asked for in the same calls', () =>
  withClock(async (pass) => {
    const { calls, poller } = pretended()
    const names = ['a', 'b', 'c', 'd', 'e']
    const attached = []
    for (const name of names) {
      attached.push(poller.attach(name, 'ada'))
      await pass(200)
    }

    await pass(2000)
    const before = calls.length
    await pass(10_000)
    for (const { leave } of attached) leave()

    equal(calls.length - before, 10)
    for (const asked of calls.slice(before))
      deepEqual(
        asked.map(({ generation_id }) => generation_id),
        names,
      )
  }))

Deno.test('a copy that begins while a call is under way misses nothing of the answer’s end', () =>
  withClock(async (pass) => {
    const { answers, poller } = pretended()
    const { promise: first, resolve: answer } = Promise.withResolvers<GenerationState[]>()
    const ended = { status: 'completed' as const, last_seq: 2 }
    // The first call, which asked for no text, is answered with the end; the next one with the text as well.
    answers.push(() => first)
    answers.push(() => Promise.resolve([state('a', { ...ended, chunks: [{ seq: 2, text: 'b' }] })]))
    const attached = poller.attach('a', 'ada')
    await pass(1000)

    const copy = attached.copy(state('a', { last_seq: 1 }))
    answer([state('a', ended)])
    await pass(1000)
    attached.leave()

    const events = []
    for await (const event of copy.read(new AbortController().signal)) {
      events.push(event.type === 'delta' ? event.text : event.type)
    }
    deepEqual(events, ['b', 'ended'])
  }))
