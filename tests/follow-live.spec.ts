import { afterEach, describe, expect, it } from 'vitest'
import { type Answer, followBroadcasts, followStream } from '../client/follow-answer.ts'
import { addModel, events, named, send, startTalk, type Talk } from './support/chat.ts'
import { cuttingFetch, faultyBroadcasts, invite, recordOf } from './support/follow.ts'
import { choosePlan, database, functionsUrl, signUp } from './support/local.ts'
import { disconnectAll, realtimeClient } from './support/realtime.ts'

/** The client's helper against the running stack: real connections that are really cut, real broadcasts that are lost. */
afterEach(disconnectAll)

/** Asks, and leaves after the first event: the answer goes on by itself. */
async function ask(talk: Talk, run = 'inline'): Promise<string> {
  for await (const event of events(await send(talk, { body: { run } }))) {
    const { generation_id } = named([event], 'connected')?.data ?? {}
    if (generation_id) return generation_id
  }
  throw new Error('The stream ended before its first event.')
}

async function stored(generation: string) {
  const sql = database()
  const [row] = await sql`
    select g.status, m.content from public.generations as g join public.messages as m on m.id = g.message_id
    where g.id = ${generation}`
  const chunks = await sql<{ attempt: number; seq: number; text: string }[]>`
    select attempt, seq, text from public.generation_chunks where generation_id = ${generation} order by attempt, seq`
  return { status: row!.status as string, content: row!.content as string, chunks: [...chunks] }
}

/** Whatever was shown at any moment is what the database holds of one attempt from its first chunk on. */
async function expectWhole(generation: string, shown: ReturnType<typeof recordOf>, answer: Answer): Promise<void> {
  const { status, content, chunks } = await stored(generation)
  expect({ status: answer.status, text: answer.text }).toEqual({ status, text: content })
  for (const { attempt, seq, text } of shown.states) {
    const until = chunks.filter((chunk) => chunk.attempt === attempt && chunk.seq <= seq)
    if (text !== content) expect(text).toBe(until.map((chunk) => chunk.text).join(''))
  }
}

describe('an answer read through connections that are cut', () => {
  it('B-01 loses and repeats no character in a thousand random cuts, also over several attempts', async () => {
    await addModel('breaks-off', database(), ['sandbox/slow-120+cut'])
    const owner = await signUp()
    // A thousand connections within a minute are more than a smaller plan lets through.
    await choosePlan('enterprise', owner)
    const [inline, queued, failing] = await Promise.all([
      startTalk({ person: owner, model: 'sandbox/slow-200' }),
      startTalk({ person: owner, model: 'sandbox/slow-200' }),
      startTalk({ person: owner, model: 'breaks-off' }),
    ])
    const answers = await Promise.all([ask(inline), ask(queued, 'queued'), ask(failing)])
    let cuts = 0
    const cutting = cuttingFetch(400, () => {
      cuts += 1
    })

    await Promise.all(
      Array.from({ length: 70 }, async (_, reader) => {
        const generation_id = answers[reader % answers.length]!
        const shown = recordOf()
        const answer = await followStream({
          functionsUrl,
          token: () => owner.token,
          follow: { generation_id },
          retryMs: 1 + Math.random() * 10,
          fetch: cutting,
          onChange: shown.add,
        })
        await expectWhole(generation_id, shown, answer)
      }),
    )

    expect(cuts).toBeGreaterThan(1000)
  }, 60_000)
})

describe('an answer watched over Realtime', () => {
  it('B-01 V-25 loses and repeats no character when broadcasts are dropped, late and doubled', async () => {
    const [owner, guest] = await Promise.all([signUp(), signUp()])
    await choosePlan('enterprise', owner)
    const talks = await Promise.all(
      Array.from({ length: 4 }, async () => {
        const talk = await startTalk({ person: owner, model: 'sandbox/slow-60' })
        await invite(talk, guest)
        return talk
      }),
    )
    const supabase = await realtimeClient({ token: guest.token })
    const faults = { dropped: 0, late: 0, doubled: 0 }
    const heard = { delta: 0 }

    await Promise.all(
      talks.map(async (talk) => {
        const generation_id = await ask(talk)
        const shown = recordOf()
        const answer = await followBroadcasts({
          supabase: faultyBroadcasts(supabase, faults, heard),
          conversation_id: talk.conversationId,
          generation_id,
          quietMs: 1000,
          onChange: shown.add,
        })
        await expectWhole(generation_id, shown, answer)
        expect(shown.states.length).toBeGreaterThan(3)
      }),
    )

    expect(Math.min(faults.dropped, faults.late, faults.doubled, heard.delta)).toBeGreaterThan(3)
  }, 30_000)
})
