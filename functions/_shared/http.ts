import { type Context, Hono } from 'hono'
import { compress } from 'hono/compress'
import { cors } from 'hono/cors'
import type { z } from 'zod'
import type { ProblemError } from '../../types/problem.ts'
import { type Actor, checkKeys } from './auth.ts'
import type { Env } from './env.ts'
import type { Log } from './log.ts'
import { pointer } from './pointer.ts'
import { Problem } from './problem.ts'

/** What middleware keeps for handlers. */
export interface Service {
  Variables: { requestId: string; log: Log; caller: Actor }
}

const megabyte = 1024 * 1024

/** Headers that clients of ours send. */
const clientHeaders = [
  'authorization',
  'apikey',
  'content-type',
  'idempotency-key',
  'last-event-id',
  'x-client-info',
  'x-request-id',
]

export interface ServiceOptions {
  /** How what went wrong is told; a problem document by default. */
  render?(problem: Problem): Response
  /** Headers that web pages may send; empty for any, where we do not know the clients. */
  allowHeaders?: string[]
}

/**
 * An app with what every function has: request id, log line, CORS, security headers, compression (never of event
 * streams), keys checked, and one place that says what goes wrong.
 */
export function createService(
  env: Env,
  name: string,
  { render = (problem) => problem.toResponse(), allowHeaders = clientHeaders }: ServiceOptions = {},
): Hono<Service> {
  const app = new Hono<Service>().basePath(`/${name}`)

  app.use(async (c, next) => {
    const started = performance.now()
    env.clock.touch()
    const given = c.req.header('x-request-id')
    const requestId = given && /^[\w.:-]{8,100}$/.test(given) ? given : crypto.randomUUID()
    c.set('requestId', requestId)
    c.set('log', env.log.with({ request_id: requestId, function: name }))
    await next()
    for (const [header, value] of Object.entries(securityHeaders)) {
      if (!c.res.headers.has(header)) c.header(header, value)
    }
    c.header('x-request-id', requestId)
    c.get('log').info('request', {
      method: c.req.method,
      // The pattern, not the path: ids in it are told apart by the request id.
      route: c.req.routePath,
      status: c.res.status,
      ms: Math.round(performance.now() - started),
      user_id: c.get('caller')?.id,
    })
  })
  app.use(
    cors({
      origin: (origin) => (env.corsOrigins === '*' ? '*' : env.corsOrigins.includes(origin) ? origin : null),
      allowHeaders,
      allowMethods: ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'],
      exposeHeaders: [
        'x-request-id',
        'retry-after',
        'location',
        'ratelimit',
        'ratelimit-policy',
        'x-parlor-conversation',
      ],
      maxAge: 86400,
    }),
  )
  app.use(compress())
  app.use(checkKeys(env))

  app.notFound(() => {
    throw new Problem(404, 'route_not_found', 'There is no such route.')
  })
  app.onError((error, c) => render(problemOf(error, c)))
  return app
}

const securityHeaders = {
  'cache-control': 'no-store',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'referrer-policy': 'no-referrer',
  'strict-transport-security': 'max-age=63072000; includeSubDomains',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
}

/** What a handler threw, logged. What is not a Problem says nothing to the client and everything (safe) to the log. */
function problemOf(error: Error, c: Context<Service>): Problem {
  const problem =
    error instanceof Problem
      ? error
      : new Problem(500, 'internal_error', 'Something went wrong on our side.', { cause: error })
  const log = c.get('log')
  if (problem.status >= 500) log.error('request_failed', { code: problem.code }, problem.cause ?? problem)
  else log.info('request_refused', { code: problem.code, status: problem.status })
  return problem
}

/**
 * The parsed body: 415 for another type than JSON, 400 for what is not JSON, 422 for JSON of another form. Where it may be
 * empty, no body and no type are as good as `{}`.
 */
export async function readBody<S extends z.ZodType>(
  c: Context<Service>,
  schema: S,
  { mayBeEmpty = false } = {},
): Promise<z.output<S>> {
  const type = c.req.header('content-type') ?? ''
  if (mayBeEmpty && type === '' && (await readBytes(c.req.raw.body)).length === 0) return parse(schema, {})
  if (!/^application\/(?:[\w.+-]+\+)?json\b/i.test(type)) {
    throw new Problem(415, 'content_type_unsupported', 'Send the body as application/json.')
  }
  const bytes = await readBytes(c.req.raw.body)
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch {
    throw new Problem(400, 'body_unreadable', 'The body is not valid JSON.')
  }
  return parse(schema, value)
}

/**
 * All bytes of a body of at most `limit`. What is beyond is read and thrown away, up to eight megabytes more: a proxy that
 * is still sending would report a broken connection instead of our answer.
 */
export async function readBytes(
  body: ReadableStream<Uint8Array> | null,
  limit = megabyte,
): Promise<Uint8Array<ArrayBuffer>> {
  const pieces: Uint8Array[] = []
  let size = 0
  for await (const piece of body ?? []) {
    size += piece.byteLength
    if (size <= limit) pieces.push(piece)
    if (size > limit + 8 * megabyte) break
  }
  if (size > limit) throw new Problem(413, 'body_too_large', `A body holds at most ${limit / megabyte} MB here.`)
  const bytes = new Uint8Array(size)
  let at = 0
  for (const piece of pieces) {
    bytes.set(piece, at)
    at += piece.byteLength
  }
  return bytes
}

/** The parsed value, or 422 with one entry per mistake. */
export function parse<S extends z.ZodType>(schema: S, value: unknown): z.output<S> {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  throw Problem.invalid(result.error.issues.flatMap(describeIssue))
}

function describeIssue(issue: z.core.$ZodIssue): ProblemError[] {
  // A key that should not be there is reported at its own place.
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => ({
      pointer: pointer([...issue.path, key]),
      code: 'unknown_field',
      detail: 'This field is not known.',
    }))
  }
  const named = issue.code === 'custom' ? (issue.params as { code?: string } | undefined)?.code : undefined
  const detail = named === 'text_not_storable' ? 'Text may hold no NUL and no half of a surrogate pair.' : issue.message
  return [{ pointer: pointer(issue.path), code: named ?? issue.code, detail }]
}
