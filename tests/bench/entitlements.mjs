// What plans cost: send_message with the check of entitlements, hold and rate limit and without, and decisions per second on one bucket, alone and as functions ask for them.
import postgres from 'postgres'
import { databaseUrl, line, median, quantile, signUp, startStack } from './support.mjs'

const blocks = 8
const rounds = 75
const warmUp = 15
const seconds = 3

export default async function run() {
  const stack = await startStack()
  const sql = postgres(databaseUrl(stack), { max: 1, onnotice: () => {} })
  try {
    const person = await signUp(stack)
    // A plan whose every limit is looked at and none reached.
    await sql`select admin.set_plan(${person.id}, 'pro')`
    await sql`update public.plans set requests_per_minute = 1000000, requests_per_day = 1000000 where id = 'pro'`
    const character = await person.client
      .from('characters')
      .insert({ name: 'Ada', age: 36, greeting: 'Hello.' })
      .select()
      .single()
    if (character.error) throw character.error
    const conversation = await person.client.rpc('start_conversation', { character_id: character.data.id })
    if (conversation.error) throw conversation.error

    await sql`select set_config('request.jwt.claims', ${JSON.stringify({ sub: person.id, role: 'authenticated' })}, false)`
    const [{ definition }] = await sql`
      select pg_get_functiondef(p.oid) as definition from pg_proc as p
      where p.proname = 'hold_answer' and p.pronamespace = 'private'::regnamespace`
    const held = []
    const plain = []
    // In turns, so that both meet the same machine; each begins with rounds that compile what was just put in.
    for (let block = 0; block < blocks; block++) {
      const samples = block % 2 ? held : plain
      await sql.unsafe(samples === held ? definition : withoutPlans)
      for (let round = 0; round < rounds + warmUp; round++) {
        const took = await send(sql, conversation.data.id)
        if (round >= warmUp) samples.push(took)
      }
    }
    const added = median(held) - median(plain)
    line('send_message with plans, median', `${median(held).toFixed(2)} ms`, `without ${median(plain).toFixed(2)} ms`)
    line(
      'send_message with plans, p95',
      `${quantile(held, 0.95).toFixed(2)} ms`,
      `without ${quantile(plain, 0.95).toFixed(2)} ms`,
    )
    line('entitlement, hold and rate limit', `${added.toFixed(2)} ms`, 'goal 3 ms')

    const perSecond = (count) => `${Math.round(count).toLocaleString('en')}/s`
    const tokens = await decide(stack, (sql) => sql`select private.take_token('bench user:1', 1000000, 1000)`)
    line('tokens of one hot bucket', perSecond(tokens), 'goal 1,000/s')
    await sql`update private.rate_rules set capacity = 1000000 where plan_id = 'pro'`
    const calls = await decide(stack, (sql) => sql`select service.take_rate('chat/messages', ${person.id}, null)`)
    line('plan, rule and token of one person', perSecond(calls), 'goal 1,000/s')
  } finally {
    await sql.end()
    await stack.discard()
  }
}

const withoutPlans = `
  create or replace function private.hold_answer(
    generation_id uuid, caller uuid, conversation_id uuid, question_id uuid, model_id text, max_tokens integer
  ) returns void language plpgsql volatile security invoker set search_path = '' as 'begin end'`

/** Milliseconds of one send, rolled back, so that the conversation stays idle. */
async function send(sql, conversation) {
  await sql.unsafe('begin')
  try {
    await sql.unsafe('set local role authenticated')
    const started = performance.now()
    await sql`select public.send_message(${conversation}, 'How are you today?')`
    return performance.now() - started
  } finally {
    await sql.unsafe('rollback')
  }
}

/** Decisions per second of eight connections on one key, each a transaction of its own. */
async function decide(stack, ask) {
  const sql = postgres(databaseUrl(stack), { max: 8, onnotice: () => {} })
  try {
    const ends = performance.now() + seconds * 1000
    let made = 0
    await Promise.all(
      Array.from({ length: 8 }, async () => {
        while (performance.now() < ends) {
          await ask(sql)
          made += 1
        }
      }),
    )
    return made / seconds
  } finally {
    await sql.end()
  }
}
