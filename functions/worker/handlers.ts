import { z } from 'zod'
import { startGeneration } from '../_shared/generation/runner.ts'
import { erase } from './erase.ts'
import { eraseCharacter } from './erase-character.ts'
import { summarise } from './summarise.ts'
import type { Handler } from './worker.ts'

const generationPayload = z.object({ generation_id: z.guid() })

/**
 * Makes an answer that nobody makes inline, or that another runner left. The generation's own row holds the truth and
 * its job is only the alarm clock: finishing the job while the answer is not made lets it ring again. A job whose lease
 * is lost does not stop the answer, whose lease is another one; the runner itself hands over before the isolate ends.
 */
const generation: Handler = async (job, { env, log }) => {
  const { generation_id } = generationPayload.parse(job.payload)
  const run = await startGeneration(env, generation_id, log)
  await run?.done
  return { status: 'completed' }
}

/** What the worker can do, by kind of job. */
export const handlers: Record<string, Handler> = { generation, erase, erase_character: eraseCharacter, summarise }
