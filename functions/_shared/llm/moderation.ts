import type { ServiceDatabase } from '../database.ts'
import { withDeadline } from '../deadline.ts'
import type { Env, ProviderNames } from '../env.ts'
import type { Log } from '../log.ts'
import { clientOf } from './client.ts'
import { ModelError } from './errors.ts'

interface Moderation extends ProviderNames {
  provider: string
  model: string
  on_error: 'allow' | 'refuse'
}

type ModerationEnv = Pick<Env, 'provider' | 'limits'> & { service: Pick<ServiceDatabase, 'call'> }

/** A setting that operators change holds in every isolate this soon. */
const rememberedMs = 5000

const remembered = new WeakMap<object, { until: number; setting: Promise<Moderation | null> }>()

/** How input is moderated, asked of the database once in a while: it stands on the way of every message. */
function setting(env: ModerationEnv): Promise<Moderation | null> {
  const known = remembered.get(env.service)
  if (known && known.until > Date.now()) return known.setting
  const asked = env.service.call<Moderation | null>('moderation')
  remembered.set(env.service, { until: Date.now() + rememberedMs, setting: asked })
  asked.catch(() => remembered.delete(env.service))
  return asked
}

/**
 * Which of the texts moderation refuses; none while it is off. When the provider does not answer, the operator's setting
 * decides: all pass, or ModelError `moderation_unavailable`.
 */
export async function refusedTexts(env: ModerationEnv, texts: string[], log: Log): Promise<boolean[]> {
  const none = texts.map(() => false)
  const moderation = texts.length > 0 ? await setting(env) : null
  if (!moderation) return none
  try {
    const provider = env.provider(moderation)
    if (!provider) throw new ModelError('provider_not_configured', false)
    const client = clientOf(provider, { timeout: env.limits.connectMs, maxRetries: 1 })
    const { results } = await withDeadline('moderation', env.limits.connectMs, (signal) =>
      client.moderations.create({ model: moderation.model, input: texts }, { signal }),
    )
    if (!Array.isArray(results) || results.length !== texts.length) throw new ModelError('answer_empty', true)
    return results.map(({ flagged }) => flagged === true)
  } catch (error) {
    log.warn('moderation_failed', { provider: moderation.provider, on_error: moderation.on_error }, error)
    if (moderation.on_error === 'allow') return none
    throw new ModelError('moderation_unavailable', true, { cause: error })
  }
}
