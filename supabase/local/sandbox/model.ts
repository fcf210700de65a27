import { Hono } from 'hono'
import { countTokens, textOf } from './answer.ts'
import { complete, refusal } from './chat.ts'
import { embed, toBase64 } from './embeddings.ts'
import { faultsOf, modelNames, problem } from './faults.ts'
import { type Entry, Log } from './log.ts'
import { moderate } from './moderations.ts'

const created = 1_700_000_000

/**
 * An OpenAI-compatible model server, as the `openai` SDK meets it: chat completions, models, embeddings, moderations.
 * Faults are asked for by model name (faults.ts). `GET /log` and `POST /release` are for tests.
 */
export function modelServer(): Hono {
  const app = new Hono()
  const log = new Log()

  app.get('/log', (c) => c.json({ requests: log.list(c.req.query()) }))
  app.delete('/log', (c) => {
    log.clear()
    return c.body(null, 204)
  })
  app.post('/release', async (c) => c.json({ released: log.release(await c.req.json().catch(() => ({}))) }))

  app.use('/v1/*', async (c, next) => {
    // As the real thing, and so that a client that lost its key is found out.
    if (!/^Bearer \S/.test(c.req.header('authorization') ?? '')) return problem(401, 'You did not provide an API key.')
    await next()
    c.res.headers.set('x-request-id', `req_${crypto.randomUUID().replaceAll('-', '')}`)
  })

  const model = (id: string) => ({ id, object: 'model', created, owned_by: 'sandbox', context_length: 128_000 })
  app.get('/v1/models', (c) => c.json({ object: 'list', data: modelNames.map(model) }))
  app.get('/v1/models/:id{.+}', (c) => {
    const id = decodeURIComponent(c.req.param('id'))
    return modelNames.includes(id) ? c.json(model(id)) : problem(404, `The model '${id}' does not exist`)
  })

  app.post('/v1/chat/completions', async (c) => {
    const body = await readBody(c.req.raw)
    if (body instanceof Response) return body
    if (!Array.isArray(body.messages) || body.messages.length === 0) {
      return problem(400, "Missing required parameter: 'messages'.", 'missing_required_parameter', {}, 'messages')
    }
    const entry = log.open(c.req.raw, body)
    const promptTokens = body.messages.reduce((sum, m) => sum + countTokens(textOf(m)) + 4, 3)
    return (await refusal(entry, promptTokens, log, c.req.raw)) ?? complete(entry, promptTokens, log)
  })

  app.post('/v1/embeddings', async (c) => {
    const body = await readBody(c.req.raw)
    if (body instanceof Response) return body
    const entry = log.open(c.req.raw, body)
    const refused = await refusal(entry, 0, log, c.req.raw)
    if (refused) return refused
    const input = inputsOf(body.input)
    if (!input) return problem(400, "'input' must be a non-empty string or a list of them.", undefined, {}, 'input')
    const dimensions = body.dimensions ?? 1536
    if (!Number.isInteger(dimensions) || (dimensions as number) < 1 || (dimensions as number) > 4096) {
      return problem(400, "'dimensions' must be between 1 and 4096.", undefined, {}, 'dimensions')
    }
    const vectors = input.map((text) => embed(text, dimensions as number))
    const tokens = input.reduce((sum, text) => sum + countTokens(text), 0)
    entry.state = 'done'
    return c.json({
      object: 'list',
      model: body.model,
      data: vectors.map((vector, index) => ({
        object: 'embedding',
        index,
        embedding: body.encoding_format === 'base64' ? toBase64(vector) : vector,
      })),
      usage: { prompt_tokens: tokens, total_tokens: tokens },
    })
  })

  app.post('/v1/moderations', async (c) => {
    const body = await readBody(c.req.raw, 'omni-moderation-latest')
    if (body instanceof Response) return body
    const entry = log.open(c.req.raw, body)
    const refused = await refusal(entry, 0, log, c.req.raw)
    if (refused) return refused
    const input = inputsOf(body.input)
    if (!input) return problem(400, "'input' must be a non-empty string or a list of them.", undefined, {}, 'input')
    entry.state = 'done'
    return c.json({ id: `modr-${entry.id}`, model: body.model, results: input.map(moderate) })
  })

  app.notFound((c) => problem(404, `Unknown request URL: ${c.req.method} ${c.req.path}.`, 'unknown_url'))
  app.onError((error) => {
    console.error('sandbox model:', error)
    return problem(500, 'The sandbox failed; see its log.')
  })
  return app
}

async function readBody(request: Request, fallbackModel?: string): Promise<Entry['body'] | Response> {
  const body = await request.json().catch(() => null)
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    return problem(400, 'We could not parse the JSON body of your request.')
  }
  body.model ??= fallbackModel
  if (typeof body.model !== 'string' || !body.model) return problem(400, 'you must provide a model parameter')
  try {
    faultsOf(body.model)
  } catch (unknown) {
    return problem(404, String(unknown))
  }
  return body
}

function inputsOf(input: unknown): string[] | null {
  const list = (Array.isArray(input) && !input.every((item) => typeof item === 'number') ? input : [input]) as unknown[]
  // Token arrays and text parts count as text of their own.
  const texts = list.map((item) =>
    typeof item === 'string'
      ? item
      : Array.isArray(item)
        ? item.join(' ')
        : String((item as { text?: string } | null)?.text ?? ''),
  )
  return texts.length > 0 && texts.every(Boolean) ? texts : null
}
