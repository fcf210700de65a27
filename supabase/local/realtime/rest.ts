import { writable } from './authorize.ts'
import { jsonBytes } from './codec.ts'
import { isObject } from './config.ts'
import { type Credentials, identify, Refused } from './credentials.ts'
import { MAX_FRAME_BYTES, MAX_PAYLOAD_BYTES } from './limits.ts'
import type { Services } from './services.ts'

interface BatchMessage {
  topic: string
  event: string
  payload: Record<string, unknown>
  private: boolean
  id?: string
}

interface Call {
  services: Services
  request: Request
  caller: Credentials
  body: Uint8Array
}

class HttpError extends Error {
  constructor(
    readonly status: number,
    readonly body: Record<string, unknown>,
  ) {
    super(`HTTP ${status}`)
  }
}

/** `POST /api/broadcast` (a batch) and `POST /api/broadcast/<topic>/events/<event>` (the body is the payload). */
export async function handleBroadcast(services: Services, request: Request, path: string): Promise<Response> {
  const single = /^\/api\/broadcast\/([^/]+)\/events\/([^/]+)$/.exec(path)
  try {
    if (request.method !== 'POST' || (path !== '/api/broadcast' && !single))
      throw new HttpError(404, { message: 'Not Found' })
    const call = { services, request, caller: await authenticate(services, request), body: await readBody(request) }
    if (single) await sendOne(call, decoded(single[1]!), decoded(single[2]!))
    else await sendBatch(call)
    return new Response(null, { status: 202 })
  } catch (error) {
    if (!(error instanceof HttpError)) throw error
    return Response.json(error.body, { status: error.status })
  }
}

/** A bearer token wins over the key beside it, and a wrong one is refused rather than passed over. */
async function authenticate({ tokens }: Services, request: Request): Promise<Credentials> {
  const bearer = /^bearer (.+)$/i.exec(request.headers.get('authorization') ?? '')?.[1]
  try {
    return await identify(tokens, bearer ?? request.headers.get('apikey') ?? '')
  } catch (error) {
    if (error instanceof Refused) throw new HttpError(401, { message: 'Unauthorized' })
    throw error
  }
}

async function readBody(request: Request): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of request.body ?? []) {
    length += chunk.length
    if (length > MAX_FRAME_BYTES) throw new HttpError(413, { message: 'Payload Too Large' })
    chunks.push(chunk)
  }
  const body = new Uint8Array(length)
  let at = 0
  for (const chunk of chunks) {
    body.set(chunk, at)
    at += chunk.length
  }
  return body
}

async function sendBatch({ services, request, caller, body }: Call): Promise<void> {
  const messages = readBatch(parseJson(body))
  if (!services.limits.mayRequest(messages.length)) {
    throw new HttpError(429, { message: 'Too many messages to broadcast, please reduce the batch size' })
  }
  const allowed = new Map<string, boolean>()
  for (const message of messages) {
    if (message.private && !allowed.has(message.topic)) {
      // Whatever goes wrong, the batch answers 202 and the message is left out: hosted does the same.
      allowed.set(message.topic, await mayWrite({ services, request, caller, body }, message.topic).catch(() => false))
    }
    if (message.private && !allowed.get(message.topic)) continue
    const { topic, event, payload, id } = message
    services.rooms.relay(topic, message.private, { type: 'broadcast', event, payload, ...(id && { meta: { id } }) })
  }
}

async function sendOne(call: Call, topic: string, event: string): Promise<void> {
  const { services, request, body } = call
  const type = (request.headers.get('content-type') ?? '').split(';')[0]!.trim().toLowerCase()
  if (type !== 'application/json' && type !== 'application/octet-stream') {
    throw new HttpError(415, { error: 'Unsupported content type. Use application/json or application/octet-stream' })
  }
  const raw = type === 'application/octet-stream'
  if (!raw) parseJson(body)
  if (body.length > MAX_PAYLOAD_BYTES) throw unprocessable({ payload: ['Payload size exceeds tenant limit'] })
  if (!services.limits.mayRequest()) throw new HttpError(429, { message: 'You have exceeded your rate limit' })
  const isPrivate = new URL(request.url).searchParams.get('private') === 'true'
  if (isPrivate) {
    const allowed = await mayWrite(call, topic).catch((error) => {
      console.error(`realtime: policy on ${topic}: ${error instanceof Error ? error.message : error}`)
      throw new HttpError(422, { message: 'RLS policy error' })
    })
    if (!allowed) throw new HttpError(403, { message: 'Unauthorized' })
  }
  services.rooms.broadcast(topic, isPrivate, { event, raw, bytes: body })
}

function mayWrite({ services, request, caller }: Call, topic: string): Promise<boolean> {
  const headers = Object.fromEntries(request.headers)
  return writable(services.sql, { topic, claims: caller.claims, headers }, 'broadcast')
}

function readBatch(body: unknown): BatchMessage[] {
  const messages = isObject(body) ? body.messages : undefined
  if (!Array.isArray(messages) || messages.length === 0) throw unprocessable({ messages: ["can't be blank"] })
  const errors = messages.map(messageErrors)
  if (errors.some((error) => Object.keys(error).length > 0)) throw unprocessable({ messages: errors })
  return messages.map((message) => ({ ...message, private: message.private === true || message.private === 'true' }))
}

function messageErrors(message: unknown): Record<string, string[]> {
  const errors: Record<string, string[]> = {}
  if (!isObject(message)) return { message: ['is invalid'] }
  for (const field of ['topic', 'event'] as const) {
    const value = message[field]
    if (value === undefined || value === null || value === '') errors[field] = ["can't be blank"]
    else if (typeof value !== 'string') errors[field] = ['is invalid']
  }
  if (message.payload === undefined || message.payload === null) errors.payload = ["can't be blank"]
  else if (!isObject(message.payload)) errors.payload = ['is invalid']
  else if (jsonBytes(message.payload).length > MAX_PAYLOAD_BYTES) errors.payload = ['Payload size exceeds tenant limit']
  return errors
}

function parseJson(body: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body))
  } catch {
    throw new HttpError(400, { message: 'Malformed request body' })
  }
}

function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment)
  } catch {
    throw new HttpError(400, { message: 'Malformed URL' })
  }
}

const unprocessable = (errors: unknown) => new HttpError(422, { errors })
