import type { Context } from 'hono'
import type { ChatCompletion, ChatCompletionBody } from '../../types/openai.ts'
import { inBackground } from '../_shared/background.ts'
import { pause } from '../_shared/deadline.ts'
import type { Service } from '../_shared/http.ts'
import { Problem } from '../_shared/problem.ts'
import { type EventSink, eventStream } from '../_shared/sse.ts'
import { describe } from './errors.ts'
import { chunksOf, type Head } from './shapes.ts'

/** An answer that is about to be given. */
export interface Speech {
  head: Head
  /** Has it made; throws Problem. `signal` fires when nobody waits for it any more. */
  speak(signal: AbortSignal, onText?: (text: string) => void): Promise<ChatCompletion>
  headers?: Record<string, string>
}

/** How long headers wait for the first words. After that proxies grow uneasy, and a failure is told within the stream. */
const patienceMs = 10_000

/** Gives the answer in the form that the body asks for. */
export function give(c: Context<Service>, body: ChatCompletionBody, speech: Speech): Promise<Response> {
  return body.stream ? streamed(c, body, speech) : whole(c, speech)
}

async function whole(c: Context<Service>, { speak, headers }: Speech): Promise<Response> {
  return c.json(await speak(c.req.raw.signal), 200, headers)
}

/** The chunks of an answer. Headers wait for its first words: until then a failure is a status that clients understand. */
async function streamed(c: Context<Service>, body: ChatCompletionBody, speech: Speech): Promise<Response> {
  const gone = new AbortController()
  const leave = () => gone.abort()
  c.req.raw.signal.addEventListener('abort', leave)

  const early: string[] = []
  const begun = Promise.withResolvers<void>()
  const waited = new AbortController()
  let take = (text: string) => {
    early.push(text)
    begun.resolve()
  }
  const speaking = speech.speak(gone.signal, (text) => take(text))
  try {
    await Promise.race([begun.promise, speaking, pause(patienceMs, waited.signal)])
  } finally {
    waited.abort()
    // Deno fires it after each answer, also one that was read to its end.
    c.req.raw.signal.removeEventListener('abort', leave)
  }

  return eventStream(async ({ send, signal }) => {
    signal.addEventListener('abort', leave)
    const speaker = speakerOf(send, speech.head, body)
    for (const text of early) speaker.text(text)
    take = speaker.text
    const work = async () => {
      try {
        speaker.end(await speaking)
      } catch (error) {
        if (!(error instanceof Problem)) throw error
        send({ data: { error: describe(error) } })
      }
    }
    const done = work().catch((error) => c.get('log').error('speech_crashed', { answer: speech.head.id }, error))
    inBackground(done)
    await done
  }, speech.headers)
}

/** Sends the parts of an answer as chunks, the first of which says who speaks. */
function speakerOf(send: EventSink['send'], head: Head, { stream_options }: ChatCompletionBody) {
  const withUsage = stream_options?.include_usage === true
  const chunks = chunksOf(head, withUsage)
  send({ data: chunks.role() })
  return {
    text: (text: string) => send({ data: chunks.text(text) }),
    end({ choices, usage }: ChatCompletion) {
      send({ data: chunks.end(choices[0]!.finish_reason) })
      if (withUsage) send({ data: chunks.usage(usage) })
      send({ data: '[DONE]' })
    },
  }
}
