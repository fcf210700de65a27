// From the request to the first text of the answer: through `chat/messages`, and from the same sandbox model directly.
import postgres from 'postgres'
import { databaseUrl, line, median, quantile, signUp, startConversation, startStack } from './support.mjs'

const rounds = 60
const warmUp = 10

export default async function run() {
  const stack = await startStack()
  const sql = postgres(databaseUrl(stack), { max: 1, onnotice() {} })
  try {
    const person = await signUp(stack)
    // More answers in a minute than a smaller plan allows.
    await sql`select admin.set_plan(${person.id}, 'enterprise')`
    const conversation = await startConversation(person)
    const direct = []
    const through = []
    for (let round = 0; round < rounds + warmUp; round++) {
      const here = await firstText(askModel(stack))
      const there = await firstText(sendMessage(stack, person, conversation, round))
      if (round < warmUp) continue
      direct.push(here)
      through.push(there)
    }
    line('first delta, median', `${median(through).toFixed(1)} ms`, `direct ${median(direct).toFixed(1)} ms`)
    line(
      'first delta, p95',
      `${quantile(through, 0.95).toFixed(1)} ms`,
      `direct ${quantile(direct, 0.95).toFixed(1)} ms`,
    )
    line('added by Parlor, median', `${(median(through) - median(direct)).toFixed(1)} ms`, 'goal 25 ms')
  } finally {
    await sql.end()
    await stack.discard()
  }
}

const sendMessage = (stack, { token }, conversation_id, round) =>
  fetch(`${stack.url}/functions/v1/chat/messages`, {
    method: 'POST',
    headers: { apikey: stack.keys.publishable, authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify({
      conversation_id,
      content: `Round ${round}: how are you?`,
      idempotency_key: `round-${round}`,
    }),
  })

const askModel = (stack) =>
  fetch(`${stack.url}/sandbox/openai/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: 'Bearer sandbox', 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'any', stream: true, messages: [{ role: 'user', content: 'How are you?' }] }),
  })

/** Milliseconds until the stream carries text; reads it to its end, so that the next round finds the conversation idle. */
async function firstText(request) {
  const started = performance.now()
  const response = await request
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`)
  let first
  let seen = ''
  for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
    seen += chunk
    if (first === undefined && /event: generation\.delta|"content":"[^"]/.test(seen))
      first = performance.now() - started
  }
  return first
}
