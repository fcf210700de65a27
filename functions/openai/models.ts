import type { Context, Hono } from 'hono'
import { every } from 'hono/combine'
import { modelParams } from '../../types/openai.ts'
import { requireKeyOrUser } from '../_shared/api-key.ts'
import { actor } from '../_shared/auth.ts'
import { type CatalogueModel, readCatalogue } from '../_shared/catalogue.ts'
import type { Env } from '../_shared/env.ts'
import { parse, type Service } from '../_shared/http.ts'
import { limitRate } from '../_shared/limits/middleware.ts'
import { Problem } from '../_shared/problem.ts'
import { characterIn } from './character.ts'

export function addModels(app: Hono<Service>, env: Env): void {
  const access = every(requireKeyOrUser(env, 'models'), limitRate(env))

  app.get('/v1/models', access, async (c) => {
    const [models, characters] = await Promise.all([included(env, c), charactersOf(env, c)])
    return c.json({ object: 'list', data: [...models.map(describe), ...characters] })
  })

  // Ids may hold a slash, which clients encode or leave.
  app.get('/v1/models/:id{.+}', access, async (c) => {
    const { id } = parse(modelParams, { id: c.req.param('id') })
    const character = characterIn(id)
    if (character) return c.json((await charactersOf(env, c, character))[0])
    const model = (await included(env, c)).find((model) => model.id === id)
    if (!model) throw new Problem(404, 'model_not_found', 'There is no such model, or your plan does not include it.')
    return c.json(describe(model))
  })
}

/** The models that the caller's plan includes. */
async function included(env: Env, c: Context<Service>): Promise<CatalogueModel[]> {
  const { models, max_model_tier, is_active } = await readCatalogue(env.service, actor(c).id)
  if (!is_active) throw new Problem(403, 'account_not_active', 'This account is suspended, banned or deleted.')
  return models.filter(({ tier }) => max_model_tier === null || tier <= max_model_tier)
}

/** A character that the caller may see, or without an id the newest of their own. */
async function charactersOf(env: Env, c: Context<Service>, id: string | null = null) {
  type Row = { id: string; name: string; created_at: string }
  const rows = await env.service.call<Row[]>('character_models', actor(c).id, id)
  return rows.map(({ id, name, created_at }) => ({
    id: `character:${id}`,
    object: 'model',
    created: Math.floor(Date.parse(created_at) / 1000),
    owned_by: 'parlor',
    name,
    kind: 'character',
  }))
}

function describe({ id, name, kind, context_window, max_output, dimensions, created_at }: CatalogueModel) {
  return {
    id,
    object: 'model',
    created: Math.floor(Date.parse(created_at) / 1000),
    owned_by: 'parlor',
    name,
    kind,
    context_length: context_window,
    ...(kind === 'embedding' ? { dimensions } : { max_output }),
  }
}
