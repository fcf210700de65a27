import type { Context, Hono } from 'hono'
import {
  editMessageBody,
  messageParams,
  regenerateBody,
  regenerateMessageBody,
  sendMessageBody,
  sendMessageHeaders,
} from '../../types/chat.ts'
import { caller } from '../_shared/auth.ts'
import type { Env } from '../_shared/env.ts'
import { parse, readBody, type Service } from '../_shared/http.ts'
import { requireAllowed } from '../_shared/llm/allowed.ts'
import { fromDatabase, Problem } from '../_shared/problem.ts'
import type { AnswerOptions, Answers, Sent } from './answers.ts'

/** Adds what writes in a conversation and is answered: send, edit, regenerate. */
export function addMessages(app: Hono<Service>, env: Env, { answer }: Answers): void {
  app.post('/messages', async (c) => {
    const { stream, ...body } = await readBody(c, sendMessageBody)
    await requireAllowed(env, [body.content], c.get('log'))
    return await ask(c, 'send_message', body, { stream, moderated: true })
  })

  // Before the routes with an id, which would take `regenerate` for one.
  app.post('/messages/regenerate', async (c) => {
    const { stream, ...body } = await readBody(c, regenerateBody)
    return await ask(c, 'regenerate_message', body, { stream, moderated: false })
  })

  app.post('/messages/:id/regenerate', async (c) => {
    const { id } = parse(messageParams, { id: c.req.param('id') })
    const { stream, ...body } = await readBody(c, regenerateMessageBody, { mayBeEmpty: true })
    return await ask(c, 'regenerate_message', { ...body, message_id: id }, { stream, moderated: false })
  })

  app.post('/messages/:id/edit', async (c) => {
    const { id } = parse(messageParams, { id: c.req.param('id') })
    const { stream, ...body } = await readBody(c, editMessageBody)
    await requireAllowed(env, [body.content], c.get('log'))
    return await ask(c, 'edit_message', { ...body, message_id: id }, { stream, moderated: true })
  })

  /** Calls the SQL function as the caller, with a key that makes a retry safe, and gives the answer. */
  async function ask(
    c: Context<Service>,
    operation: 'send_message' | 'edit_message' | 'regenerate_message',
    body: { run: AnswerOptions['run']; idempotency_key?: string | undefined } & Record<string, unknown>,
    options: Omit<AnswerOptions, 'run'>,
  ): Promise<Response> {
    const headers = parse(sendMessageHeaders, { 'idempotency-key': c.req.header('idempotency-key') })
    const key = idempotencyKey(headers['idempotency-key'], body.idempotency_key)
    const { data, error } = await env.db(caller(c).token).rpc(operation, { ...body, idempotency_key: key })
    if (error) throw fromDatabase(error)
    return await answer(c, data as Sent, { ...options, run: body.run })
  }
}

/** The client's key, or one of our own for a client that does not repeat requests. */
function idempotencyKey(header: string | undefined, body: string | undefined): string {
  if (header !== undefined && body !== undefined && header !== body) {
    throw Problem.invalid([
      { pointer: '#/idempotency_key', code: 'differs_from_header', detail: 'Header and body name different keys.' },
    ])
  }
  return body ?? header ?? crypto.randomUUID()
}
