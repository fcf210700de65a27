import { resolve } from 'node:path'
import { createClient } from '@supabase/supabase-js'
import { expect, it } from 'vitest'
import WebSocket from 'ws'
import { followBroadcasts } from '../client/follow-answer.ts'
import { serve } from './local/fixtures/processes.ts'
import { events, named, send, signUpAt, startTalk } from './support/chat.ts'
import { invite } from './support/follow.ts'
import { choosePlan } from './support/local.ts'

const watched = 21

it('M-14 B-01 keeps every channel open under hosted’s limits with twenty watched answers, and all arrive whole', {
  timeout: 90_000,
}, async () => {
  const running = await serve({ project: resolve('.'), flags: ['--quiet', '--realtime-limits'] })
  const stack = running.stack()
  const [owner, guest] = [await signUpAt(stack), await signUpAt(stack)]
  const sql = running.sql()
  await choosePlan('enterprise', owner, sql)
  const talks: Awaited<ReturnType<typeof startTalk>>[] = []
  for (let index = 0; index < watched; index += 1) {
    const talk = await startTalk({ person: owner, model: 'sandbox/slow-300', sql })
    await invite(talk, guest)
    talks.push(talk)
  }
  const supabase = createClient(stack.url, stack.keys.publishable, {
    auth: { persistSession: false, autoRefreshToken: false },
    accessToken: async () => guest.token,
    realtime: { transport: WebSocket as never },
  })
  await supabase.realtime.setAuth()
  const complaints: unknown[] = []
  const noticing = {
    rpc: supabase.rpc.bind(supabase),
    removeChannel: supabase.removeChannel.bind(supabase),
    channel: (...args: Parameters<typeof supabase.channel>) =>
      supabase.channel(...args).on('system', {}, (message: { status: string }) => {
        if (message.status !== 'ok') complaints.push(message)
      }),
  } as unknown as typeof supabase

  const answers: Promise<{ text: string; content: string; steps: number }>[] = []
  for (const talk of talks) {
    let generation_id = ''
    for await (const event of events(await send(talk, { functions: `${stack.url}/functions/v1` }))) {
      generation_id = named([event], 'connected')?.data.generation_id ?? ''
      if (generation_id) break
    }
    let steps = 0
    answers.push(
      followBroadcasts({
        supabase: noticing,
        conversation_id: talk.conversationId,
        generation_id,
        onChange: () => {
          steps += 1
        },
      }).then(({ text, message }) => ({ text, content: message!.content, steps })),
    )
    await new Promise((resolve) => setTimeout(resolve, 60))
  }

  for (const { text, content, steps } of await Promise.all(answers)) {
    expect(text).toBe(content)
    expect(steps).toBeGreaterThan(3)
  }
  expect(complaints).toEqual([])
  // Whatever else was sent, deltas alone never take more than half of the limit, in no second: each counts once as
  // sent and once for each of two participants.
  const [rate] = await running.sql('supabase_admin')`
    select max(cost)::int as most from (
      select 3 * count(*) over (order by inserted_at range interval '1 second' preceding) as cost
      from realtime.messages where event = 'generation.delta') as seconds`
  expect(rate!.most).toBeLessThanOrEqual(50)
  await supabase.realtime.disconnect()
})
