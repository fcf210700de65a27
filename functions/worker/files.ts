import { withDeadline } from '../_shared/deadline.ts'
import type { Env } from '../_shared/env.ts'

/** A file of Storage, as the plans of SQL name it. */
export interface StoredFile {
  bucket: string
  path: string
}

const callMs = 15_000

/** Removes files through the Storage API, which alone removes bytes; throws where it does not answer, or removes nothing. */
export async function removeFiles(env: Env, files: StoredFile[]): Promise<void> {
  for (const [bucket, inBucket] of Map.groupBy(files, (file) => file.bucket)) {
    const paths = inBucket.map(({ path }) => path)
    // As service_role, because whoever owned the files cannot act any more, or need not wait.
    const { data, error } = await withDeadline('storage remove', callMs, () =>
      env.admin.storage.from(bucket).remove(paths),
    )
    if (error) throw error
    if (data.length === 0) throw new Error('Storage removed none of the files.')
  }
}
