import type { Hono } from 'hono'
import { attachHeaders, generationParams } from '../../types/chat.ts'
import { caller, requireUser } from '../_shared/auth.ts'
import type { Env } from '../_shared/env.ts'
import { createReader } from '../_shared/generation/reader.ts'
import { createService, parse, type Service } from '../_shared/http.ts'
import { limitRate } from '../_shared/limits/middleware.ts'
import { fromDatabase, Problem } from '../_shared/problem.ts'
import { addAnalyze } from './analyze.ts'
import { createAnswers } from './answers.ts'
import { addComplete } from './complete.ts'
import { addMessages } from './messages.ts'

/** Builds the chat API. `env` supplies everything outside this process. */
export function createApp(env: Env): Hono<Service> {
  const app = createService(env, 'chat')
  app.use(requireUser(env), limitRate(env))
  const answers = createAnswers(env)

  addMessages(app, env, answers)
  addComplete(app, env)
  addAnalyze(app, env)

  /** Watches an answer from wherever the reader was (Last-Event-ID). */
  app.get('/generations/:id/stream', async (c) => {
    const { id } = parse(generationParams, { id: c.req.param('id') })
    const headers = parse(attachHeaders, { 'last-event-id': c.req.header('last-event-id') || undefined })
    const generation = await createReader(env.db(caller(c).token), id)({ attempt: 0, seq: 0 })
    if (!generation) throw new Problem(404, 'generation_not_found', 'There is no such answer.')
    const [attempt = 0, seq = 0] = headers['last-event-id']?.split('.').map(Number) ?? []
    return answers.watch(c, id, generation.job_id, { attempt, seq })
  })

  /** Stops an answer, wherever it is being made. */
  app.post('/generations/:id/cancel', async (c) => {
    const { id } = parse(generationParams, { id: c.req.param('id') })
    const { data, error } = await env.db(caller(c).token).rpc('cancel_generation', { generation_id: id })
    if (error) throw fromDatabase(error)
    return c.json(data)
  })

  return app
}
