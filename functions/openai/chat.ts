import type { Hono } from 'hono'
import {
  type ChatCompletion,
  type ChatCompletionBody,
  chatCompletionBody,
  chatCompletionHeaders,
} from '../../types/openai.ts'
import { requireKeyOrUser } from '../_shared/api-key.ts'
import { actor } from '../_shared/auth.ts'
import type { Env } from '../_shared/env.ts'
import { parse, readBody, type Service } from '../_shared/http.ts'
import { limitRate } from '../_shared/limits/middleware.ts'
import { requireAllowed } from '../_shared/llm/allowed.ts'
import { beginCompletion, failed, finishCompletion, type SayOptions, say } from '../_shared/llm/completion.ts'
import type { Format } from '../_shared/llm/request.ts'
import { estimatePrompt, type Settings } from '../_shared/llm/route.ts'
import { estimateTokens } from '../_shared/llm/tokens.ts'
import { characterIn, characterSettings, promptOf } from './character.ts'
import { createConversations } from './conversation.ts'
import { completionOf, headOf } from './shapes.ts'
import { give, type Speech } from './speech.ts'

/** Longest answer of a client that names no limit; theirs expect a whole one. */
const defaultMaxTokens = 4096

export function addChatCompletions(app: Hono<Service>, env: Env): void {
  const converse = createConversations(env)

  app.post('/v1/chat/completions', requireKeyOrUser(env, 'chat'), limitRate(env), async (c) => {
    const headers = parse(chatCompletionHeaders, {
      'idempotency-key': c.req.header('idempotency-key'),
      'x-parlor-conversation': c.req.header('x-parlor-conversation'),
    })
    const body = await readBody(c, chatCompletionBody)
    const { 'idempotency-key': key, 'x-parlor-conversation': conversation } = headers
    const log = c.get('log')
    if (conversation !== undefined) {
      return give(c, body, await converse({ userId: actor(c).id, body, conversation, key, log }))
    }

    const said = body.messages.flatMap(({ role, content }) => (role === 'user' ? [content] : []))
    await requireAllowed(env, said, log)

    const character = characterIn(body.model)
    const settings = character ? characterSettings(settingsOf(body)) : settingsOf(body)
    const format = formatOf(body)
    const completion = await beginCompletion(env, actor(c).id, {
      kind: 'openai',
      ...(character ? { character_id: character } : { model: body.model }),
      prompt_tokens: estimatePrompt(body.messages) + (format ? estimateTokens(JSON.stringify(format)) : 0),
      max_tokens: settings.max_tokens,
      ...(key !== undefined && { idempotency_key: key, body_hash: await hashOf(body) }),
    })
    if (completion.answer) return give(c, body, repeated(completion.answer as ChatCompletion))

    const prompt = character ? promptOf(completion, body.messages, settings) : undefined
    const options = { env, log, completion, messages: body.messages, prompt, settings, format }
    return give(c, body, spokenBy(body.model, options, key !== undefined))
  })
}

/** A completion that a model speaks; whoever leaves stops it, since nobody else can read it. */
function spokenBy(model: string, options: Omit<SayOptions, 'signal' | 'onText'>, isKept: boolean): Speech {
  const { env, completion } = options
  const head = headOf(completion.completion_id, model)
  return {
    head,
    async speak(signal, onText) {
      try {
        const made = completionOf(head, await say({ ...options, signal, onText }))
        await finishCompletion(env, completion, { outcome: 'completed', ...(isKept && { answer: made }) })
        return made
      } catch (error) {
        throw await failed(env, completion, error, signal)
      }
    },
  }
}

/** What was answered before. */
function repeated(answer: ChatCompletion): Speech {
  return {
    head: answer,
    async speak(_, onText) {
      onText?.(answer.choices[0]!.message.content)
      return answer
    },
  }
}

function settingsOf(body: ChatCompletionBody): Settings & { max_tokens: number } {
  const { temperature, top_p, frequency_penalty, presence_penalty, seed, stop } = body
  const max_tokens = body.max_completion_tokens ?? body.max_tokens ?? defaultMaxTokens
  return { temperature, top_p, frequency_penalty, presence_penalty, seed, stop: [stop ?? []].flat(), max_tokens }
}

function formatOf({ response_format: format }: ChatCompletionBody): Format | undefined {
  if (format?.type === 'json_object') return { type: 'json_object' }
  if (format?.type !== 'json_schema') return undefined
  const { name, schema = {}, strict } = format.json_schema
  return { type: 'json_schema', name, schema, strict: strict ?? false }
}

/** Tells the same request from another one: SHA-256 of its body, as it is understood. */
async function hashOf(body: ChatCompletionBody): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(JSON.stringify(body)))
  return btoa(String.fromCharCode(...new Uint8Array(digest)))
}
