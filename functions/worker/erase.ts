import { z } from 'zod'
import { pause, withDeadline } from '../_shared/deadline.ts'
import { removeFiles, type StoredFile } from './files.ts'
import type { Handler } from './worker.ts'

const erasePayload = z.object({ user_id: z.guid() })

interface ErasePlan {
  files: StoredFile[]
  delete_user: boolean
}

const callMs = 15_000

/**
 * Removes what SQL cannot remove of a deleted account: files (through the Storage API, which alone deletes bytes), then
 * the user in Auth. The plan says what is left; asking again until nothing is makes every step repeatable.
 */
export const erase: Handler = async (job, { env, log, signal, progress }) => {
  const { user_id } = erasePayload.parse(job.payload)
  let removed = 0
  while (!signal.aborted) {
    const plan = await env.service.call<ErasePlan>('erase_plan', user_id)
    if (plan.files.length > 0) {
      try {
        await removeFiles(env, plan.files)
      } catch (error) {
        return failed('storage_unavailable', error)
      }
      removed += plan.files.length
      progress(50)
      continue
    }
    if (!plan.delete_user) return { status: 'completed', result: { files: removed } }
    // A part at a time, where deleting the user would take all of them at once. Somebody else may hold one.
    if (await env.service.call<boolean>('purge_conversations_of', user_id)) {
      await pause(250, signal)
      continue
    }
    const { error } = await withDeadline('auth delete', callMs, () => env.admin.auth.admin.deleteUser(user_id))
    if (error && error.status !== 404) return failed('auth_unavailable', error)
    progress(90)
  }
  return { status: 'retry', error: { code: 'handed_over', detail: 'Another worker goes on.' }, retry_after_seconds: 0 }

  function failed(code: string, cause: unknown) {
    log.warn('erase_failed', { code }, cause)
    return { status: 'retry', error: { code, detail: 'A service of the platform did not answer.' } } as const
  }
}
