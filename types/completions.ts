import { z } from 'zod'
import { usage } from './chat.ts'
import { id, type RouteDescription, storableText } from './common.ts'

const text = storableText
  .min(1)
  .max(200_000)
  .refine((value) => value.trim() !== '', { params: { code: 'text_blank' }, error: 'Text must not be blank.' })

const model = storableText
  .min(1)
  .max(120)
  .optional()
  .meta({ description: 'Id of a row of ai_models; the default model without it.' })

export const completeBody = z
  .strictObject({
    prompt: text.optional().meta({ description: 'Short for one message of the user; give this or messages.' }),
    messages: z
      .array(z.strictObject({ role: z.enum(['system', 'user', 'assistant']), content: text }))
      .min(1)
      .max(200)
      .optional(),
    model,
    max_tokens: z.int().min(1).max(32_000).default(1024),
    temperature: z.number().min(0).max(2).default(0.7),
    stream: z.boolean().default(true).meta({ description: 'Server-sent events, or one JSON answer at the end.' }),
  })
  .refine(({ prompt, messages }) => (prompt === undefined) !== (messages === undefined), {
    path: ['prompt'],
    params: { code: 'prompt_or_messages' },
    error: 'Give a prompt or messages, and not both.',
  })
  .meta({ id: 'Complete' })

export const completed = z
  .object({
    id,
    model: z.string(),
    content: z.string(),
    finish_reason: z.string().meta({ description: '`length` when max_tokens or the time was over.' }),
    usage: usage.nullable(),
  })
  .meta({ id: 'Completed' })

export const analyzeBody = z
  .strictObject({
    text: text.meta({ description: 'What to analyse.' }),
    model,
  })
  .meta({ id: 'Analyze' })

/** What a model has to say about a text; it is held to this form. */
export const analysis = z
  .strictObject({
    summary: z.string().min(1).max(2000).meta({ description: 'One to three sentences.' }),
    topics: z.array(z.string().min(1).max(80)).max(10).meta({ description: 'What it is about, most important first.' }),
    sentiment: z.strictObject({
      label: z.enum(['positive', 'neutral', 'negative', 'mixed']),
      score: z.number().min(-1).max(1).meta({ description: 'From -1, all negative, to 1, all positive.' }),
    }),
    safety: z.strictObject({
      safe: z.boolean(),
      categories: z
        .array(z.enum(['harassment', 'hate', 'self_harm', 'sexual', 'sexual_minors', 'violence', 'illicit', 'other']))
        .max(8)
        .meta({ description: 'Why it is not safe; empty when it is.' }),
    }),
  })
  .meta({ id: 'Analysis' })

export const analyzed = z.object({ id, model: z.string(), analysis, usage: usage.nullable() }).meta({ id: 'Analyzed' })

export const completionRoutes: RouteDescription[] = [
  {
    method: 'post',
    path: '/chat/complete',
    summary: 'Have a model go on from a prompt, without a conversation',
    description:
      'Nothing of prompt and answer is stored. Leaving stops it. The events are those of an answer, numbered as one attempt; ' +
      'generation_id is the id of this completion and cannot be attached to.',
    access: 'user',
    body: completeBody,
    responses: {
      200: {
        description: 'The text as events, or with `stream: false` as JSON.',
        content: completed,
        orEvents: true,
      },
    },
    problems: [403, 404, 502, 503],
  },
  {
    method: 'post',
    path: '/chat/analyze',
    summary: 'Summary, topics, sentiment and safety of a text',
    description: 'Nothing of the text is stored. An answer in another form is asked for once more, then refused.',
    access: 'user',
    body: analyzeBody,
    responses: { 200: { description: 'The analysis.', content: analyzed } },
    problems: [403, 404, 502, 503],
  },
]
