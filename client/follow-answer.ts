/**
 * Shows an answer while it is written, and loses and repeats no character, whatever happens to connections and broadcasts.
 * Copy this file into a front end, or import it: it needs nothing but `fetch`, and supabase-js for `followBroadcasts`.
 *
 * The rule is the same for both ways of reading. Chunks of an attempt are numbered from 1 without gaps; what has been seen
 * is dropped, what comes next is appended, and a gap is closed by reading again after what was seen. A newer attempt drops
 * the text of the one before, and the stored message has the last word.
 */
import type { RealtimeChannel, SupabaseClient } from '@supabase/supabase-js'

type Payload = Record<string, unknown>
type Message = Payload & { content: string }

export interface Usage {
  prompt_tokens: number
  completion_tokens: number
  cached_tokens?: number
  /** Whether any of it is not by the provider's own count. */
  estimated: boolean
}

/** What `rpc read_generation` answers, as far as it is needed here. */
export interface GenerationState {
  status: string
  attempt: number
  chunks: { seq: number; text: string }[]
  message: Message | null
  usage: Usage | null
  error: { code?: string; retryable?: boolean } | null
}

/** An answer as it is shown. */
export class Answer {
  text = ''
  status: 'open' | 'completed' | 'cancelled' | 'failed' = 'open'
  /** The stored message, once the answer has ended. */
  message: Message | null = null
  usage: Usage | null = null
  error: { code: string; retryable: boolean } | null = null
  /** Everything up to chunk `seq` of `attempt` is in `text`. */
  attempt = 0
  seq = 0

  /** Takes an event, by its name on SSE and Realtime. False: chunks before it are missing, so read after `seq`. */
  take(event: string, data: Payload): boolean {
    if (this.status !== 'open') return true
    switch (event) {
      case 'generation.delta':
        return this.#delta(data as never)
      case 'generation.reset':
        this.#begin(data.attempt as number)
        return true
      case 'generation.snapshot':
        this.text = data.content as string
        return true
      case 'generation.completed':
      case 'generation.cancelled':
        this.#end(event === 'generation.completed' ? 'completed' : 'cancelled', data as never)
        return true
      case 'generation.failed':
        this.#end('failed', { error: data, message: data.message })
        return true
      default:
        return true
    }
  }

  /** Takes what `rpc read_generation` answered, also when it comes late. */
  read({ status, attempt, chunks, ...rest }: GenerationState): void {
    if (this.status !== 'open') return
    if (status === 'completed' || status === 'cancelled' || status === 'failed') {
      this.#end(status, rest)
      return
    }
    this.#begin(attempt)
    for (const { seq, text } of chunks) this.#delta({ attempt, seq, text })
  }

  #delta({
    attempt,
    first_seq,
    seq,
    text,
  }: {
    attempt: number
    first_seq?: number
    seq: number
    text: string
  }): boolean {
    if (attempt < this.attempt || (attempt === this.attempt && seq <= this.seq)) return true
    const next = attempt === this.attempt ? this.seq + 1 : 1
    if ((first_seq ?? seq) !== next) return false
    this.#begin(attempt)
    this.text += text
    this.seq = seq
    return true
  }

  #begin(attempt: number): void {
    if (attempt <= this.attempt) return
    this.attempt = attempt
    this.seq = 0
    this.text = ''
  }

  #end(
    status: 'completed' | 'cancelled' | 'failed',
    end: { message?: unknown; usage?: unknown; error?: unknown },
  ): void {
    const { code = 'generation_failed', retryable = false } = (end.error ?? {}) as {
      code?: string
      retryable?: boolean
    }
    this.status = status
    this.message = (end.message as Message | null) ?? null
    this.usage = (end.usage as Usage | null) ?? null
    if (status === 'failed') this.error = { code, retryable }
    if (this.message) this.text = this.message.content
  }
}

/** A refusal of the server, with its problem document. Trying again is useless. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly problem: Payload,
  ) {
    super(String(problem.code ?? problem.message ?? status))
    this.name = 'Refusal'
  }
}

interface Following {
  /** Called after each change of what is to be shown. */
  onChange?(answer: Answer): void
  /** Stops following, which does not stop the answer; the promise rejects with its reason. */
  signal?: AbortSignal
}

export interface StreamOptions extends Following {
  /** `<project>/functions/v1` */
  functionsUrl: string
  /** The access token of the session, asked for each connection, since one may outlive it. */
  token(): string | Promise<string>
  /** The answer to watch, or the message to send: its answer is followed, and it is sent once however often it is tried. */
  follow: { generation_id: string } | { conversation_id: string; content: string; idempotency_key?: string }
  /** For the first wait before connecting again; it grows while nothing comes. */
  retryMs?: number
  fetch?: typeof fetch
}

/** Follows an answer over server-sent events until it has ended, connecting again as often as it takes. */
export async function followStream(options: StreamOptions): Promise<Answer> {
  const { onChange, signal, retryMs = 500 } = options
  const answer = new Answer()
  const connect = connector(options, answer)
  for (let wait = retryMs; ; wait = Math.min(wait * 2, 10_000)) {
    let asked: number | undefined
    try {
      const response = await connect()
      for await (const { event, data, retry } of serverSentEvents(response)) {
        asked = retry ?? asked
        if (data === '[DONE]') return answer
        if (!data) continue
        if (event === 'generation.gone') throw new Refusal(404, JSON.parse(data))
        // The server leaves no gaps; should one come all the same, reading on from what was seen closes it.
        if (!answer.take(event, connect.heard(JSON.parse(data)))) break
        onChange?.(answer)
        wait = retryMs
      }
    } catch (error) {
      // Anything but a refusal is a connection that was lost, and comes back.
      if (error instanceof Refusal || signal?.aborted) throw error
    }
    if (answer.status !== 'open') return answer
    await pause(asked ?? wait * (0.5 + Math.random() / 2), signal)
  }
}

function connector({ functionsUrl, token, follow, signal, fetch: send = fetch }: StreamOptions, answer: Answer) {
  let id = 'generation_id' in follow ? follow.generation_id : undefined
  const body = 'generation_id' in follow ? null : { idempotency_key: crypto.randomUUID(), ...follow }
  const connect = async (): Promise<Response> => {
    signal?.throwIfAborted()
    const authorization = `Bearer ${await token()}`
    const response = id
      ? await send(`${functionsUrl}/chat/generations/${id}/stream`, {
          headers: { authorization, ...(answer.attempt > 0 && { 'last-event-id': `${answer.attempt}.${answer.seq}` }) },
          signal: signal ?? null,
        })
      : await send(`${functionsUrl}/chat/messages`, {
          method: 'POST',
          headers: { authorization, 'content-type': 'application/json' },
          body: JSON.stringify(body),
          signal: signal ?? null,
        })
    if (response.ok) return response
    const problem = await response.json().catch(() => ({}))
    if (response.status === 429 || response.status >= 500) throw new Error(`status ${response.status}`)
    throw new Refusal(response.status, problem)
  }
  /** Learns which answer belongs to the message that was sent. */
  connect.heard = (data: Payload): Payload => {
    id ??= data.generation_id as string | undefined
    return data
  }
  return connect
}

interface ServerSentEvent {
  event: string
  data: string
  retry: number | undefined
}

/** Whole events only: one that was cut off is not one. */
async function* serverSentEvents(response: Response): AsyncGenerator<ServerSentEvent> {
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ''
  let fields: Record<string, string> = {}
  try {
    while (true) {
      const { done, value } = await reader.read()
      if (done) return
      const lines = (rest + value).split('\n')
      rest = lines.pop()!
      for (const line of lines) {
        const [, name, text] = /^([a-z]*):? ?(.*?)\r?$/s.exec(line) ?? []
        if (name) fields[name] = text!
        if (line !== '' && line !== '\r') continue
        const { event = 'message', data = '', retry } = fields
        fields = {}
        yield { event, data, retry: retry === undefined ? undefined : Number(retry) }
      }
    }
  } finally {
    reader.cancel().catch(() => {})
  }
}

export interface BroadcastOptions extends Following {
  /** Signed in, and a participant of the conversation. */
  supabase: SupabaseClient
  conversation_id: string
  generation_id: string
  /** After this long without a broadcast the state is read, since the one that was awaited may be lost. */
  quietMs?: number
}

/** The watch lease lasts 30 seconds. */
const renewMs = 15_000

/**
 * Follows an answer over Realtime until it has ended: for participants other than the one who asked, to whom deltas are
 * sent while they watch. Broadcasts may be lost, late or double; what they leave out is read from the database.
 */
export function followBroadcasts(options: BroadcastOptions): Promise<Answer> {
  const { supabase, conversation_id, generation_id, onChange, signal, quietMs = 3000 } = options
  const answer = new Answer()
  let resolve: (answer: Answer) => void = () => {}
  let reject: (reason: unknown) => void = () => {}
  const promise = new Promise<Answer>((done, failed) => {
    resolve = done
    reject = failed
  })
  let channel: RealtimeChannel | undefined
  let topic = ''
  let reading = false
  let readAgain = false
  let quiet: ReturnType<typeof setTimeout> | undefined

  const changed = () => {
    onChange?.(answer)
    clearTimeout(quiet)
    if (answer.status !== 'open') resolve(answer)
    else quiet = setTimeout(read, quietMs)
  }
  const call = async (name: string, args: Payload) => {
    const { data, error, status } = await supabase.rpc(name, args)
    // Removed from the conversation, or signed out: nothing will come any more.
    if (error && status >= 400 && status < 500 && status !== 429)
      reject(new Refusal(status, { ...error, code: error.message }))
    return error ? null : data
  }
  const read = async () => {
    readAgain = reading
    if (reading) return
    reading = true
    const state = await call('read_generation', {
      generation_id,
      after_attempt: answer.attempt,
      after_seq: answer.seq,
    })
    reading = false
    if (state) answer.read(state)
    changed()
    if (readAgain && answer.status === 'open') await read()
  }
  const join = (name: string) => {
    if (channel) supabase.removeChannel(channel)
    topic = name
    channel = supabase
      .channel(name, { config: { private: true } })
      .on('broadcast', { event: '*' }, ({ event, payload }) => {
        if (payload?.generation_id !== generation_id || answer.status !== 'open') return
        if (answer.take(event, payload)) changed()
        else read()
      })
      // Whatever was sent before is read: also after a connection that was lost and came back.
      .subscribe((status) => {
        if (status === 'SUBSCRIBED') read()
      })
  }
  /** Asks for deltas; the topic is another one after somebody left, and a channel may have been closed. */
  const watch = async () => {
    const lease = (await call('watch_conversation', { conversation_id })) as { topic: string } | null
    if (lease && answer.status === 'open' && (lease.topic !== topic || channel?.state === 'closed')) join(lease.topic)
  }

  const stop = () => reject(signal!.reason)
  if (signal?.aborted) stop()
  else signal?.addEventListener('abort', stop)
  const renewal = setInterval(watch, renewMs)
  watch()
  quiet = setTimeout(read, quietMs)
  return promise.finally(() => {
    clearInterval(renewal)
    clearTimeout(quiet)
    signal?.removeEventListener('abort', stop)
    if (channel) supabase.removeChannel(channel)
  })
}

/** Waits; rejects when `signal` fires. */
function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer)
      reject(signal!.reason)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop)
      resolve()
    }, milliseconds)
    signal?.addEventListener('abort', stop, { once: true })
  })
}
