import { z } from 'zod'
import { idempotencyKey, type RouteDescription, storableText } from './common.ts'

/**
 * The bodies of OpenAI's API, as far as they are kept to here. Fields that are not named are ignored, as clients send
 * many; those that would change what the answer means, and cannot be had, are refused.
 */

const model = storableText
  .min(1)
  .max(120)
  .meta({ description: 'Id of a model, as `GET /openai/v1/models` lists them, or `character:<id>`.' })

const part = z.object({
  type: z.literal('text', { error: 'Only text is understood.' }),
  text: storableText.max(200_000),
})

/** Text, or parts of text, which are put together. */
const content = z
  .union([storableText.max(200_000), z.array(part).min(1).max(100)], {
    error: 'Content is text, or a list of text parts.',
  })
  .transform((value) => (typeof value === 'string' ? value : value.map(({ text }) => text).join('')))

const chatMessage = z.object({
  role: z
    .enum(['system', 'developer', 'user', 'assistant'], { error: 'Roles are system, developer, user and assistant.' })
    .transform((role) => (role === 'developer' ? 'system' : role)),
  content,
})

const responseFormat = z.discriminatedUnion('type', [
  z.object({ type: z.literal('text') }),
  z.object({ type: z.literal('json_object') }),
  z.object({
    type: z.literal('json_schema'),
    json_schema: z.object({
      name: z.string().regex(/^[\w-]{1,64}$/),
      schema: z.record(z.string(), z.unknown()).optional(),
      strict: z.boolean().nullish(),
    }),
  }),
])

const stop = storableText.min(1).max(200)

export const chatCompletionBody = z
  .object({
    model,
    messages: z.array(chatMessage).min(1).max(1000),
    temperature: z.number().min(0).max(2).nullish(),
    top_p: z.number().gt(0).max(1).nullish(),
    frequency_penalty: z.number().min(-2).max(2).nullish(),
    presence_penalty: z.number().min(-2).max(2).nullish(),
    max_completion_tokens: z
      .int()
      .min(1)
      .nullish()
      .meta({ description: 'Longest answer in tokens; 4096 without, and never more than the model gives.' }),
    max_tokens: z.int().min(1).nullish().meta({ description: 'Older name of max_completion_tokens.' }),
    stop: z
      .union([stop, z.array(stop).max(4)], { error: 'Stop is a text or at most four, each of 1 to 200 characters.' })
      .nullish(),
    seed: z.int().nullish(),
    response_format: responseFormat.nullish(),
    stream: z.boolean().nullish(),
    stream_options: z.object({ include_usage: z.boolean().nullish() }).nullish(),
    n: z.literal(1, { error: 'One answer at a time: n is 1.' }).nullish(),
    tools: z.array(z.unknown()).max(0, { error: 'Tools are not supported.' }).nullish(),
    functions: z.array(z.unknown()).max(0, { error: 'Functions are not supported.' }).nullish(),
    logprobs: z.literal(false, { error: 'Log probabilities are not supported.' }).nullish(),
    modalities: z.array(z.literal('text', { error: 'Answers are text.' })).nullish(),
    audio: z.null({ error: 'Answers are text.' }).optional(),
  })
  .meta({ id: 'OpenAiChatCompletionRequest' })

export type ChatCompletionBody = z.output<typeof chatCompletionBody>

export const chatCompletionHeaders = z.object({
  'idempotency-key': idempotencyKey.optional(),
  'x-parlor-conversation': z
    .string()
    .regex(/^(new|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$/i, 'Say new, or the id of a conversation.')
    .optional()
    .meta({
      description:
        'With a character: keeps the conversation. `new` begins one, an id goes on with it; the answer has the id in the ' +
        'header of the same name. The last message of the body is sent, and the conversation’s own are the history.',
    }),
})

const tokens = z.object({ prompt_tokens: z.int(), total_tokens: z.int() })

const completionUsage = tokens.extend({
  completion_tokens: z.int(),
  prompt_tokens_details: z.object({ cached_tokens: z.int() }),
  completion_tokens_details: z.object({ reasoning_tokens: z.int() }),
})

export const chatCompletion = z
  .object({
    id: z.string(),
    object: z.literal('chat.completion'),
    created: z.int(),
    model: z.string(),
    choices: z.array(
      z.object({
        index: z.literal(0),
        message: z.object({ role: z.literal('assistant'), content: z.string(), refusal: z.null() }),
        logprobs: z.null(),
        finish_reason: z.enum(['stop', 'length', 'content_filter']),
      }),
    ),
    usage: completionUsage,
  })
  .meta({ id: 'OpenAiChatCompletion' })

export type ChatCompletion = z.infer<typeof chatCompletion>
export type FinishReason = ChatCompletion['choices'][number]['finish_reason']

export const embeddingBody = z
  .object({
    model,
    input: z
      .union([storableText.min(1).max(200_000), z.array(storableText.min(1).max(200_000)).min(1).max(2048)], {
        error:
          'Input is a text or a list of at most 2048, each of 1 to 200,000 characters; ' +
          'lists of token numbers are not understood.',
      })
      .transform((input) => [input].flat()),
    dimensions: z.int().min(1).nullish(),
    encoding_format: z.enum(['float', 'base64']).nullish(),
  })
  .meta({ id: 'OpenAiEmbeddingRequest' })

export const embeddings = z
  .object({
    object: z.literal('list'),
    model: z.string(),
    data: z.array(
      z.object({
        object: z.literal('embedding'),
        index: z.int(),
        embedding: z
          .union([z.array(z.number()), z.string()])
          .meta({ description: 'Numbers, or with encoding_format base64 their little-endian float32.' }),
      }),
    ),
    usage: tokens,
  })
  .meta({ id: 'OpenAiEmbeddings' })

export const modelParams = z.object({ id: z.string().min(1).max(200) })

const openAiModel = z
  .looseObject({
    id: z.string(),
    object: z.literal('model'),
    created: z.int(),
    owned_by: z.string(),
    name: z.string(),
    kind: z.string().meta({ description: '`chat`, `embedding`, `character`; bear with others.' }),
    context_length: z.int().optional(),
  })
  .meta({ id: 'OpenAiModel' })

export const models = z.object({ object: z.literal('list'), data: z.array(openAiModel) }).meta({ id: 'OpenAiModels' })

/** Every answer of these routes with status 400 and above. */
export const openAiError = z
  .object({
    error: z.object({
      message: z.string(),
      type: z.string(),
      param: z.string().nullable(),
      code: z.string().nullable().meta({ description: 'OpenAI’s code where it has one, else ours.' }),
      reason: z.string().meta({ description: 'Our own code, as problem documents have it.' }),
    }),
  })
  .meta({ id: 'OpenAiError' })

const events =
  'Chunks of OpenAI’s form (`object: chat.completion.chunk`) as data, then `data: [DONE]`. An error after the first chunk ' +
  'is `data: {"error": …}`, and the stream ends.'

export const openAiRoutes: RouteDescription[] = [
  {
    method: 'post',
    path: '/openai/v1/chat/completions',
    summary: 'OpenAI’s chat completions',
    access: 'key',
    error: openAiError,
    headers: chatCompletionHeaders,
    body: chatCompletionBody,
    responses: {
      200: { description: 'The answer, or with `stream: true` its chunks.', content: chatCompletion, orEvents: events },
    },
    problems: [403, 404, 409, 429, 502, 503],
  },
  {
    method: 'post',
    path: '/openai/v1/embeddings',
    summary: 'OpenAI’s embeddings',
    access: 'key',
    error: openAiError,
    body: embeddingBody,
    responses: { 200: { description: 'One vector for each text, in their order.', content: embeddings } },
    problems: [403, 404, 429, 502, 503],
  },
  {
    method: 'get',
    path: '/openai/v1/models',
    summary: 'Models that the caller may use',
    access: 'key',
    error: openAiError,
    responses: {
      200: { description: 'Those that the plan includes, and characters of the caller’s own.', content: models },
    },
    problems: [403, 429],
  },
  {
    method: 'get',
    path: '/openai/v1/models/{id}',
    summary: 'One of them',
    access: 'key',
    error: openAiError,
    params: modelParams,
    responses: { 200: { description: 'The model.', content: openAiModel } },
    problems: [403, 404, 429],
  },
]
