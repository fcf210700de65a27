import { withDeadline } from '../deadline.ts'
import type { Env } from '../env.ts'
import type { Log } from '../log.ts'
import { mostPromising, NoAnswer, raiseHold, report, skipped } from './ask.ts'
import { cover, spend } from './budget.ts'
import { clientOf } from './client.ts'
import type { Completion } from './completion.ts'
import { ModelError, toModelError } from './errors.ts'
import type { Usage } from './read.ts'
import { afford, type Route } from './route.ts'
import { estimateTokens } from './tokens.ts'

export interface Embedded {
  /** One vector for each text, in their order. */
  vectors: number[][]
  usage: Usage
}

export interface EmbedOptions {
  env: Env
  log: Log
  completion: Completion
  texts: string[]
  /** Length of the vectors, where it is not the model's own. */
  dimensions: number | undefined
  signal: AbortSignal
}

export const estimateTexts = (texts: string[]): number => texts.reduce((sum, text) => sum + estimateTokens(text), 0)

/**
 * Has an embedding model turn texts into vectors; its routes are asked in their order until one answers. Throws NoAnswer,
 * or the reason of `signal`.
 */
export async function embed(options: EmbedOptions): Promise<Embedded> {
  const { env, log, completion, texts, signal } = options
  const purpose = { completion_id: completion.completion_id }
  const estimate = { prompt_tokens: estimateTexts(texts), completion_tokens: 0, cached_tokens: 0, estimated: true }
  const failures: NoAnswer[] = []

  for (const route of completion.routes) {
    const started = performance.now()
    const told = (call: { code: string | null; usage: Usage | null; retry_after_seconds?: number | null }) =>
      report({ env, log, purpose }, route, { ...call, took_ms: performance.now() - started })
    try {
      afford(route, estimate.prompt_tokens, 0, completion.spent_micro_usd ?? 0)
      await cover(completion, route, estimate.prompt_tokens, 0, raiseHold({ env, purpose }))
      const embedded = await askRoute(options, route, estimate)
      await told({ code: null, usage: embedded.usage })
      return embedded
    } catch (error) {
      if (signal.aborted) {
        await told({ code: 'cancelled', usage: estimate })
        throw error
      }
      const reason = toModelError(error)
      log.warn(
        'route_failed',
        { ...purpose, route_id: route.route_id, provider: route.provider, code: reason.code },
        reason.cause,
      )
      const used = ['provider_timeout', 'answer_empty'].includes(reason.code) ? estimate : null
      await told({ code: reason.code, usage: used, retry_after_seconds: reason.retryAfterSeconds ?? null })
      if (used) spend(completion, route, used)
      failures.push(new NoAnswer(reason, route))
    }
  }
  throw mostPromising([...failures, ...completion.skipped.map(skipped)])
}

async function askRoute(
  { env, completion, texts, dimensions, signal }: EmbedOptions,
  route: Route,
  estimate: Usage,
): Promise<Embedded> {
  const provider = env.provider(route)
  if (!provider) throw new ModelError('provider_not_configured', false)
  const { totalMs } = env.limits
  const client = clientOf(provider, { timeout: totalMs })
  const { data, usage } = await withDeadline(
    'embeddings',
    totalMs,
    (ended) =>
      client.embeddings.create(
        // As numbers: servers that know no other form answer them to a wish for base64 as well, and that is misread.
        { model: route.model, input: texts, encoding_format: 'float', ...(dimensions && { dimensions }) },
        { signal: ended },
      ),
    signal,
  )
  const vectors = Array.isArray(data)
    ? data.toSorted((a, b) => a.index - b.index).map(({ embedding }) => embedding)
    : []
  const length = dimensions ?? completion.dimensions
  // Vectors of another length are of another model: whoever compares them finds nonsense.
  const right = vectors.length === texts.length && vectors.every((vector) => vector.length === length)
  if (!right) throw new ModelError('answer_empty', true)
  const { prompt_tokens } = usage ?? {}
  return { vectors, usage: prompt_tokens === undefined ? estimate : { ...estimate, prompt_tokens, estimated: false } }
}
