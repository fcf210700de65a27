// Fifty answers that stream at the same time: from the request to the first text, beside the same model asked directly, and
// the CPU that Parlor's processes spend on a thousand streamed tokens and on a minute of an attached reader.
import { randomUUID } from 'node:crypto'
import postgres from 'postgres'
import { cpuSeconds } from './cpu.mjs'
import {
  databaseUrl,
  line,
  median,
  pause,
  quantile,
  sandboxModel,
  signUp,
  startConversation,
  startStack,
} from './support.mjs'

const lanes = 50
const rounds = 3
/** An answer of some forty words takes four seconds. */
const model = 'sandbox/slow-100'
/** Says what it hears, fifty words a second: as quick and as long as answers are. */
const longModel = 'sandbox/echo+slow-20'
const longAnswers = 10
const longText = 'the captain counts the lights of the ships that came home '.repeat(70)
const readers = 20
/** One word a second: an answer that is read for half a minute. */
const slowModel = 'sandbox/slow-1000'

export default async function run() {
  const stack = await startStack()
  const sql = postgres(databaseUrl(stack), { max: 2, onnotice() {} })
  try {
    const person = await signUp(stack)
    await sql`select admin.set_plan(${person.id}, 'enterprise')`
    for (const name of [model, longModel, slowModel]) await addModel(sql, stack, name)
    const talks = await Promise.all(Array.from({ length: lanes }, () => startConversation(person, model)))
    await atOnce(talks.slice(0, 5), 1, (talk) => sendMessage(stack, person, talk))

    const direct = await atOnce(talks, rounds, () => askModel(stack))
    report(direct, await atOnce(talks, rounds, (talk) => sendMessage(stack, person, talk)))

    await streaming(stack, person)
    await reading(stack, sql)
  } finally {
    await sql.end()
    await stack.discard()
  }
}

function report(direct, through) {
  const beside = (share) => `direct ${quantile(direct, share).toFixed(1)} ms`
  line(`first delta, ${lanes} streams, median`, `${median(through).toFixed(1)} ms`, beside(0.5))
  line(`first delta, ${lanes} streams, p95`, `${quantile(through, 0.95).toFixed(1)} ms`, beside(0.95))
  for (const [name, share, goal] of [
    ['median', 0.5, 20],
    ['p95', 0.95, 60],
  ]) {
    const added = quantile(through, share) - quantile(direct, share)
    line(`added by Parlor, ${name}`, `${added.toFixed(1)} ms`, `goal ${goal} ms`)
  }
}

/** What long answers cost, all in, beside an idle stack. */
async function streaming(stack, person) {
  const talks = await Promise.all(Array.from({ length: longAnswers }, () => startConversation(person, longModel)))
  // What the answers before have left to do is not what an idle stack costs.
  await pause(3000)
  const idle = await spent(stack, () => pause(5000))
  const busy = await spent(stack, () => atOnce(talks, 1, (talk) => sendMessage(stack, person, talk, longText)))
  const { data } = await person.client.from('generations').select('usage').in('conversation_id', talks)
  const tokens = data.reduce((sum, { usage }) => sum + usage.completion_tokens, 0)
  const perThousand = (of) =>
    `${(((of(busy) - (of(idle) / idle.seconds) * busy.seconds) / tokens) * 1e6).toFixed(0)} ms`
  line('CPU per 1,000 streamed tokens', perThousand(total), 'goal 200 ms')
  for (const name of Object.keys(busy.cpu))
    line(
      `  ${name}`,
      perThousand(({ cpu }) => cpu[name]),
    )
  line(
    '  answers of this many tokens',
    (tokens / longAnswers).toFixed(0),
    `${longAnswers} at a time, 50 words a second each`,
  )
}

/** Five answers that the worker makes, first with nobody there, then with readers who are served by another process. */
async function reading(stack, sql) {
  // Five people: a person has two seats in the queue.
  const makers = await Promise.all(
    Array.from({ length: 5 }, async () => {
      const person = await signUp(stack)
      return { person, talk: await startConversation(person, slowModel) }
    }),
  )
  const seconds = 20
  const cost = {}
  for (const attached of [0, readers]) {
    const generations = await Promise.all(makers.map(({ person, talk }) => enqueueMessage(stack, person, talk)))
    await running(sql, generations)
    const leave = new AbortController()
    const reads = Array.from({ length: attached }, (_, n) =>
      attach(stack, makers[n % 5].person, generations[n % 5], leave.signal),
    )
    await pause(1000)
    cost[attached] = total(await spent(stack, () => pause(seconds * 1000)))
    leave.abort()
    await Promise.all(reads)
    await Promise.all(
      makers.map(({ person }, n) => person.client.rpc('cancel_generation', { generation_id: generations[n] })),
    )
    await ended(sql, generations)
  }
  const minute = ((cost[readers] - cost[0]) / readers / seconds) * 60
  line('CPU per minute of an attached reader', `${(minute * 1000).toFixed(0)} ms`, `${readers} readers, goal 200 ms`)
  line('  five answers being made, per minute', `${((cost[0] / seconds) * 60 * 1000).toFixed(0)} ms`, 'nobody reads')
}

const running = (sql, ids) =>
  until(
    async () => (await sql`select from public.generations where id = any (${ids}) and status = 'running'`).length === 5,
  )
const ended = (sql, ids) =>
  until(async () => (await sql`select from private.generation_leases where generation_id = any (${ids})`).length === 0)

async function until(holds) {
  while (!(await holds())) await pause(50)
}

/** CPU seconds of each of Parlor's server processes while `work` runs, and how long that was. */
async function spent(stack, work) {
  const [before, started] = [cpuSeconds(stack), performance.now()]
  await work()
  const seconds = (performance.now() - started) / 1000
  return {
    cpu: Object.fromEntries(Object.entries(cpuSeconds(stack)).map(([name, until]) => [name, until - before[name]])),
    seconds,
  }
}

const total = ({ cpu }) => Object.values(cpu).reduce((sum, share) => sum + share, 0)

/** Each lane asks, reads to the end and asks again; lanes begin one after the other, as people do. Milliseconds to first texts. */
async function atOnce(lanesOf, times, ask) {
  const waits = []
  await Promise.all(
    lanesOf.map(async (lane, n) => {
      await pause((n * 4000) / lanesOf.length)
      for (let round = 0; round < times; round++) waits.push(await firstText(() => ask(lane)))
    }),
  )
  return waits
}

/** Of a provider that is the sandbox itself: behind the gateway, as the sandbox is by default, no provider stands on hosted. */
async function addModel(sql, stack, name) {
  await sql`insert into private.ai_providers (name, base_url_env, api_key_env, default_base_url)
    values ('sandbox_itself', 'SANDBOX_ITSELF_URL', 'OPENROUTER_API_KEY', ${sandboxModel(stack)}) on conflict do nothing`
  await sql`insert into public.ai_models (id, display_name, context_window, max_output)
    values (${name}, ${name}, 8000, 2000) on conflict (id) do nothing`
  await sql`insert into private.ai_routes (model, provider, provider_model, position)
    values (${name}, 'sandbox_itself', ${name}, 1) on conflict do nothing`
}

const post = (stack, { token }, body, signal) =>
  fetch(`${stack.url}/functions/v1/chat/messages`, {
    method: 'POST',
    headers: { apikey: stack.keys.publishable, authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ idempotency_key: randomUUID(), ...body }),
    signal,
  })
const sendMessage = (stack, person, conversation_id, content = 'How are you?') =>
  post(stack, person, { conversation_id, content })

async function enqueueMessage(stack, person, conversation_id) {
  const response = await post(stack, person, { conversation_id, content: 'How are you?', run: 'queued', stream: false })
  if (response.status !== 202) throw new Error(`${response.status} ${await response.text()}`)
  return (await response.json()).generation.id
}

async function attach(stack, { token }, id, signal) {
  try {
    const headers = { authorization: `Bearer ${token}` }
    const response = await fetch(`${stack.url}/functions/v1/chat/generations/${id}/stream`, { headers, signal })
    for await (const _ of response.body) {
      // Only read.
    }
  } catch (error) {
    if (!signal.aborted) throw error
  }
}

const askModel = (stack) =>
  fetch(`${sandboxModel(stack)}/chat/completions`, {
    method: 'POST',
    headers: { authorization: 'Bearer sandbox', 'content-type': 'application/json' },
    body: JSON.stringify({ model, stream: true, messages: [{ role: 'user', content: 'How are you?' }] }),
  })

/** Milliseconds until the stream carries text; reads it to its end. */
async function firstText(request) {
  const started = performance.now()
  const response = await request()
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`)
  let first
  let seen = ''
  for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
    if (first !== undefined) continue
    seen += chunk
    if (/event: generation\.delta|"content":"[^"]/.test(seen)) first = performance.now() - started
  }
  if (first === undefined) throw new Error(`No text came: ${seen}`)
  return first
}
