import { z } from 'zod'
import { id, idempotencyKey, type RouteDescription, storableText } from './common.ts'

/** Longest message a person may send, in UTF-16 units; SQL holds the rule, this saves the trip. */
export const maxContentLength = 32_000

const content = storableText
  .min(1)
  .max(maxContentLength)
  .refine((text) => text.trim() !== '', { params: { code: 'text_blank' }, error: 'Text must not be blank.' })

/** What every request for an answer may say. */
const asking = {
  idempotency_key: idempotencyKey
    .optional()
    .meta({ description: 'Same as the header Idempotency-Key; give one of them.' }),
  stream: z.boolean().default(true).meta({ description: 'Server-sent events, or one JSON answer at the end.' }),
  run: z
    .enum(['inline', 'queued'])
    .default('inline')
    .meta({ description: 'Answered by this request at once, or by the queue’s worker.' }),
}

export const sendMessageBody = z.strictObject({ conversation_id: id, content, ...asking }).meta({ id: 'SendMessage' })

export const regenerateBody = z
  .strictObject({
    conversation_id: id,
    message_id: id.optional().meta({
      description: 'The answer to have another one of; without it, the last one of the branch that is shown.',
    }),
    ...asking,
  })
  .meta({ id: 'Regenerate' })

export const regenerateMessageBody = z.strictObject(asking).meta({ id: 'RegenerateMessage' })

export const editMessageBody = z.strictObject({ content, ...asking }).meta({ id: 'EditMessage' })

export const messageParams = z.object({ id })

export const sendMessageHeaders = z.object({ 'idempotency-key': idempotencyKey.optional() })

export const generationParams = z.object({ id })

/** `attempt.seq` of the last delta seen. */
export const lastEventId = z.string().regex(/^\d{1,9}\.\d{1,9}$/)

export const attachHeaders = z.object({
  'last-event-id': lastEventId
    .optional()
    .meta({ description: 'Id of the last event seen; what came after it follows.' }),
})

/** Clients must bear values they do not know. */
export const generationStatus = z.enum(['queued', 'running', 'completed', 'failed', 'cancelled'])

export const message = z
  .looseObject({
    id,
    conversation_id: id,
    role: z.string(),
    content: z.string(),
    status: z.string(),
    created_at: z.string(),
  })
  .meta({ id: 'Message', description: 'A row of table messages.' })

export const usage = z
  .looseObject({
    prompt_tokens: z.int(),
    completion_tokens: z.int(),
    cached_tokens: z.int().optional(),
    estimated: z.boolean().meta({ description: 'True where the provider gave no figures.' }),
  })
  .meta({ id: 'Usage' })

export const generation = z.looseObject({ id, status: generationStatus }).meta({ id: 'Generation' })

export const sentMessage = z
  .object({
    user_message: message,
    assistant_message: message,
    generation,
    job_id: id.nullable(),
    usage: usage.nullish(),
  })
  .meta({ id: 'SentMessage' })

export const editedMessage = sentMessage
  .extend({ user_message: message.nullable(), generation: generation.nullable() })
  .meta({ id: 'EditedMessage', description: 'Without a generation: an answer that was edited, by a person.' })

export const cancelledGeneration = z
  .object({
    generation_id: id,
    status: generationStatus,
    cancel_requested: z.boolean().meta({ description: 'True while its runner has still to stop.' }),
  })
  .meta({ id: 'CancelledGeneration' })

/** Events of a stream by name; Realtime uses the same names and payloads. `[DONE]` ends a stream. */
export const generationEvents = {
  'generation.connected': z.object({ generation_id: id, job_id: id.nullable() }),
  'generation.processing': z.object({ generation_id: id }),
  'generation.delta': z.object({ attempt: z.int(), seq: z.int(), text: z.string() }),
  'generation.reset': z
    .object({ attempt: z.int() })
    .meta({ description: 'Drop the text shown: another attempt begins.' }),
  'generation.snapshot': z
    .object({ content: z.string() })
    .meta({ description: 'All text so far; replaces what is shown.' }),
  'generation.completed': z
    .object({
      message: z.union([message, z.object({ role: z.string(), content: z.string(), finish_reason: z.string() })]),
      usage: usage.nullable(),
    })
    .meta({ description: 'The stored message; of a completion, which stores nothing, only what it says.' }),
  'generation.cancelled': z.object({ generation_id: id, message: message.nullish(), usage: usage.nullish() }),
  'generation.failed': z.object({ code: z.string(), retryable: z.boolean(), message: message.nullish() }),
  'generation.gone': z
    .object({ generation_id: id, code: z.literal('generation_not_found') })
    .meta({ description: 'You may not read it any more. On streams only.' }),
} as const

const answered = (content: typeof sentMessage | typeof editedMessage): RouteDescription['responses'] => ({
  200: {
    description: 'The answer as events, or with `stream: false` the finished answer.',
    content,
    orEvents: true,
  },
  202: {
    description: 'With `stream: false`: the answer goes on without this request; attach to it.',
    content,
  },
})

export const chatRoutes: RouteDescription[] = [
  {
    method: 'post',
    path: '/chat/messages',
    summary: 'Send a message and get the character’s answer',
    description:
      'Stores the message and starts the answer in one transaction. The same idempotency key with the same body returns ' +
      'the same rows and attaches to the running answer. Leaving does not stop the answer; cancelling does.',
    access: 'user',
    headers: sendMessageHeaders,
    body: sendMessageBody,
    responses: answered(sentMessage),
    problems: [404, 409, 502, 503],
  },
  {
    method: 'post',
    path: '/chat/messages/regenerate',
    summary: 'Get another answer to the last message, or to any',
    description:
      'The answers before stay beside it; the new one is shown. With `message_id` of a person’s message it is answered ' +
      '(again). Everything else is as for a message that is sent.',
    access: 'user',
    headers: sendMessageHeaders,
    body: regenerateBody,
    responses: answered(sentMessage),
    problems: [403, 404, 409, 502],
  },
  {
    method: 'post',
    path: '/chat/messages/{id}/regenerate',
    summary: 'Get another answer beside this one',
    description: 'As `/chat/messages/regenerate` with the id of the answer. The body may be empty.',
    access: 'user',
    params: messageParams,
    headers: sendMessageHeaders,
    body: regenerateMessageBody,
    bodyMayBeEmpty: true,
    responses: answered(sentMessage),
    problems: [403, 404, 409, 502],
  },
  {
    method: 'post',
    path: '/chat/messages/{id}/edit',
    summary: 'Write a message anew, beside the one before, and get its answer',
    description:
      'A message of one’s own is sent again in its place in the tree and answered as a new one. An answer gets the text ' +
      'as it is given: no model is asked, and the response is JSON with neither generation nor job.',
    access: 'user',
    params: messageParams,
    headers: sendMessageHeaders,
    body: editMessageBody,
    responses: answered(editedMessage),
    problems: [403, 404, 409, 502],
  },
  {
    method: 'get',
    path: '/chat/generations/{id}/stream',
    summary: 'Watch an answer, from anywhere in it',
    access: 'user',
    params: generationParams,
    headers: attachHeaders,
    responses: { 200: { description: 'What comes after Last-Event-ID, or everything.', content: 'events' } },
    problems: [404],
  },
  {
    method: 'post',
    path: '/chat/generations/{id}/cancel',
    summary: 'Stop an answer, wherever it is being made',
    access: 'user',
    params: generationParams,
    responses: {
      200: {
        description: 'Its state now. An answer that ended before is left as it is.',
        content: cancelledGeneration,
      },
    },
    problems: [404],
  },
]
