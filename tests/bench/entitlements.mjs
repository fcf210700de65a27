// What plans cost: the check of entitlements, hold and rate limit inside send_message, and decisions per second on one bucket, alone and as functions ask for them.
import postgres from 'postgres'
import { databaseUrl, line, median, quantile, signUp, startStack } from './support.mjs'

const rounds = 400
const warmUp = 50
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

    const [{ definition }] = await sql`
      select pg_get_functiondef(p.oid) as definition from pg_proc as p
      where p.proname = 'hold_answer' and p.pronamespace = 'private'::regnamespace`
    await sql.unsafe(`${definition.replaceAll('hold_answer', 'hold_answer_untimed')}; ${timed}`)
    await sql`select set_config('request.jwt.claims', ${JSON.stringify({ sub: person.id, role: 'authenticated' })}, false)`
    await sql.unsafe('set role authenticated')
    const sends = []
    const plans = []
    for (let round = 0; round < rounds + warmUp; round++) {
      const { took, held } = await send(sql, conversation.data.id)
      if (round < warmUp) continue
      sends.push(took)
      plans.push(held)
    }
    const ms = (samples, part) => `${quantile(samples, part).toFixed(2)} ms`
    line('send_message with plans, median', ms(sends, 0.5), `p95 ${ms(sends, 0.95)}; quickest tenth ${ms(sends, 0.1)}`)
    line(
      'entitlement, hold and rate limit in it, median',
      `${median(plans).toFixed(2)} ms`,
      `goal 3 ms; p95 ${ms(plans, 0.95)}; quickest tenth ${ms(plans, 0.1)}`,
    )

    await sql.unsafe('reset role')
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

/** Puts a clock around what send_message calls for plans. What it costs does not depend on what else the machine did meanwhile. */
const timed = `
  create or replace function private.hold_answer(
    generation_id uuid, caller uuid, question public.messages, model public.ai_models, max_tokens integer
  ) returns void language plpgsql volatile security invoker set search_path = '' as $$
  declare
    started timestamptz := clock_timestamp();
  begin
    perform private.hold_answer_untimed(generation_id, caller, question, model, max_tokens);
    perform set_config('bench.held_ms', (extract(epoch from clock_timestamp() - started) * 1000)::text, false);
  end;
  $$`

/** Milliseconds of one send and of plans in it. The answer is cancelled, so that the next send finds the conversation idle. */
async function send(sql, conversation) {
  const started = performance.now()
  const [{ sent }] = await sql`select public.send_message(${conversation}, 'How are you today?') as sent`
  const took = performance.now() - started
  const [{ held }] = await sql`
    select current_setting('bench.held_ms')::double precision as held, public.cancel_generation(${sent.generation.id})`
  return { took, held }
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
