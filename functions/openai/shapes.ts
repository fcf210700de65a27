import type { ChatCompletion, FinishReason } from '../../types/openai.ts'
import type { Said } from '../_shared/llm/completion.ts'
import type { Usage } from '../_shared/llm/read.ts'

/** What OpenAI's forms repeat in each object: which answer, of when, by what. */
export interface Head {
  id: string
  created: number
  model: string
}

export const headOf = (id: string, model: string, at = new Date()): Head => ({
  id: `chatcmpl-${id}`,
  created: Math.floor(at.getTime() / 1000),
  model,
})

export function completionOf({ id, created, model }: Head, { text, finishReason, usage }: Said): ChatCompletion {
  return {
    id,
    object: 'chat.completion',
    created,
    model,
    choices: [
      {
        index: 0,
        message: { role: 'assistant', content: text, refusal: null },
        logprobs: null,
        finish_reason: reasonOf(finishReason),
      },
    ],
    usage: usageOf(usage),
  }
}

/** Makes the chunks of one streamed answer. With usage, every chunk has the field, and the last one its figures. */
export function chunksOf({ id, created, model }: Head, withUsage: boolean) {
  const chunk = (choices: unknown[], usage: unknown = null) => ({
    id,
    object: 'chat.completion.chunk',
    created,
    model,
    choices,
    ...(withUsage && { usage }),
  })
  const choice = (delta: object, finish_reason: FinishReason | null = null) =>
    chunk([{ index: 0, delta, logprobs: null, finish_reason }])
  return {
    role: () => choice({ role: 'assistant', content: '', refusal: null }),
    text: (content: string) => choice({ content }),
    end: (reason: string) => choice({}, reasonOf(reason)),
    usage: (usage: ChatCompletion['usage']) => chunk([], usage),
  }
}

/** Providers have words of their own for an end; clients know these. */
function reasonOf(reason: string): FinishReason {
  if (/^(length|max_tokens|MAX_TOKENS)$/.test(reason)) return 'length'
  return /content_filter|SAFETY/.test(reason) ? 'content_filter' : 'stop'
}

function usageOf({ prompt_tokens, completion_tokens, cached_tokens }: Usage): ChatCompletion['usage'] {
  return {
    prompt_tokens,
    completion_tokens,
    total_tokens: prompt_tokens + completion_tokens,
    prompt_tokens_details: { cached_tokens },
    completion_tokens_details: { reasoning_tokens: 0 },
  }
}
