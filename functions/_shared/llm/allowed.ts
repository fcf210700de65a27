import type { Env } from '../env.ts'
import type { Log } from '../log.ts'
import { Problem } from '../problem.ts'
import { ModelError } from './errors.ts'
import { refusedTexts } from './moderation.ts'

/** Refuses what moderation refuses, before it is stored or a model is asked. */
export async function requireAllowed(env: Env, texts: string[], log: Log): Promise<void> {
  let refused: boolean[]
  try {
    refused = await refusedTexts(env, texts, log)
  } catch (error) {
    if (!(error instanceof ModelError)) throw error
    throw new Problem(503, error.code, 'What you wrote cannot be looked at now; try again.', {
      headers: { 'retry-after': '5' },
      cause: error,
    })
  }
  if (refused.includes(true)) {
    throw new Problem(422, 'content_refused', 'What you wrote is not allowed here.')
  }
}
