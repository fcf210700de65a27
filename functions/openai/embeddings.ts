import type { Hono } from 'hono'
import { embeddingBody } from '../../types/openai.ts'
import { requireKeyOrUser } from '../_shared/api-key.ts'
import { actor } from '../_shared/auth.ts'
import type { Env } from '../_shared/env.ts'
import { readBody, type Service } from '../_shared/http.ts'
import { limitRate } from '../_shared/limits/middleware.ts'
import { beginCompletion, failed, finishCompletion } from '../_shared/llm/completion.ts'
import { embed, estimateTexts } from '../_shared/llm/embed.ts'

export function addEmbeddings(app: Hono<Service>, env: Env): void {
  app.post('/v1/embeddings', requireKeyOrUser(env, 'embeddings'), limitRate(env), async (c) => {
    const { model, input: texts, dimensions, encoding_format } = await readBody(c, embeddingBody)
    const completion = await beginCompletion(env, actor(c).id, {
      kind: 'embed',
      model,
      prompt_tokens: estimateTexts(texts),
      max_tokens: 0,
      ...(dimensions && { dimensions }),
    })
    const { signal } = c.req.raw
    try {
      const log = c.get('log')
      const { vectors, usage } = await embed({
        env,
        log,
        completion,
        texts,
        dimensions: dimensions ?? undefined,
        signal,
      })
      await finishCompletion(env, completion, { outcome: 'completed' })
      const { prompt_tokens } = usage
      return c.json({
        object: 'list',
        model,
        data: vectors.map((vector, index) => ({
          object: 'embedding',
          index,
          embedding: encoding_format === 'base64' ? toBase64(vector) : vector,
        })),
        usage: { prompt_tokens, total_tokens: prompt_tokens },
      })
    } catch (error) {
      throw await failed(env, completion, error, signal)
    }
  })
}

/** Little-endian float32, as OpenAI's clients read it. */
function toBase64(vector: number[]): string {
  const view = new DataView(new ArrayBuffer(vector.length * 4))
  for (const [index, value] of vector.entries()) view.setFloat32(index * 4, value, true)
  let binary = ''
  for (const byte of new Uint8Array(view.buffer)) binary += String.fromCharCode(byte)
  return btoa(binary)
}
