// From the request to the first chunk: through the OpenAI-compatible route with a personal key, and from the same sandbox
// model directly.
import postgres from 'postgres'
import { databaseUrl, line, median, quantile, signUp, startStack } from './support.mjs'

const rounds = 60
const warmUp = 10

export default async function run() {
  const stack = await startStack()
  try {
    const { client, id } = await signUp(stack)
    // Limits are checked as for everybody, and not reached.
    const sql = postgres(databaseUrl(stack), { max: 1 })
    await sql`select admin.set_plan(${id}, 'enterprise')`
    await sql.end()
    const { data, error } = await client.rpc('create_api_key', { name: 'Bench' })
    if (error) throw error
    const direct = []
    const through = []
    for (let round = 0; round < rounds + warmUp; round++) {
      const body = {
        model: 'gpt-4o-mini',
        stream: true,
        messages: [{ role: 'user', content: `Round ${round}: hello.` }],
      }
      const here = await firstChunk(`${stack.url}/sandbox/openai/v1`, 'sandbox', body)
      const there = await firstChunk(`${stack.url}/functions/v1/openai/v1`, data.key, body)
      if (round < warmUp) continue
      direct.push(here)
      through.push(there)
    }
    line('first chunk, median', `${median(through).toFixed(1)} ms`, `direct ${median(direct).toFixed(1)} ms`)
    line(
      'first chunk, p95',
      `${quantile(through, 0.95).toFixed(1)} ms`,
      `direct ${quantile(direct, 0.95).toFixed(1)} ms`,
    )
    line('added by Parlor, median', `${(median(through) - median(direct)).toFixed(1)} ms`, 'goal 20 ms')
  } finally {
    await stack.discard()
  }
}

/** Milliseconds until the stream carries text; reads it to its end, so that rounds do not overlap. */
async function firstChunk(baseUrl, key, body) {
  const started = performance.now()
  const response = await fetch(`${baseUrl}/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`)
  let first
  let seen = ''
  for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
    seen += chunk
    if (first === undefined && /"content":"[^"]/.test(seen)) first = performance.now() - started
  }
  return first
}
