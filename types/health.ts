import { z } from 'zod'
import { type RouteDescription, storableText } from './common.ts'

export const health = z
  .strictObject({
    status: z.enum(['ok', 'error']),
    timestamp: z.iso.datetime(),
    database: z.enum(['connected', 'disconnected']),
    redis: z.enum(['not_configured', 'connected', 'disconnected']),
    version: z.string(),
  })
  .meta({ id: 'Health' })

export const readiness = z
  .strictObject({
    status: z.enum(['ready', 'not_ready']),
    checks: z.strictObject({
      database: z.boolean().meta({ description: 'The pool reaches the database.' }),
      migrations: z.boolean().meta({ description: 'The functions that this version calls are there.' }),
      public_schema: z.boolean().meta({ description: 'The Data API serves schema public.' }),
      service_schema: z.boolean().meta({ description: 'The Data API serves schema service to the secret key.' }),
    }),
  })
  .meta({ id: 'Readiness' })

export const liveness = z.strictObject({ status: z.literal('alive') }).meta({ id: 'Liveness' })

/** Clients must bear states that they do not know. */
const routeHealth = z.strictObject({
  model: z.string(),
  position: z.int().meta({ description: 'Routes of a model are asked in this order.' }),
  state: z.enum(['closed', 'open', 'half_open']).meta({
    description: 'Of its circuit breaker. closed: in use. open: left out for a while. half_open: asked once, to see.',
  }),
  code: z.string().nullable().meta({ description: 'The last failure.' }),
  open_until: z.string().nullable(),
})

export const providers = z
  .strictObject({
    providers: z.array(z.strictObject({ provider: z.string(), configured: z.boolean(), routes: z.array(routeHealth) })),
  })
  .meta({ id: 'Providers' })

export const echoBody = z
  .strictObject({
    text: storableText.min(1).max(2000).default('The quick brown fox jumps over the lazy dog.'),
    delay_ms: z.int().min(0).max(1000).default(50),
  })
  .meta({ id: 'Echo' })

/** Query of the GET form; values arrive as text. */
export const echoQuery = z.strictObject({
  text: echoBody.shape.text,
  delay_ms: z.coerce.number().pipe(z.int().min(0).max(1000)).default(50),
})

export const healthRoutes: RouteDescription[] = [
  {
    method: 'get',
    path: '/health',
    summary: 'State of the service and what it stands on',
    access: 'none',
    responses: {
      200: { description: 'It works.', content: health },
      503: { description: 'The database cannot be reached.', content: health },
    },
  },
  {
    method: 'get',
    path: '/health/ready',
    summary: 'Can it serve requests now?',
    access: 'none',
    responses: {
      200: { description: 'Yes.', content: readiness },
      503: { description: 'No, and which check says so.', content: readiness },
    },
  },
  {
    method: 'get',
    path: '/health/live',
    summary: 'Does the process run?',
    access: 'none',
    responses: { 200: { description: 'Yes.', content: liveness } },
  },
  {
    method: 'get',
    path: '/health/providers',
    summary: 'Which providers of models are configured, and which of their routes work',
    access: 'none',
    responses: { 200: { description: 'One entry per provider; no addresses, no keys.', content: providers } },
    problems: [503],
  },
  {
    method: 'post',
    path: '/health/echo',
    summary: 'Stream a text back, word by word, for testing a client',
    access: 'none',
    body: echoBody,
    responses: { 200: { description: 'Events like those of an answer.', content: 'events' } },
  },
  {
    method: 'get',
    path: '/health/echo',
    summary: 'The same with text and delay_ms in the query, for EventSource',
    access: 'none',
    query: echoQuery,
    responses: { 200: { description: 'Events like those of an answer.', content: 'events' } },
  },
]
