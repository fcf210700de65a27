import type { Claims } from '../tokens.ts'
import { badRequest, invalidKey, noBucket, notEmpty } from './errors.ts'
import type { Files } from './files.ts'
import { PLATFORM, type Run } from './server.ts'

export interface Bucket {
  id: string
  public: boolean
  file_size_limit: number | null
  allowed_mime_types: string[] | null
}

export type Buckets = ReturnType<typeof createBuckets>

const COLUMNS = 'id, name, owner, public, file_size_limit, allowed_mime_types, created_at, updated_at, type'
const NAME = /^[\w!\-.*'() &$@=;:+,?]{1,100}$/

/** Buckets are rows; who may make or change them is decided by the policies on `storage.buckets`. */
export function createBuckets(run: Run, files: Files) {
  async function changed(rows: Promise<{ count: number }>, message: string) {
    if ((await rows).count === 0) throw noBucket()
    return { message }
  }

  return {
    /** The bucket itself, whoever asks; its policies guard the objects in it. */
    async find(id: string): Promise<Bucket> {
      const [bucket] = await run(PLATFORM, 'bucket.get', (db) =>
        db.query(`select ${COLUMNS} from storage.buckets where id = $1`, [id]),
      )
      if (!bucket) throw noBucket()
      return bucket as unknown as Bucket
    },

    list: (claims: Claims) =>
      run(claims, 'bucket.list', (db) => db.query(`select ${COLUMNS} from storage.buckets order by name`)),

    async get(claims: Claims, id: string) {
      const [bucket] = await run(claims, 'bucket.get', (db) =>
        db.query(`select ${COLUMNS} from storage.buckets where id = $1`, [id]),
      )
      if (!bucket) throw noBucket()
      return bucket
    },

    async create(claims: Claims, body: Record<string, unknown>) {
      const name = typeof body.name === 'string' ? body.name : ''
      const id = typeof body.id === 'string' ? body.id : name
      for (const given of [id, name]) if (!NAME.test(given) || given.trim() !== given) throw invalidKey(given)
      await run(claims, 'bucket.create', (db) =>
        db.query(
          `insert into storage.buckets (id, name, owner, owner_id, public, file_size_limit, allowed_mime_types)
           values ($1, $2, $3::text::uuid, $3::text, $4, $5, $6)`,
          [
            id,
            name,
            ownerOf(claims),
            body.public === true,
            sizeOf(body.file_size_limit),
            typesOf(body.allowed_mime_types),
          ],
        ),
      )
      return { name }
    },

    update: (claims: Claims, id: string, body: Record<string, unknown>) =>
      changed(
        run(claims, 'bucket.update', (db) =>
          db.query(
            `update storage.buckets set public = coalesce($2, public),
               file_size_limit = case when $3 then $4 else file_size_limit end,
               allowed_mime_types = case when $5 then $6 else allowed_mime_types end, updated_at = now()
             where id = $1`,
            [
              id,
              typeof body.public === 'boolean' ? body.public : null,
              'file_size_limit' in body,
              sizeOf(body.file_size_limit),
              'allowed_mime_types' in body,
              typesOf(body.allowed_mime_types),
            ],
          ),
        ),
        'Successfully updated',
      ),

    async remove(claims: Claims, id: string) {
      const [objects] = await run(PLATFORM, 'bucket.delete', (db) =>
        db.query('select exists (select from storage.objects where bucket_id = $1) as left', [id]),
      )
      if (objects?.left) throw notEmpty()
      return await changed(
        run(claims, 'bucket.delete', (db) => db.query('delete from storage.buckets where id = $1', [id])),
        'Successfully deleted',
      )
    },

    async empty(claims: Claims, id: string) {
      await this.get(claims, id)
      const rows = await run(claims, 'bucket.empty', (db) =>
        db.query('delete from storage.objects where bucket_id = $1 returning version', [id]),
      )
      await files.remove(rows.map(({ version }) => version))
      return { message: 'Successfully emptied' }
    },
  }
}

/** A sub that is no uuid owns nothing. */
export const ownerOf = ({ sub }: Claims): string | null => (sub && /^[\da-f-]{36}$/i.test(sub) ? sub : null)

function sizeOf(value: unknown): number | null {
  if (value === null || value === undefined) return null
  const [, digits, unit = ''] = /^(\d+)\s*([kmgt]?)i?b?$/i.exec(String(value)) ?? []
  if (!digits) throw badRequest('file_size_limit must be a number of bytes or a size such as "5MB"')
  return Number(digits) * 1024 ** ['', 'k', 'm', 'g', 't'].indexOf(unit.toLowerCase())
}

function typesOf(value: unknown): string[] | null {
  if (value === null || value === undefined) return null
  if (!Array.isArray(value) || !value.every((type) => /^[\w.+-]+\/[\w.+*-]+$/.test(String(type)))) {
    throw badRequest('allowed_mime_types must be a list of types such as "image/png" or "image/*"')
  }
  return value
}
