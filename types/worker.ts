import { z } from 'zod'
import type { RouteDescription } from './common.ts'

export const workerStarted = z
  .object({ worker_id: z.guid(), running: z.boolean().meta({ description: 'True when it was at work already.' }) })
  .meta({ id: 'WorkerStarted' })

export const workerRoutes: RouteDescription[] = [
  {
    method: 'post',
    path: '/worker',
    summary: 'Wake the worker',
    description: 'Called by the database. Answers at once and works through the queue in the background.',
    access: 'worker',
    responses: { 202: { description: 'It works.', content: workerStarted } },
  },
]
