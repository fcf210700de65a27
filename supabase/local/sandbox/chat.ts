import { answerTo, countTokens, deltasOf, hostileDeltas, textOf } from './answer.ts'
import { type Faults, faultsOf, problem } from './faults.ts'
import type { Entry, Log } from './log.ts'
import { sample, schemaOf } from './structured.ts'

/** Deltas that a cut, stalled or failing stream sends before its fault. */
const deltasBeforeFault = 5

const wait = (ms: number, signal: AbortSignal) =>
  new Promise<void>((resolve) => {
    if (signal.aborted || ms <= 0) return resolve()
    const timer = setTimeout(resolve, ms)
    const stop = () => {
      clearTimeout(timer)
      resolve()
    }
    signal.addEventListener('abort', stop, { once: true })
  })

/** Everything that may happen before the answer's headers: waiting, and every refusal. */
export async function refusal(
  entry: Entry,
  promptTokens: number,
  log: Log,
  request: Request,
): Promise<Response | null> {
  const faults = faultsOf(entry.model)
  // Only then: Deno would abort the signal of every request that was answered, and say so.
  if (faults.delayMs > 0 || faults.has('stall-before')) {
    const { signal } = request
    await wait(faults.delayMs, signal)
    if (faults.has('stall-before')) await log.stall(entry, signal)
    if (signal.aborted) {
      entry.state = 'closed-early'
      entry.closed_early = true
      return new Response(null, { status: 499 })
    }
  }
  const refused = refuse(faults, promptTokens)
  if (refused) entry.state = 'done'
  return refused
}

function refuse(faults: Faults, promptTokens: number): Response | null {
  if (faults.rateLimit !== null) {
    const limits = {
      'x-ratelimit-limit-requests': '60',
      'x-ratelimit-remaining-requests': '0',
      'x-ratelimit-reset-requests': `${faults.rateLimit}s`,
    }
    return problem(429, 'Rate limit reached for requests.', 'rate_limit_exceeded', {
      'retry-after': String(faults.rateLimit),
      ...limits,
    })
  }
  if (faults.has('insufficient-quota')) {
    return problem(
      429,
      'You exceeded your current quota, please check your plan and billing details.',
      'insufficient_quota',
    )
  }
  if (faults.has('error-html-500')) {
    return new Response('<html><body><h1>500 Internal Server Error</h1><hr>nginx</body></html>', {
      status: 500,
      headers: { 'content-type': 'text/html' },
    })
  }
  if (faults.contextTokens !== null && promptTokens > faults.contextTokens) {
    const message = `This model's maximum context length is ${faults.contextTokens} tokens. However, your messages resulted in ${promptTokens} tokens.`
    return problem(400, message, 'context_length_exceeded', {}, 'messages')
  }
  if (faults.status !== null) return problem(faults.status, 'The server had an error while processing your request.')
  if (faults.has('error-in-200')) return Response.json({ error: { message: 'Provider returned error', code: 502 } })
  return null
}

/** The answer, as one JSON body or as a stream of chunks. */
export function complete(entry: Entry, promptTokens: number, log: Log): Response {
  const { body } = entry
  const faults = faultsOf(entry.model)
  const { deltas, finish } = limit(wordsFor(entry, faults), body)
  const streamed = body.stream === true && !faults.has('not-streaming')
  const head = { id: `chatcmpl-${entry.id}`, created: Math.floor(Date.now() / 1000), model: entry.model }
  const cached = cachedTokens(entry, log)
  const usageOf = (text: string) => ({
    prompt_tokens: promptTokens,
    completion_tokens: countTokens(text),
    total_tokens: promptTokens + countTokens(text),
    prompt_tokens_details: { cached_tokens: cached },
    completion_tokens_details: { reasoning_tokens: 0 },
  })
  if (streamed) return stream(entry, log, faults, deltas, finish, head, usageOf)

  entry.state = 'done'
  entry.deltas = deltas.length
  const content = deltas.join('')
  const choice = {
    index: 0,
    message: { role: 'assistant', content, refusal: null },
    logprobs: null,
    finish_reason: finish,
  }
  return Response.json({
    ...head,
    object: 'chat.completion',
    choices: faults.has('empty-choices') ? [] : [choice],
    ...(faults.has('no-usage') ? {} : { usage: usageOf(content) }),
  })
}

/**
 * What the cache of prompts saves, as OpenAI's does by itself: the beginning that one of the model's last prompts had too,
 * in steps of 128 tokens from 1,024 on.
 */
function cachedTokens(entry: Entry, log: Log): number {
  const text = (messages: Entry['body']['messages']) => JSON.stringify(messages?.map((m) => [m.role, textOf(m)]))
  const own = text(entry.body.messages)
  if (countTokens(own) < 1024) return 0
  const before = log.list({ model: entry.model }).filter(({ id }) => id !== entry.id)
  const shared = before.slice(0, 20).map(({ body }) => {
    const other = text(body.messages)
    let length = 0
    while (length < own.length && own[length] === other[length]) length += 1
    return countTokens(own.slice(0, length))
  })
  const longest = Math.max(0, ...shared)
  return longest < 1024 ? 0 : Math.floor(longest / 128) * 128
}

function wordsFor(entry: Entry, faults: Faults): string[] {
  const messages = entry.body.messages!
  if (faults.has('hostile')) return hostileDeltas
  if (faults.has('echo')) return deltasOf(textOf(messages.findLast((m) => m.role === 'user')))
  // Models slip: this one keeps to a form only once it has been told of its mistake.
  const slips = faults.has('unstructured-once') && !messages.some((m) => m.role === 'assistant')
  const schema = slips ? null : schemaOf(entry.body)
  if (schema) return deltasOf(JSON.stringify(sample(schema, textOf(messages.find((m) => m.role === 'user')))))
  return deltasOf(answerTo(messages))
}

/** Applies `max_tokens` and `stop`. */
function limit(deltas: string[], body: Entry['body']): { deltas: string[]; finish: 'stop' | 'length' } {
  const most = Number(body.max_completion_tokens ?? body.max_tokens ?? Infinity)
  const stops = [body.stop ?? []].flat().map(String).filter(Boolean)
  const whole = deltas.join('')
  const end = Math.min(whole.length, ...stops.map((stop) => whole.indexOf(stop)).filter((at) => at >= 0))
  const kept: string[] = []
  let length = 0
  for (const delta of deltas) {
    if (countTokens(whole.slice(0, Math.min(length + delta.length, end))) > most)
      return { deltas: kept, finish: 'length' }
    if (length < end) kept.push(delta.slice(0, end - length))
    length += delta.length
  }
  return { deltas: kept, finish: 'stop' }
}

function stream(
  entry: Entry,
  log: Log,
  faults: Faults,
  deltas: string[],
  finish: string,
  head: object,
  usageOf: (text: string) => object,
): Response {
  const gone = new AbortController()
  const encoder = new TextEncoder()
  const chunk = (choices: unknown[], more: object = {}) => ({
    ...head,
    object: 'chat.completion.chunk',
    choices,
    ...more,
  })
  const delta = (part: object, reason: string | null = null) =>
    chunk([{ index: 0, delta: part, logprobs: null, finish_reason: reason }])

  const body = new ReadableStream<Uint8Array>({
    async start(controller) {
      /** Cuts a frame inside its last multi-byte character, so that the two halves travel in two writes. */
      const send = async (data: unknown) => {
        if (gone.signal.aborted) return
        const bytes = encoder.encode(typeof data === 'string' ? data : `data: ${JSON.stringify(data)}\n\n`)
        const at = bytes.findLastIndex((byte) => byte >= 0xc0)
        if (at < 0) return controller.enqueue(bytes)
        controller.enqueue(bytes.subarray(0, at + 1))
        await wait(1, gone.signal)
        if (!gone.signal.aborted) controller.enqueue(bytes.subarray(at + 1))
      }
      entry.state = 'streaming'
      await send(delta({ role: 'assistant', content: '' }))
      for (const [index, text] of deltas.entries()) {
        await wait(index === 0 ? 0 : faults.tokenMs, gone.signal)
        if (index === Math.min(deltasBeforeFault, deltas.length - 1)) {
          if (faults.has('cut')) return end(() => controller.close())
          if (faults.has('cut-socket')) return end(() => controller.error('cut-socket'))
          if (faults.has('empty-choices')) await send(chunk([]))
          if (faults.has('error-in-stream')) {
            await send({
              ...chunk([]),
              error: { message: 'The upstream provider failed.', type: 'server_error', code: 'provider_error' },
            })
            return end(() => controller.close())
          }
          if (faults.has('stall')) await stall(send)
        }
        if (gone.signal.aborted) return
        await send(delta({ content: text }))
        entry.deltas++
      }
      if (gone.signal.aborted) return
      await send(delta({}, finish))
      const wantsUsage = (entry.body.stream_options as { include_usage?: boolean } | undefined)?.include_usage
      if (wantsUsage && !faults.has('no-usage')) await send(chunk([], { usage: usageOf(deltas.join('')) }))
      await send('data: [DONE]\n\n')
      end(() => controller.close())
    },
    cancel() {
      if (entry.state !== 'done') {
        entry.closed_early = true
        entry.state = 'closed-early'
      }
      gone.abort()
    },
  })
  /** A stalled stream still sends comments, which keep proxies content and must not reset anybody's idle timer. */
  async function stall(send: (data: string) => Promise<void>) {
    const beat = setInterval(() => void send(': keep-alive\n\n'), 1000)
    await log.stall(entry, gone.signal)
    clearInterval(beat)
  }
  function end(how: () => void) {
    if (gone.signal.aborted) return
    entry.state = 'done'
    how()
  }
  return new Response(body, {
    headers: { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache' },
  })
}
