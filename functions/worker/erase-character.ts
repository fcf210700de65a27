import { z } from 'zod'
import { removeFiles, type StoredFile } from './files.ts'
import type { Handler } from './worker.ts'

const erasePayload = z.object({ character_id: z.guid() })

/** Removes the files of a deleted character. SQL says what is left; asking again until nothing is makes it repeatable. */
export const eraseCharacter: Handler = async (job, { env, log, signal }) => {
  const { character_id } = erasePayload.parse(job.payload)
  let removed = 0
  while (!signal.aborted) {
    const files = await env.service.call<StoredFile[]>('character_files_left', character_id)
    if (files.length === 0) return { status: 'completed', result: { files: removed } }
    try {
      await removeFiles(env, files)
    } catch (error) {
      log.warn('erase_failed', { code: 'storage_unavailable' }, error)
      return { status: 'retry', error: { code: 'storage_unavailable', detail: 'Storage did not remove the files.' } }
    }
    removed += files.length
  }
  return { status: 'retry', error: { code: 'handed_over', detail: 'Another worker goes on.' }, retry_after_seconds: 0 }
}
