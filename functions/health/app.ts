import type { Hono } from 'hono'
import { echoBody, echoQuery } from '../../types/health.ts'
import { pause } from '../_shared/deadline.ts'
import type { Env } from '../_shared/env.ts'
import { createService, parse, readBody, type Service } from '../_shared/http.ts'
import { limitRate } from '../_shared/limits/middleware.ts'
import { eventStream } from '../_shared/sse.ts'
import { checkReadiness, databaseAnswers, listProviders } from './checks.ts'

/**
 * Builds the health API. Every route answers without a key: who watches a service has none. What says how the service is
 * has no limit either, since that would ask the database before the database is asked about.
 */
export function createApp(env: Env): Hono<Service> {
  const app = createService(env, 'health')
  app.use('/echo', limitRate(env))

  /** The state in one line; 503 while the database cannot be reached. */
  app.get('/', async (c) => {
    const [up, redis] = await Promise.all([databaseAnswers(env), env.pingRedis?.()])
    return c.json(
      {
        status: up ? 'ok' : 'error',
        timestamp: new Date().toISOString(),
        database: up ? 'connected' : 'disconnected',
        redis: redis === undefined ? 'not_configured' : redis ? 'connected' : 'disconnected',
        version: env.version,
      },
      up ? 200 : 503,
    )
  })

  /** Whether requests can be served: each thing they need, checked where they need it. */
  app.get('/ready', async (c) => {
    const checks = await checkReadiness(env)
    const ready = Object.values(checks).every(Boolean)
    return c.json({ status: ready ? 'ready' : 'not_ready', checks }, ready ? 200 : 503)
  })

  /** Whether the process runs; asks nothing of anybody. */
  app.get('/live', (c) => c.json({ status: 'alive' }))

  /** Which providers have what they need; never where, nor with what. */
  app.get('/providers', async (c) => c.json({ providers: await listProviders(env) }))

  app.post('/echo', async (c) => echo(await readBody(c, echoBody)))
  app.get('/echo', (c) => echo(parse(echoQuery, c.req.query())))

  return app
}

/** Streams the text back as an answer would come, for testing a client. */
function echo({ text, delay_ms }: { text: string; delay_ms: number }): Response {
  return eventStream(async ({ send, signal }) => {
    const generation_id = crypto.randomUUID()
    send({ event: 'generation.connected', data: { generation_id, job_id: null } })
    send({ event: 'generation.processing', data: { generation_id } })
    for (const [index, word] of (text.match(/\S+\s*|\s+/g) ?? []).entries()) {
      await pause(delay_ms, signal)
      if (signal.aborted) return
      const seq = index + 1
      send({ event: 'generation.delta', id: `1.${seq}`, data: { attempt: 1, seq, text: word } })
    }
    send({ event: 'generation.completed', data: { message: { role: 'assistant', content: text }, usage: null } })
    send({ data: '[DONE]' })
  })
}
