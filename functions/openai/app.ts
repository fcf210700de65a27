import type { Hono } from 'hono'
import type { Env } from '../_shared/env.ts'
import { createService, type Service } from '../_shared/http.ts'
import { addChatCompletions } from './chat.ts'
import { addEmbeddings } from './embeddings.ts'
import { toOpenAiError } from './errors.ts'
import { addModels } from './models.ts'

/** Builds the part of OpenAI's API that lets its clients talk to Parlor: base URL `<functions>/openai/v1`. */
export function createApp(env: Env): Hono<Service> {
  // Its clients send headers of their own, also from web pages.
  const app = createService(env, 'openai', { render: toOpenAiError, allowHeaders: [] })
  addChatCompletions(app, env)
  addEmbeddings(app, env)
  addModels(app, env)
  return app
}
