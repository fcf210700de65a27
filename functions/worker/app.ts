import type { Hono } from 'hono'
import { requireWorkerSecret } from '../_shared/auth.ts'
import { inBackground } from '../_shared/background.ts'
import type { Env } from '../_shared/env.ts'
import { createService, type Service } from '../_shared/http.ts'
import { handlers } from './handlers.ts'
import { createWorker } from './worker.ts'

/** Builds the worker: one loop per isolate, woken by POST. `env` supplies everything outside this process. */
export function createApp(env: Env): Hono<Service> {
  const app = createService(env, 'worker')
  const worker = createWorker(env, handlers)

  /** Answers at once; the work goes on in the background. */
  app.post('/', requireWorkerSecret(env), (c) => {
    const running = worker.running
    inBackground(worker.wake())
    return c.json({ worker_id: worker.id, running }, 202)
  })

  return app
}
