import process from 'node:process'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Answer, followStream, type GenerationState } from '../client/follow-answer.ts'

/** The client's rule against every way in which connections and broadcasts fail, on recorded answers of a pretended server. */

/** More when the runs are to last longer: FOLLOW_RUNS=20000. */
const runs = Number(process.env.FOLLOW_RUNS ?? 3000)

/** Pieces that find a reader who counts bytes or code units wrong, or takes text for a frame. */
const piece = fc.oneof(
  { weight: 3, arbitrary: fc.string({ minLength: 1, maxLength: 6 }) },
  fc.constantFrom('👩‍👩‍👧', 'é', ' ', 'data: [DONE]\n\n', '\r\n\r\n', '\u2028', 'id: 9.9\n', '"}', 'ﷺ'),
)
/** What each attempt said; only the last one ends. */
const attempts = fc.array(fc.array(piece, { maxLength: 12 }), { minLength: 1, maxLength: 3 })
const ending = fc.constantFrom('completed', 'cancelled', 'failed')
/** Decides, throw by throw, how everything goes wrong. */
const luck = fc.integer()

type Status = 'completed' | 'cancelled' | 'failed'

/** An answer as the server knows it after `time` steps: one step for each chunk, and one for each new attempt. */
class Recorded {
  readonly steps: { attempt: number; seq: number }[] = [{ attempt: 0, seq: 0 }]
  readonly message: { id: string; content: string }

  constructor(
    readonly said: string[][],
    readonly status: Status,
  ) {
    for (const [index, chunks] of said.entries()) {
      for (let seq = 0; seq <= chunks.length; seq += 1) this.steps.push({ attempt: index + 1, seq })
    }
    this.message = { id: 'm', content: said.at(-1)!.join('') }
  }

  get end(): number {
    return this.steps.length
  }

  chunks(attempt: number, from: number, to: number) {
    return (this.said[attempt - 1] ?? []).slice(from, to).map((text, index) => ({ seq: from + index + 1, text }))
  }

  /** `read_generation` at that time. */
  read(time: number, after: { attempt: number; seq: number }): GenerationState {
    const over = time >= this.end
    const { attempt, seq } = this.steps[Math.min(time, this.end - 1)]!
    return {
      status: over ? this.status : 'running',
      attempt,
      chunks: this.chunks(attempt, attempt === after.attempt ? after.seq : 0, seq),
      message: over ? (this.message as never) : null,
      usage: null,
      error: over && this.status === 'failed' ? { code: 'provider_unavailable' } : null,
    }
  }

  ending() {
    const failure = this.status === 'failed' ? { code: 'provider_unavailable', retryable: true } : {}
    return { event: `generation.${this.status}`, data: { generation_id: 'g', message: this.message, ...failure } }
  }
}

/** What may never be otherwise: the text is the chunks of one attempt from the first to the last one seen. */
function expectWhole(answer: Answer, recorded: Recorded): void {
  if (answer.status !== 'open') return
  expect(answer.text).toBe(
    recorded
      .chunks(answer.attempt, 0, answer.seq)
      .map(({ text }) => text)
      .join(''),
  )
}

describe('an answer followed over Realtime', () => {
  it('loses and repeats no character when broadcasts are dropped, late, doubled and out of order', () => {
    fc.assert(
      fc.property(attempts, ending, luck, (said, status, seed) => {
        const recorded = new Recorded(said, status)
        const next = dice(seed)
        const answer = new Answer()
        /** On their way: broadcasts and what readings will answer, each with the moment of its arrival. */
        const underWay: { at: number; deliver(): void }[] = []
        const send = (deliver: () => void, now: number) =>
          underWay.push({ at: now + (next() < 0.5 ? 0 : next() * 8), deliver })
        const read = (now: number) => {
          const state = recorded.read(now, answer)
          send(() => answer.read(state), now)
        }
        const broadcast = (event: string, data: object, now: number) => {
          const copies = next() < 0.3 ? 0 : next() < 0.2 ? 2 : 1
          for (let copy = 0; copy < copies; copy += 1) {
            send(() => {
              if (!answer.take(event, data as never)) read(now)
              if (event === 'generation.reset' && answer.status === 'open') {
                expect(answer.attempt).toBeGreaterThanOrEqual((data as { attempt: number }).attempt)
              }
            }, now)
          }
        }

        let told = { attempt: 0, seq: 0 }
        for (let now = 1; now <= recorded.end; now += 1) {
          const step = recorded.steps[now]
          if (!step) {
            const { event, data } = recorded.ending()
            broadcast(event, data, now)
          } else if (step.attempt !== told.attempt) {
            if (step.attempt > 1) broadcast('generation.reset', { attempt: step.attempt }, now)
            told = { attempt: step.attempt, seq: 0 }
          } else if (next() < 0.6) {
            // Deltas join what came since the last one.
            const chunks = recorded.chunks(step.attempt, told.seq, step.seq)
            const text = chunks.map((chunk) => chunk.text).join('')
            const data = { attempt: step.attempt, first_seq: told.seq + 1, seq: step.seq, text }
            if (chunks.length > 0) broadcast('generation.delta', data, now)
            told = step
          }
          if (next() < 0.1) read(now)
          for (const { deliver } of take(underWay, ({ at }) => at <= now)) {
            deliver()
            expectWhole(answer, recorded)
          }
        }
        // Silence follows, and then the state is read.
        for (const { deliver } of take(underWay, () => true)) {
          deliver()
          expectWhole(answer, recorded)
        }
        answer.read(recorded.read(recorded.end, answer))

        expect(answer.status).toBe(status)
        expect(answer.text).toBe(recorded.message.content)
      }),
      { numRuns: runs },
    )
  })
})

describe('an answer followed over server-sent events', () => {
  it('loses and repeats no character wherever its connection is cut, and however often', async () => {
    let cuts = 0
    await fc.assert(
      fc.asyncProperty(attempts, ending, luck, async (said, status, seed) => {
        const recorded = new Recorded(said, status)
        const next = dice(seed)
        const server = pretendedServer(recorded, next)

        const answer = await followStream({
          functionsUrl: 'http://parlor.test',
          token: () => 'token',
          follow: { generation_id: 'g' },
          retryMs: 0,
          fetch: server.fetch,
          onChange(now) {
            // A late reader is given everything at once.
            if (!server.snapshot()) expectWhole(now, recorded)
          },
        })

        cuts += server.cuts()
        expect(answer.status).toBe(status)
        expect(answer.text).toBe(recorded.message.content)
      }),
      { numRuns: Math.ceil(runs / 10), endOnFailure: true },
    )
    expect(cuts).toBeGreaterThan(1000)
  })

  it('sends a message once, however often the connection is lost before its first event', async () => {
    const recorded = new Recorded([['Hello', ' there.']], 'completed')
    const keys: string[] = []
    let lost = 0

    const answer = await followStream({
      functionsUrl: 'http://parlor.test',
      token: () => 'token',
      follow: { conversation_id: 'c', content: 'Hi' },
      retryMs: 0,
      fetch: async (url, init) => {
        if (!String(url).endsWith('/chat/messages')) throw new Error(`not asked for: ${url}`)
        keys.push(JSON.parse(init!.body as string).idempotency_key)
        lost += 1
        if (lost === 1) throw new TypeError('network error')
        if (lost === 2) return new Response(new ReadableStream({ start: (controller) => controller.close() }))
        return new Response(sse(recorded.end, recorded, { attempt: 0, seq: 0 }))
      },
    })

    expect(answer.text).toBe('Hello there.')
    expect(keys).toHaveLength(3)
    expect(new Set(keys).size).toBe(1)
  })

  it('gives up where the server refuses, and says why', async () => {
    const refused = followStream({
      functionsUrl: 'http://parlor.test',
      token: () => 'token',
      follow: { generation_id: 'g' },
      fetch: async () => Response.json({ code: 'generation_not_found' }, { status: 404 }),
    })

    await expect(refused).rejects.toMatchObject({ name: 'Refusal', status: 404, message: 'generation_not_found' })
  })

  it('gives up at once where a stream says that it may not be read any more', async () => {
    let connections = 0
    const refused = followStream({
      functionsUrl: 'http://parlor.test',
      token: () => 'token',
      follow: { generation_id: 'g' },
      fetch: async () => {
        connections += 1
        const data = JSON.stringify({ generation_id: 'g', code: 'generation_not_found' })
        return new Response(`event: generation.gone\ndata: ${data}\n\ndata: [DONE]\n\n`)
      },
    })

    await expect(refused).rejects.toMatchObject({ name: 'Refusal', status: 404, message: 'generation_not_found' })
    expect(connections).toBe(1)
  })
})

/** What a reader at `cursor` is sent until `time`, in the words of the function. */
function sse(time: number, recorded: Recorded, cursor: { attempt: number; seq: number }, from = time): string {
  const frame = (event: string, data: unknown, id?: string) =>
    `event: ${event}\n${id ? `id: ${id}\n` : ''}data: ${JSON.stringify(data)}\n\n`
  let text = `: ok\n\n${frame('generation.connected', { generation_id: 'g', job_id: null })}`
  if (from >= recorded.end) {
    const { content } = recorded.message
    if (content) text += frame('generation.snapshot', { content })
  } else {
    let { attempt, seq } = cursor
    for (const step of recorded.steps.slice(from, time + 1)) {
      if (step.attempt !== attempt) {
        if (seq > 0) text += frame('generation.reset', { attempt: step.attempt })
        attempt = step.attempt
        seq = 0
      }
      for (const chunk of recorded.chunks(attempt, seq, step.seq)) {
        text += frame('generation.delta', { attempt, ...chunk }, `${attempt}.${chunk.seq}`)
      }
      seq = Math.max(seq, step.seq)
    }
  }
  if (time < recorded.end) return text
  const { event, data } = recorded.ending()
  return `${text + frame(event, data)}data: [DONE]\n\n`
}

/** Cuts each answer at some byte until its patience ends; time goes on between connections and while one is open. */
function pretendedServer(recorded: Recorded, next: () => number) {
  let time = 0
  let connections = 0
  let late = false
  const server = async (_: unknown, init?: RequestInit): Promise<Response> => {
    const [attempt = 0, seq = 0] = (new Headers(init?.headers).get('last-event-id') ?? '0.0').split('.').map(Number)
    connections += 1
    late = time >= recorded.end
    const patient = connections > 8
    const from = Math.min(recorded.end, time + Math.floor(next() * 4))
    time = patient ? recorded.end : Math.min(recorded.end, from + Math.floor(next() * 6))
    const bytes = new TextEncoder().encode(sse(time, recorded, { attempt, seq }, from))
    const until = patient ? bytes.length : Math.floor(next() * (bytes.length + 1))
    const pieces: Uint8Array[] = []
    for (let at = 0; at < until; ) {
      const size = 1 + Math.floor(next() * 60)
      pieces.push(bytes.slice(at, Math.min(until, at + size)))
      at += size
    }
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        const bytes = pieces.shift()
        if (bytes) controller.enqueue(bytes)
        else if (next() < 0.5) controller.close()
        else controller.error(new TypeError('network error'))
      },
    })
    return new Response(body)
  }
  return { fetch: server as typeof fetch, cuts: () => connections - 1, snapshot: () => late }
}

/** Numbers from 0 to 1, the same for one seed (mulberry32). */
function dice(seed: number) {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Removes and returns those that fit, the earliest first. */
function take<T extends { at: number }>(list: T[], fits: (item: T) => boolean): T[] {
  const taken = list.filter(fits).sort((one, other) => one.at - other.at)
  for (const item of taken) list.splice(list.indexOf(item), 1)
  return taken
}
