import type { ServiceDatabase } from './database.ts'

export interface CatalogueModel {
  id: string
  name: string
  kind: string
  tier: number
  context_window: number
  max_output: number
  dimensions: number | null
  created_at: string
}

/** A token bucket of a route for a plan; the route `*` stands for all that are not named. */
export interface RateRule {
  route: string
  plan: string
  capacity: number
  refill_per_second: number
}

interface Known {
  version: number
  models: CatalogueModel[]
  rules: RateRule[]
}

/** What is known, and the rights of a user at this moment. */
export interface Catalogue extends Known {
  plan: string
  max_model_tier: number | null
  /** Whether there is such an account, and nothing keeps it from acting. */
  is_active: boolean
}

type Database = Pick<ServiceDatabase, 'call'>

const known = new WeakMap<Database, Known>()

/**
 * Models, rules of rate limits, and the plan of a user (null: a visitor). The first two are remembered, and sent again only
 * when the database has another version of them: what operators change holds for the next request.
 */
export async function readCatalogue(service: Database, userId: string | null): Promise<Catalogue> {
  const before = known.get(service)
  type Answer = Pick<Catalogue, 'version' | 'plan' | 'max_model_tier' | 'is_active'> & Partial<Known>
  const { models, rules, ...now } = await service.call<Answer>('read_catalogue', userId, before?.version ?? null)
  const kept = models && rules ? { version: now.version, models, rules } : before!
  known.set(service, kept)
  return { ...kept, ...now }
}
