import type { z } from 'zod'
import type { providers, readiness } from '../../types/health.ts'
import { serviceFunctions } from '../_shared/database.ts'
import { withDeadline } from '../_shared/deadline.ts'
import type { Env, ProviderNames } from '../_shared/env.ts'
import type { Problem } from '../_shared/problem.ts'

type Checks = z.infer<typeof readiness>['checks']
type Providers = z.infer<typeof providers>['providers']

const checkMs = 3000

/** Names as a Postgres array; they are ours and hold no quote. */
const wanted = `{${serviceFunctions.join(',')}}`

/** Functions of schema `service` that this version calls and the database lacks; null when it cannot be asked. */
async function missingFunctions(env: Env): Promise<string[] | null> {
  try {
    return await withDeadline('database', checkMs, () => env.service.call<string[]>('missing_functions', wanted))
  } catch (error) {
    // An answer, even a refusal, comes from a database that works: it only lacks our migrations.
    const { code, status = 503 } = error as Partial<Problem>
    return status === 503 && code !== 'took_too_long' ? null : ['missing_functions']
  }
}

export async function databaseAnswers(env: Env): Promise<boolean> {
  return (await missingFunctions(env)) !== null
}

export async function checkReadiness(env: Env): Promise<Checks> {
  const served = async (what: string, ask: (signal: AbortSignal) => PromiseLike<{ error: unknown }>) => {
    try {
      const { error } = await withDeadline(what, checkMs, async (signal) => ask(signal))
      return !error
    } catch {
      return false
    }
  }
  // As service_role: a project that does not serve `service` refuses its own functions, and nobody else would notice.
  const [missing, public_schema, service_schema] = await Promise.all([
    missingFunctions(env),
    served('public', (signal) => env.admin.from('ai_models').select('id').limit(1).abortSignal(signal)),
    served('service', (signal) =>
      env.admin.schema('service').rpc('missing_functions', { names: serviceFunctions }).abortSignal(signal),
    ),
  ])
  return { database: missing !== null, migrations: missing?.length === 0, public_schema, service_schema }
}

export async function listProviders(env: Env): Promise<Providers> {
  const rows = await withDeadline('database', checkMs, () =>
    env.service.call<(ProviderNames & Omit<Providers[number], 'configured'>)[]>('list_providers'),
  )
  return rows.map((row) => ({ provider: row.provider, configured: env.provider(row) !== null, routes: row.routes }))
}
