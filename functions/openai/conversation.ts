import type { ChatCompletionBody } from '../../types/openai.ts'
import { inBackground } from '../_shared/background.ts'
import type { Env } from '../_shared/env.ts'
import { follow } from '../_shared/generation/follow.ts'
import { startInline } from '../_shared/generation/inline.ts'
import { Poller } from '../_shared/generation/poller.ts'
import type { GenerationState, MessageRow, Reader } from '../_shared/generation/reader.ts'
import { requireAllowed } from '../_shared/llm/allowed.ts'
import { isPlanRefusal } from '../_shared/llm/completion.ts'
import type { Usage } from '../_shared/llm/read.ts'
import type { Settings } from '../_shared/llm/route.ts'
import type { Log } from '../_shared/log.ts'
import { Problem } from '../_shared/problem.ts'
import { characterIn } from './character.ts'
import { completionOf, headOf } from './shapes.ts'
import type { Speech } from './speech.ts'

export interface Said {
  userId: string
  body: ChatCompletionBody
  /** What X-Parlor-Conversation says: the id of a conversation, or `new`. */
  conversation: string
  /** Of the client that may send the same request again. */
  key: string | undefined
  log: Log
}

/** What `service.talk_to_character` returns, as far as it matters here. */
interface Sent {
  conversation_id: string
  assistant_message: MessageRow & { created_at: string }
  generation: { id: string; status: string }
  job_id: string | null
}

/**
 * Answers in conversations that are kept. The client's newest message is sent to the conversation, whose own messages are
 * the history; the answer is made, watched and ended as any other of it.
 */
export function createConversations(env: Env) {
  let poller: Poller | undefined

  return async ({ userId, body, conversation, key, log }: Said): Promise<Speech> => {
    const character = characterIn(body.model)
    if (!character) throw invalid('model', 'character_expected', 'Only with a character can a conversation be kept.')
    const content = newestOf(body)
    const wishes = wishesOf(body)
    await requireAllowed(env, [content], log)
    const sent = await env.service.call<Sent>('talk_to_character', userId, {
      character_id: character,
      ...(conversation.toLowerCase() !== 'new' && { conversation_id: conversation }),
      content,
      ...(key !== undefined && { idempotency_key: key }),
      ...(Object.keys(wishes).length > 0 && { wishes }),
    })
    if (sent.generation.status === 'queued') await startInline(env, sent.generation.id, log, { moderated: true })
    return spokenIn(sent, userId, body.model, key !== undefined, log)
  }

  function spokenIn(sent: Sent, userId: string, model: string, mayComeAgain: boolean, log: Log): Speech {
    const { generation, conversation_id } = sent
    const head = headOf(generation.id, model, new Date(sent.assistant_message.created_at))
    const headers = { 'x-parlor-conversation': conversation_id }
    // The message stands in the conversation: without a key, to send it again would say it twice.
    const once = { ...headers, 'x-should-retry': 'false' }
    const interrupted = () => {
      const detail = 'This request cannot give the whole answer; it goes on in the conversation.'
      return new Problem(502, 'answer_interrupted', detail, { headers: mayComeAgain ? headers : once })
    }

    async function speak(signal: AbortSignal, onText?: (text: string) => void) {
      let text = ''
      const hear = (piece: string) => {
        text += piece
        if (piece) onText?.(piece)
      }
      for await (const { event, data } of follow(followOptions(signal))) {
        if (event === 'generation.delta') hear(String(data.text))
        if (event === 'generation.snapshot') hear(String(data.content))
        if (event === 'generation.reset') {
          // What was said is drawn back, and these clients know no way to.
          if (onText) throw interrupted()
          text = ''
        }
        if (event === 'generation.completed' || event === 'generation.cancelled') {
          const message = data.message as { content: string; finish_reason: string } | null
          const usage = (data.usage as Usage | null) ?? nothing
          return completionOf(head, {
            text: message?.content ?? text,
            finishReason: message?.finish_reason ?? 'stop',
            usage,
          })
        }
        if (event === 'generation.gone') {
          const detail = 'The conversation was deleted, or you take no part in it any more.'
          throw new Problem(404, String(data.code), detail, { headers: once })
        }
        if (event === 'generation.failed') {
          const code = String(data.code)
          const detail = 'The character could not answer; the message is kept.'
          throw new Problem(isPlanRefusal(code) ? 429 : 502, code, detail, { headers: once })
        }
      }
      // Leaving is the only way to stop an answer that these clients know. Who may come again wants to hear it then.
      if (signal.aborted && !mayComeAgain) inBackground(cancel())
      throw interrupted()
    }

    function followOptions(signal: AbortSignal) {
      poller ??= new Poller(env.service, env.log)
      const cursor = { attempt: 0, seq: 0 }
      const generationId = generation.id
      const { clock } = env
      const read = readerOf(env, generationId, userId)
      return { read, poller, clock, generationId, readerId: userId, jobId: sent.job_id, cursor, signal }
    }

    async function cancel() {
      await env.service.call('cancel_answer', userId, generation.id).catch((error) => {
        log.warn('cancel_failed', { generation_id: generation.id }, error)
      })
    }

    return { head, headers, speak }
  }
}

/** Reads an answer as somebody of whom there may be no token. */
function readerOf(env: Env, generationId: string, userId: string): Reader {
  type State = GenerationState & { readers: string[] }
  return async ({ attempt, seq }) => {
    const asked = [{ generation_id: generationId, attempt, seq, readers: [userId] }]
    const [state] = await env.service.call<State[]>('follow_generations', asked)
    return state?.readers.includes(userId) ? state : null
  }
}

const nothing: Usage = { prompt_tokens: 0, completion_tokens: 0, cached_tokens: 0, estimated: true }

const invalid = (field: string, code: string, detail: string) =>
  Problem.invalid([{ pointer: `#/${field}`, code, detail }])

/** What the user says now: the last message, which has to be theirs. */
function newestOf({ messages }: ChatCompletionBody): string {
  const newest = messages.at(-1)!
  if (newest.role === 'user') return newest.content
  const detail = 'In a conversation that is kept, the last message is the user’s.'
  throw invalid(`messages/${messages.length - 1}/role`, 'user_message_expected', detail)
}

/** Settings of this one answer beside those of the conversation. */
function wishesOf(body: ChatCompletionBody): Settings {
  const { temperature, top_p, frequency_penalty, presence_penalty, seed, stop, response_format } = body
  if (response_format && response_format.type !== 'text') {
    throw invalid('response_format', 'text_expected', 'In a conversation that is kept, a character answers in text.')
  }
  const max_tokens = body.max_completion_tokens ?? body.max_tokens
  const stops = stop ? [stop].flat() : null
  const wishes = { temperature, top_p, frequency_penalty, presence_penalty, seed, stop: stops, max_tokens }
  return Object.fromEntries(Object.entries(wishes).filter(([, value]) => value !== null && value !== undefined))
}
