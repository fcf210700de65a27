import { inBackground } from '../background.ts'
import type { Env } from '../env.ts'
import type { Log } from '../log.ts'
import { type RunOptions, startGeneration } from './runner.ts'

/** Starts an answer here. It does not depend on the request: the client may leave, the answer goes on. */
export async function startInline(env: Env, generationId: string, log: Log, options: RunOptions): Promise<void> {
  try {
    const run = await startGeneration(env, generationId, log, options)
    if (run) inBackground(run.done)
  } catch (error) {
    // The message is stored and its job is in the queue: a worker answers it, a little later.
    log.warn('inline_start_failed', { generation_id: generationId }, error)
  }
}
