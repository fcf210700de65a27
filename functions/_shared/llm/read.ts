/** What one event of a stream, or one whole answer, holds. Pure: providers differ here, and tests list how. */
export interface Piece {
  text: string
  finishReason: string | null
  usage: Usage | null
}

export interface Usage {
  prompt_tokens: number
  completion_tokens: number
  cached_tokens: number
  /** True when the provider gave no figures and we counted characters. */
  estimated: boolean
}

type Json = Record<string, unknown>

const record = (value: unknown): Json | undefined =>
  value !== null && typeof value === 'object' && !Array.isArray(value) ? (value as Json) : undefined

/**
 * Understands OpenAI's form (`choices[0].delta|message.content`, `choices[0].text`), Ollama's (`message.content` or
 * `response`, with `done_reason`) and the bare one of small servers (`content`, `text`, `output_text`, `generated_text`).
 * Returns null for what is none of them.
 */
export function readPiece(value: unknown): Piece | null {
  const body = record(Array.isArray(value) ? value[0] : value)
  if (!body) return null
  const usage = readUsage(body)

  if (Array.isArray(body.choices)) {
    const choice = record(body.choices[0])
    const message = record(choice?.delta) ?? record(choice?.message)
    return {
      text: content(message?.content) ?? content(message?.refusal) ?? content(choice?.text) ?? '',
      finishReason: typeof choice?.finish_reason === 'string' ? choice.finish_reason : null,
      usage,
    }
  }
  const text =
    content(record(body.message)?.content) ??
    content(body.response) ??
    content(body.content) ??
    content(body.text) ??
    content(body.output_text) ??
    content(body.generated_text)
  if (text === undefined) return null
  const done = body.done !== false
  return { text, finishReason: done ? String(body.done_reason ?? body.finish_reason ?? 'stop') : null, usage }
}

/** An error that came with status 200: `{error: {code, message}}` or `{error: "text"}`. */
export function readError(value: unknown): { code: string } | null {
  const body = record(Array.isArray(value) ? value[0] : value)
  if (!body?.error || 'choices' in body) return null
  return { code: String(record(body.error)?.code ?? 'error').slice(0, 100) }
}

/** Content is text, or parts of which some hold text. */
function content(value: unknown): string | undefined {
  if (typeof value === 'string') return value
  if (!Array.isArray(value)) return undefined
  return value.map((part) => (typeof part === 'string' ? part : (record(part)?.text ?? ''))).join('')
}

function readUsage(body: Json): Usage | null {
  const usage = record(body.usage)
  const count = (value: unknown) => (typeof value === 'number' && value >= 0 ? Math.trunc(value) : undefined)
  const prompt = count(usage?.prompt_tokens ?? usage?.input_tokens ?? body.prompt_eval_count)
  const completion = count(usage?.completion_tokens ?? usage?.output_tokens ?? body.eval_count)
  if (prompt === undefined && completion === undefined) return null
  return {
    prompt_tokens: prompt ?? 0,
    completion_tokens: completion ?? 0,
    cached_tokens: count(record(usage?.prompt_tokens_details)?.cached_tokens) ?? 0,
    estimated: false,
  }
}
