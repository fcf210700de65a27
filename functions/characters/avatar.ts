import type { Caller } from '../_shared/auth.ts'
import { defaultPicture } from '../_shared/cards/default-picture.ts'
import { CardError } from '../_shared/cards/error.ts'
import { limits } from '../_shared/cards/limits.ts'
import { isPng, readPng } from '../_shared/cards/png.ts'
import { withDeadline } from '../_shared/deadline.ts'
import type { Env } from '../_shared/env.ts'
import type { Log } from '../_shared/log.ts'

const storageMs = 15_000

/**
 * Puts the picture of a card into its owner's folder and makes it the avatar; the path, or null where that fails. The path
 * follows from the character, so that a repeated import writes the same file.
 */
export async function storeAvatar(
  env: Env,
  owner: Caller,
  characterId: string,
  picture: Uint8Array<ArrayBuffer>,
  log: Log,
): Promise<string | null> {
  if (picture.length > limits.picture) return null
  const path = `${owner.id}/${characterId}.png`
  const db = env.db(owner.token)
  try {
    const { error } = await withDeadline('storage upload', storageMs, () =>
      db.storage.from('avatars').upload(path, picture, { contentType: 'image/png', upsert: true }),
    )
    if (error) throw error
    const update = await withDeadline('avatar update', storageMs, async (signal) =>
      db.from('characters').update({ avatar_path: path }).eq('id', characterId).abortSignal(signal),
    )
    if (update.error) throw update.error
    return path
  } catch (error) {
    log.warn('avatar_not_stored', { code: 'storage_unavailable' }, error)
    return null
  }
}

/** The avatar where it is a sound PNG, else a plain picture. */
export async function avatarPicture(env: Env, path: string | null, log: Log): Promise<Uint8Array> {
  if (!path) return defaultPicture
  try {
    // As service_role: the bucket is public, but only its owner could ask for the file by the API.
    const { data, error } = await withDeadline('storage download', storageMs, () =>
      env.admin.storage.from('avatars').download(path),
    )
    if (error) throw error
    const bytes = new Uint8Array(await data.arrayBuffer())
    if (!isPng(bytes)) return defaultPicture
    readPng(bytes)
    return bytes
  } catch (error) {
    // Whoever uploads an avatar may upload half of one.
    if (error instanceof CardError) return defaultPicture
    log.warn('avatar_not_read', { code: 'storage_unavailable' }, error)
    return defaultPicture
  }
}
