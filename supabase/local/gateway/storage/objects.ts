import { Rollback, type Session } from '../session.ts'
import type { Claims } from '../tokens.ts'
import { type Bucket, type Buckets, ownerOf } from './buckets.ts'
import { badRequest, noObject, wrongType } from './errors.ts'
import type { Files } from './files.ts'
import { checkKey } from './keys.ts'
import { type StoredObject, serveFile } from './serve.ts'
import { type Call, PLATFORM, type Run } from './server.ts'
import type { createGrants } from './tokens.ts'
import { readUpload, type Upload } from './upload.ts'

/** Where an object is: its bucket's id and its name in it. */
interface At {
  bucket: string
  key: string
}

interface Options {
  run: Run
  buckets: Buckets
  files: Files
  grants: ReturnType<typeof createGrants>
  sizeLimit: number
}

export type Objects = ReturnType<typeof createObjects>

const COLUMNS = 'id, name, bucket_id, version, metadata, user_metadata, created_at, updated_at, last_accessed_at'
const SORTABLE = ['name', 'created_at', 'updated_at', 'last_accessed_at']
const UPLOAD_SECONDS = 7200

export function createObjects({ run, buckets, files, grants, sizeLimit }: Options) {
  async function find(claims: Claims, { bucket, key }: At, operation: string): Promise<StoredObject> {
    const [row] = await run(claims, operation, (db) =>
      db.query(`select ${COLUMNS} from storage.objects where bucket_id = $1 and name = $2`, [bucket, key]),
    )
    if (!row) throw noObject()
    return row as unknown as StoredObject
  }

  const insert = (
    db: Session,
    { bucket, key }: At,
    owner: string | null,
    upsert: boolean,
    file: Partial<Upload> & { version: string },
  ) =>
    db.query(
      `insert into storage.objects (bucket_id, name, owner, owner_id, version, metadata, user_metadata)
       values ($1, $2, $3::text::uuid, $3::text, $4, $5::text::jsonb, $6::text::jsonb)
       ${
         upsert
           ? `on conflict (bucket_id, name) do update set version = excluded.version, metadata = excluded.metadata,
                user_metadata = excluded.user_metadata, owner = excluded.owner, owner_id = excluded.owner_id`
           : ''
       }`,
      [bucket, key, owner, file.version, JSON.stringify(file.metadata ?? {}), file.userMetadata ?? null],
    )

  /** Asks the policies whether the caller may write here, and undoes what was tried. */
  const mayWrite = (claims: Claims, at: At, upsert: boolean) =>
    run<unknown>(claims, 'object.upload', async (db) => {
      await insert(db, at, ownerOf(claims), upsert, { version: 'permission' })
      return new Rollback(null)
    })

  /** Makes the row that shows a written file, and removes the file that it replaces. */
  async function keep(at: At, owner: string | null, upsert: boolean, file: Upload): Promise<string> {
    try {
      const { id, replaced } = await run(PLATFORM, 'object.upload', async (db) => {
        // One at a time for each object, so that each replaced file is removed by the upload that replaces it.
        await db.query('select pg_advisory_xact_lock(hashtextextended($1, 0))', [`${at.bucket}/${at.key}`])
        const current = () =>
          db.query('select id, version from storage.objects where bucket_id = $1 and name = $2', [at.bucket, at.key])
        const [before] = await current()
        await insert(db, at, owner, upsert, file)
        const [after] = await current()
        return { id: after!.id as string, replaced: (before?.version ?? null) as string | null }
      })
      await files.remove([replaced])
      return id
    } catch (error) {
      await files.remove([file.version])
      throw error
    }
  }

  async function store({ request }: Call, at: At, owner: string | null, upsert: boolean) {
    const bucket = await buckets.find(at.bucket)
    const limit = Math.min(bucket.file_size_limit ?? sizeLimit, sizeLimit)
    const file = await readUpload(request, files, limit, (type) => checkType(bucket, type))
    return { Id: await keep(at, owner, upsert, file), Key: `${at.bucket}/${at.key}` }
  }

  async function publicObject(at: At): Promise<StoredObject> {
    if (!(await buckets.find(at.bucket)).public) throw noObject()
    return await find(PLATFORM, at, 'object.get_public')
  }

  const signedPath = async ({ bucket, key }: At, seconds: unknown) => {
    if (typeof seconds !== 'number' || !(seconds > 0)) throw badRequest('body/expiresIn must be a positive number')
    const url = `${bucket}/${key}`
    return `/object/sign/${url}?token=${await grants.sign({ url, use: 'download' }, seconds)}`
  }

  return {
    async upload(call: Call, at: At, upsert: boolean) {
      await buckets.find(at.bucket)
      await mayWrite(call.claims, at, upsert)
      return await store(call, at, ownerOf(call.claims), upsert)
    },
    async signUpload({ request, claims }: Call, at: At) {
      await buckets.find(at.bucket)
      const upsert = request.headers.get('x-upsert') === 'true'
      await mayWrite(claims, at, upsert)
      const url = `${at.bucket}/${at.key}`
      const grant = { url, upsert, owner: ownerOf(claims) ?? undefined, use: 'upload' as const }
      const token = await grants.sign(grant, UPLOAD_SECONDS)
      return { url: `/object/upload/sign/${url}?token=${token}`, token }
    },
    async uploadSigned(call: Call, at: At) {
      const grant = await grants.verify(call.url.searchParams.get('token'), `${at.bucket}/${at.key}`, 'upload')
      return await store(call, at, grant.owner ?? null, grant.upsert === true)
    },

    download: async (call: Call, at: At) =>
      serveFile(call, await find(call.claims, at, 'object.get_authenticated'), files),
    downloadPublic: async (call: Call, at: At) => serveFile(call, await publicObject(at), files),
    async downloadSigned(call: Call, at: At) {
      await grants.verify(call.url.searchParams.get('token'), `${at.bucket}/${at.key}`, 'download')
      return await serveFile(call, await find(PLATFORM, at, 'object.get_signed'), files)
    },
    info: async (claims: Claims, at: At) => describe(await find(claims, at, 'object.get_authenticated_info')),
    infoPublic: async (at: At) => describe(await publicObject(at)),

    async sign(claims: Claims, at: At, { expiresIn }: Record<string, unknown>) {
      await find(claims, at, 'object.sign')
      return { signedURL: await signedPath(at, expiresIn) }
    },
    /** One path that is missing does not spoil the others. */
    async signMany(claims: Claims, bucket: string, { expiresIn, paths }: Record<string, unknown>) {
      const keys = textList(paths, 'paths')
      const rows = await run(claims, 'object.sign_many', (db) =>
        db.query('select name from storage.objects where bucket_id = $1 and name = any($2)', [bucket, keys]),
      )
      const there = new Set(rows.map(({ name }) => name))
      return await Promise.all(
        keys.map(async (path) =>
          there.has(path)
            ? { path, error: null, signedURL: await signedPath({ bucket, key: path }, expiresIn) }
            : { path, error: 'Either the object does not exist or you do not have access to it', signedURL: null },
        ),
      )
    },

    async move(claims: Claims, body: Record<string, unknown>) {
      const { from, to } = fromTo(body)
      await buckets.find(to.bucket)
      const { count } = await run(claims, 'object.move', (db) =>
        db.query('update storage.objects set bucket_id = $3, name = $4 where bucket_id = $1 and name = $2', [
          from.bucket,
          from.key,
          to.bucket,
          to.key,
        ]),
      )
      if (count === 0) throw noObject()
      return { message: 'Successfully moved' }
    },
    async copy({ request, claims }: Call, body: Record<string, unknown>) {
      const { from, to } = fromTo(body)
      const source = await find(claims, from, 'object.copy')
      checkType(await buckets.find(to.bucket), source.metadata.mimetype)
      const upsert = request.headers.get('x-upsert') === 'true'
      await mayWrite(claims, to, upsert)
      const version = crypto.randomUUID()
      await files.copy(source.version, version)
      const userMetadata = source.user_metadata ? JSON.stringify(source.user_metadata) : null
      const Id = await keep(to, ownerOf(claims), upsert, { version, metadata: source.metadata, userMetadata })
      return { Id, Key: `${to.bucket}/${to.key}` }
    },

    async remove(claims: Claims, bucket: string, { prefixes }: Record<string, unknown>) {
      const keys = textList(prefixes, 'prefixes')
      const rows = await run(claims, 'object.delete_many', (db) =>
        db.query(`delete from storage.objects where bucket_id = $1 and name = any($2) returning ${COLUMNS}`, [
          bucket,
          keys,
        ]),
      )
      await files.remove(rows.map(({ version }) => version))
      return rows
    },
    async removeOne(claims: Claims, { bucket, key }: At) {
      if ((await this.remove(claims, bucket, { prefixes: [key] })).length === 0) throw noObject()
      return { message: 'Successfully deleted' }
    },

    /** Files right below a folder, and the folders below it, which are rows without id. */
    async list(claims: Claims, bucket: string, body: Record<string, unknown>) {
      const folder = String(body.prefix ?? '').replace(/^\/+|\/+$/g, '')
      const { column = 'name', order = 'asc' } = (body.sortBy ?? {}) as Record<string, string>
      if (!SORTABLE.includes(column)) throw badRequest(`body/sortBy/column must be one of ${SORTABLE.join(', ')}`)
      const direction = order === 'desc' ? 'desc' : 'asc'
      const search = `${String(body.search ?? '').replace(/[\\%_]/g, '\\$&')}%`
      return await run(claims, 'object.list', (db) =>
        db.query(
          `with below as (
             select *, substr(name, length($2) + 1) as rest from storage.objects
             where bucket_id = $1 and starts_with(name, $2)
           ), entries as (
             select rest as name, id, updated_at, created_at, last_accessed_at, metadata
             from below where position('/' in rest) = 0
             union all
             select distinct split_part(rest, '/', 1), null::uuid, null::timestamptz, null::timestamptz, null::timestamptz,
               null::jsonb
             from below where position('/' in rest) > 0
           )
           select * from entries where name ilike $3
           order by ${column === 'name' ? '' : `id is not null, ${column} ${direction}, `}name ${direction} limit $4 offset $5`,
          [bucket, folder && `${folder}/`, search, wholeNumber(body.limit, 100), wholeNumber(body.offset, 0)],
        ),
      )
    },
  }
}

function checkType({ allowed_mime_types: allowed }: Bucket, type: string) {
  const matches = (pattern: string) =>
    pattern === type || (pattern.endsWith('/*') && type.startsWith(pattern.slice(0, -1)))
  if (allowed?.length && !allowed.some(matches)) throw wrongType(type)
}

function fromTo({ bucketId, sourceKey, destinationKey, destinationBucket }: Record<string, unknown>): {
  from: At
  to: At
} {
  if (typeof bucketId !== 'string' || typeof sourceKey !== 'string' || typeof destinationKey !== 'string') {
    throw badRequest('body must have bucketId, sourceKey and destinationKey')
  }
  const bucket = typeof destinationBucket === 'string' ? destinationBucket : bucketId
  return { from: { bucket: bucketId, key: sourceKey }, to: { bucket, key: checkKey(destinationKey) } }
}

function textList(value: unknown, name: string): string[] {
  if (!Array.isArray(value) || value.length > 1000 || !value.every((item) => typeof item === 'string')) {
    throw badRequest(`body/${name} must be a list of at most 1000 texts`)
  }
  return value
}

const wholeNumber = (value: unknown, fallback: number) =>
  Number.isSafeInteger(value) && Number(value) >= 0 ? Math.min(Number(value), 10_000) : fallback

const describe = ({ id, name, bucket_id, version, metadata, user_metadata, created_at, updated_at }: StoredObject) => ({
  id,
  name,
  bucket_id,
  version,
  size: metadata.size,
  content_type: metadata.mimetype,
  cache_control: metadata.cacheControl,
  etag: metadata.eTag,
  last_modified: updated_at,
  metadata: user_metadata,
  created_at,
})
