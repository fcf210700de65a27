import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import type { SupabaseClient } from '@supabase/supabase-js'
import { describe, expect, it } from 'vitest'
import { projectStack } from '../support/project.ts'

const api = projectStack('tests/local/fixtures/data-api')

/** A signed-in person, their storage client and a path in their own folder. */
async function person() {
  const id = crypto.randomUUID()
  const client = api.client(await api.token({ sub: id }))
  return { id, client, files: client.storage.from('private'), path: (name: string) => `${id}/${name}` }
}

const text = (blob: Blob | null) => blob?.text()
const png = (size = 10) => new Blob([new Uint8Array(size)], { type: 'image/png' })

/** Codes of a refused call: HTTP status, then Storage's own. */
const codes = ({ error }: { error: unknown }) => {
  const { status, statusCode } = error as { status: number; statusCode: string }
  return [status, statusCode]
}

describe('files', () => {
  it('an upload is read back as it was, with its type, and described', async () => {
    const { files, path } = await person()

    const { data, error } = await files.upload(path('a/hello.txt'), 'hello', {
      contentType: 'text/plain',
      cacheControl: '60',
      metadata: { mood: 'calm' },
    })

    expect(error).toBeNull()
    expect(data).toMatchObject({ path: path('a/hello.txt'), fullPath: `private/${path('a/hello.txt')}` })
    const { data: blob } = await files.download(path('a/hello.txt'))
    expect([await text(blob), blob?.type]).toEqual(['hello', 'text/plain'])
    expect((await files.info(path('a/hello.txt'))).data).toMatchObject({
      id: data?.id,
      size: 5,
      contentType: 'text/plain',
      cacheControl: 'max-age=60',
      metadata: { mood: 'calm' },
    })
    expect((await files.exists(path('a/hello.txt'))).data).toBe(true)
    expect((await files.exists(path('a/other.txt'))).data).toBe(false)
  })

  it('a form upload keeps the type of its file', async () => {
    const { client, path } = await person()
    const pictures = client.storage.from('pictures')

    expect((await pictures.upload(path('dot.png'), png())).error).toBeNull()

    expect((await pictures.download(path('dot.png'))).data).toMatchObject({ size: 10, type: 'image/png' })
  })

  it('the same path twice is refused, an upsert replaces the bytes and the file', async () => {
    const { files, path } = await person()
    await files.upload(path('x'), 'one')

    expect(codes(await files.upload(path('x'), 'two'))).toEqual([400, '409'])
    expect((await files.upload(path('x'), 'three', { upsert: true })).error).toBeNull()

    expect(await text((await files.download(path('x'))).data)).toBe('three')
    expect((await files.update(path('x'), 'four')).error).toBeNull()
    expect(await text((await files.download(path('x'))).data)).toBe('four')
  })

  it('of ten uploads to one path at once one wins, or with upsert the last one whole', async () => {
    const { files, path } = await person()
    const bodies = Array.from({ length: 10 }, (_, i) => String(i).repeat(50_000))

    const once = await Promise.all(bodies.map((body) => files.upload(path('race'), body)))
    expect(once.filter(({ error }) => error === null)).toHaveLength(1)

    const always = await Promise.all(bodies.map((body) => files.upload(path('race'), body, { upsert: true })))
    expect(always.map(({ error }) => error)).toEqual(Array(10).fill(null))
    expect(bodies).toContain(await text((await files.download(path('race'))).data))
  })

  it('replaced, refused and removed files leave nothing on disk', async () => {
    const { id, files, path } = await person()
    const sql = api.sql('supabase_admin')
    await files.upload(path('keep'), 'one')
    await files.upload(path('keep'), 'two', { upsert: true })
    await files.upload(path('gone'), 'three')
    await files.remove([path('gone')])
    await api.client().storage.from('private').upload(path('refused'), 'four')

    const rows = await sql`select version from storage.objects where bucket_id = 'private' and name like ${`${id}/%`}`
    expect(rows).toHaveLength(1)
    const all = await sql`select version from storage.objects`
    const onDisk = readdirSync(`${api.stack.data}/storage`, { recursive: true, withFileTypes: true })
    expect(
      onDisk
        .filter((entry) => entry.isFile() && entry.name !== '.database')
        .map(({ name }) => name)
        .sort(),
    ).toEqual(all.map(({ version }) => version).sort())
  })

  it('parts and unchanged files are answered as such', async () => {
    const { client, path } = await person()
    await client.storage.from('pictures').upload(path('p.png'), new Blob(['0123456789'], { type: 'image/png' }))
    const { publicUrl } = client.storage.from('pictures').getPublicUrl(path('p.png')).data

    const part = await fetch(publicUrl, { headers: { range: 'bytes=2-4' } })
    expect([part.status, part.headers.get('content-range'), await part.text()]).toEqual([206, 'bytes 2-4/10', '234'])
    expect((await fetch(publicUrl, { headers: { range: 'bytes=90-' } })).status).toBe(416)
    const etag = (await fetch(publicUrl)).headers.get('etag')!
    expect((await fetch(publicUrl, { headers: { 'if-none-match': etag } })).status).toBe(304)
    const saved = await fetch(`${publicUrl}?download=mine.png`)
    expect(saved.headers.get('content-disposition')).toContain('filename=mine.png')
  })

  it('an empty file is a file', async () => {
    const { files, path } = await person()

    await files.upload(path('empty'), '')

    expect((await files.download(path('empty'))).data?.size).toBe(0)
  })

  it('files are moved and copied', async () => {
    const { files, path } = await person()
    await files.upload(path('from'), 'body')

    expect((await files.copy(path('from'), path('copy'))).data).toEqual({ path: `private/${path('copy')}` })
    expect((await files.move(path('from'), path('to/there'))).error).toBeNull()

    expect(await text((await files.download(path('copy'))).data)).toBe('body')
    expect(await text((await files.download(path('to/there'))).data)).toBe('body')
    expect(codes(await files.move(path('from'), path('again')))).toEqual([400, '404'])
    expect(codes(await files.move(path('copy'), path('to/there')))).toEqual([400, '409'])
  })

  it('a list shows files and folders of one level, sorted, searched and by page', async () => {
    const { files, path, id } = await person()
    for (const name of ['b.txt', 'a.txt', 'sub/x.txt', 'sub/deep/y.txt', 'zoo/z.txt'])
      await files.upload(path(name), name)
    const names = async (folder: string, options = {}) =>
      (await files.list(folder, options)).data?.map((entry) => [entry.name, entry.id !== null])

    expect(await names(id)).toEqual([
      ['a.txt', true],
      ['b.txt', true],
      ['sub', false],
      ['zoo', false],
    ])
    expect(await names(`${id}/sub/`)).toEqual([
      ['deep', false],
      ['x.txt', true],
    ])
    expect(await names(id, { limit: 2, offset: 1 })).toEqual([
      ['b.txt', true],
      ['sub', false],
    ])
    expect(await names(id, { search: 'B' })).toEqual([['b.txt', true]])
    expect(await names(id, { search: '%' })).toEqual([])
    expect((await names(id, { sortBy: { column: 'created_at', order: 'desc' } }))?.slice(-1)).toEqual([['b.txt', true]])
    const file = (await files.list(id, { search: 'a.txt' })).data?.[0]
    expect(file?.metadata).toMatchObject({ size: 5, mimetype: expect.any(String), eTag: expect.any(String) })
  })

  it('removing tells what was removed', async () => {
    const { files, path } = await person()
    await files.upload(path('one'), '1')

    const { data } = await files.remove([path('one'), path('absent')])

    expect(data?.map(({ name }) => name)).toEqual([path('one')])
    expect(codes(await files.download(path('one')).then(({ error }) => ({ error })))[0]).toBe(400)
  })
})

describe('who may', () => {
  it('a stranger, a visitor and an unsigned address see nothing of a private file', async () => {
    const owner = await person()
    const stranger = await person()
    await owner.files.upload(owner.path('secret'), 'secret')

    for (const client of [stranger.client, api.client()]) {
      const files = client.storage.from('private')
      expect((await files.download(owner.path('secret'))).error).not.toBeNull()
      expect((await files.list(owner.id)).data).toEqual([])
      expect((await files.remove([owner.path('secret')])).data).toEqual([])
      expect((await files.createSignedUrl(owner.path('secret'), 60)).error).not.toBeNull()
      expect((await files.move(owner.path('secret'), owner.path('taken'))).error).not.toBeNull()
      expect(codes(await files.upload(owner.path('planted'), 'x'))).toEqual([400, '403'])
      expect(codes(await files.upload(owner.path('secret'), 'x', { upsert: true }))).toEqual([400, '403'])
    }
    const { publicUrl } = owner.files.getPublicUrl(owner.path('secret')).data
    expect((await fetch(publicUrl)).status).toBe(400)
    expect(await text((await owner.files.download(owner.path('secret'))).data)).toBe('secret')
  })

  it('the secret key passes the policies', async () => {
    const owner = await person()
    await owner.files.upload(owner.path('f'), 'f')

    expect(await text((await api.admin().storage.from('private').download(owner.path('f'))).data)).toBe('f')
  })

  it('a file of a public bucket needs no key, a wrong key is refused all the same', async () => {
    const { client, path } = await person()
    await client.storage.from('pictures').upload(path('p.png'), png())
    const { publicUrl } = client.storage.from('pictures').getPublicUrl(path('p.png')).data

    const open = await fetch(publicUrl, { headers: { origin: 'https://app.example' } })
    expect([open.status, open.headers.get('content-type')]).toEqual([200, 'image/png'])
    expect(open.headers.get('access-control-allow-origin')).toBe('*')
    expect((await fetch(publicUrl, { headers: { apikey: 'sb_publishable_wrong' } })).status).toBe(401)
    const list = { method: 'POST', body: '{"prefix":""}' }
    expect((await fetch(`${api.url}/storage/v1/object/list/private`, list)).status).toBe(401)
  })

  it('rows cannot be deleted past the Storage API', async () => {
    await expect(api.sql()`delete from storage.objects`).rejects.toMatchObject({ code: '42501' })
  })

  it('expired and foreign tokens are refused', async () => {
    const now = Math.floor(Date.now() / 1000)
    const expired = api.client(await api.token({ exp: now - 100 }))

    expect(codes(await expired.storage.from('private').list(''))).toEqual([400, '403'])
  })
})

describe('signed addresses', () => {
  it('one is good for its file and time alone', async () => {
    const { files, path } = await person()
    await files.upload(path('with space.txt'), 'signed')
    await files.upload(path('other'), 'other')

    const { data } = await files.createSignedUrl(path('with space.txt'), 60)

    expect(await (await fetch(data!.signedUrl)).text()).toBe('signed')
    const moved = data!.signedUrl.replace('with%20space.txt', 'other')
    expect((await (await fetch(moved)).json()).error).toBe('InvalidJWT')
    expect((await fetch(`${data!.signedUrl}x`)).status).toBe(400)
    const brief = (await files.createSignedUrl(path('other'), 0.001)).data!
    await expect.poll(async () => (await fetch(brief.signedUrl)).status, { timeout: 5_000 }).toBe(400)
  })

  it('of several, a missing file spoils only its own', async () => {
    const { files, path } = await person()
    await files.upload(path('there'), 'there')

    const { data } = await files.createSignedUrls([path('there'), path('absent')], 60)

    expect(await (await fetch(data![0]!.signedUrl!)).text()).toBe('there')
    expect(data![1]).toMatchObject({ path: path('absent'), error: expect.stringContaining('does not exist') })
  })

  it('an upload address lets somebody without an account put one file', async () => {
    const { files, path } = await person()
    const { data } = await files.createSignedUploadUrl(path('invited'))
    const visitor = api.client().storage.from('private')

    const put = await visitor.uploadToSignedUrl(path('invited'), data!.token, 'from outside')

    expect(put.error).toBeNull()
    expect(await text((await files.download(path('invited'))).data)).toBe('from outside')
    expect((await visitor.uploadToSignedUrl(path('elsewhere'), data!.token, 'x')).error).not.toBeNull()
    expect(codes(await visitor.uploadToSignedUrl(path('invited'), data!.token, 'again'))).toEqual([400, '409'])
  })

  it('a download token cannot upload, nor a user token sign for a file', async () => {
    const { files, path, client } = await person()
    await files.upload(path('f'), 'f')
    const token = new URL((await files.createSignedUrl(path('f'), 60)).data!.signedUrl).searchParams.get('token')!

    expect((await client.storage.from('private').uploadToSignedUrl(path('f'), token, 'x')).error).not.toBeNull()
    const userToken = await api.token()
    expect((await fetch(`${api.url}/storage/v1/object/sign/private/${path('f')}?token=${userToken}`)).status).toBe(400)
  })
})

describe('limits', () => {
  it('types and sizes of a bucket hold for forms, bodies and copies', async () => {
    const { client, path, files } = await person()
    const pictures = client.storage.from('pictures')

    expect(codes(await pictures.upload(path('a.gif'), new Blob(['x'], { type: 'image/gif' })))).toEqual([400, '415'])
    expect(codes(await pictures.upload(path('big.png'), png(2000)))).toEqual([400, '413'])
    const plain = new Uint8Array(2000)
    expect(codes(await pictures.upload(path('big.png'), plain, { contentType: 'image/png' }))).toEqual([400, '413'])
    expect(codes(await files.upload(path('huge'), 'x'.repeat(1024 * 1024 + 1)))).toEqual([400, '413'])
    await files.upload(path('words.txt'), 'x', { contentType: 'text/plain' })
    expect(codes(await files.copy(path('words.txt'), path('words.txt'), { destinationBucket: 'pictures' }))).toEqual([
      400,
      '415',
    ])
  })

  it('a body without a length is counted as it comes', async () => {
    const { id } = await person()
    const response = await fetch(`${api.url}/storage/v1/object/private/${id}/stream`, {
      method: 'POST',
      headers: { apikey: api.stack.keys.publishable, authorization: `Bearer ${await api.token({ sub: id })}` },
      body: new Blob([new Uint8Array(2 * 1024 * 1024)]).stream(),
      duplex: 'half',
    } as RequestInit)

    expect((await response.json()).statusCode).toBe('413')
  })

  it.each(['..%2Fx', 'a%2F..%2Fx', 'a%2F%2Fb', '%00', 'caf%C3%A9', 'a%5Cb', 'x'.repeat(1100)])(
    'the key %s is refused',
    async (key) => {
      const { id } = await person()
      const response = await fetch(`${api.url}/storage/v1/object/private/${id}/${key}`, {
        method: 'POST',
        headers: { apikey: api.stack.keys.secret },
        body: 'x',
      })

      expect((await response.json()).error).toBe('InvalidKey')
    },
  )
})

describe('buckets', () => {
  const made = async (admin: SupabaseClient, options = { public: false }) => {
    const id = `made-${crypto.randomUUID()}`
    const { error } = await admin.storage.createBucket(id, options)
    if (error) throw error
    return id
  }

  it('are made, read, changed, emptied and deleted with the secret key', async () => {
    const admin = api.admin()
    const id = await made(admin)

    expect((await admin.storage.getBucket(id)).data).toMatchObject({ id, public: false, type: 'STANDARD' })
    expect((await admin.storage.updateBucket(id, { public: true, fileSizeLimit: '1KB' })).error).toBeNull()
    expect((await admin.storage.getBucket(id)).data).toMatchObject({ public: true, file_size_limit: 1024 })
    await admin.storage.from(id).upload('f', 'f')
    expect(codes(await admin.storage.deleteBucket(id))).toEqual([400, '409'])
    expect((await admin.storage.emptyBucket(id)).error).toBeNull()
    expect((await admin.storage.deleteBucket(id)).error).toBeNull()
    expect(codes(await admin.storage.getBucket(id))).toEqual([400, '404'])
    expect((await admin.storage.listBuckets()).data?.map(({ id }) => id)).toContain('private')
  })

  it('a user can neither make, see nor change one without a policy', async () => {
    const { client } = await person()
    const id = await made(api.admin())

    expect(codes(await client.storage.createBucket('mine'))).toEqual([400, '403'])
    expect((await client.storage.listBuckets()).data).toEqual([])
    expect((await client.storage.updateBucket(id, { public: true })).error).not.toBeNull()
    expect((await client.storage.deleteBucket(id)).error).not.toBeNull()
    expect(codes(await client.storage.from('absent').upload('x', 'x'))).toEqual([400, '404'])
  })

  it('those of config.toml are there', async () => {
    expect((await api.admin().storage.getBucket('configured')).data).toMatchObject({
      public: true,
      file_size_limit: 65536,
      allowed_mime_types: ['image/png', 'text/*'],
    })
  })

  it('a bucket twice is refused', async () => {
    const admin = api.admin()
    const id = await made(admin)

    expect(codes(await admin.storage.createBucket(id))).toEqual([400, '409'])
  })

  it('diff-storage-1 image transformations, resumable uploads and the S3 protocol are absent', async () => {
    for (const path of ['render/image/public/pictures/x.png', 'upload/resumable', 's3/pictures']) {
      const response = await fetch(`${api.url}/storage/v1/${path}`, { headers: { apikey: api.stack.keys.secret } })
      expect((await response.json()).statusCode).toBe('404')
    }
  })
})

describe('files without a row', () => {
  const folder = () => `${api.stack.data}/storage`
  const fileOf = (version: string) => `${folder()}/${version.slice(0, 2)}/${version}`

  /** What an upload leaves that was killed between its bytes and its row. */
  function orphan(ageMinutes: number): string {
    const version = crypto.randomUUID()
    mkdirSync(`${folder()}/${version.slice(0, 2)}`, { recursive: true })
    writeFileSync(fileOf(version), 'left')
    age(version, ageMinutes)
    return version
  }
  function age(version: string, minutes: number) {
    const then = Date.now() / 1000 - minutes * 60
    utimesSync(fileOf(version), then, then)
  }
  async function killed() {
    const pid = () => JSON.parse(readFileSync(`${api.stack.data}/children.json`, 'utf8')).platform
    const before = pid()
    process.kill(before, 'SIGKILL')
    const serves = async () => {
      const answer = await fetch(`${api.url}/rest/v1/many?limit=1`, { headers: { apikey: api.stack.keys.publishable } })
      return answer.ok && pid() !== before
    }
    await expect.poll(() => serves().catch(() => false), { timeout: 20_000 }).toBe(true)
  }

  it('are removed at the next start when they are older than an hour; others and those with a row stay', async () => {
    const { files, path } = await person()
    await files.upload(path('old'), 'kept')
    const [row] = await api.sql('supabase_admin')`select version from storage.objects where name = ${path('old')}`
    age(row!.version, 120)
    const [old, young] = [orphan(61), orphan(50)]

    await killed()

    expect([old, young, row!.version].map((version) => existsSync(fileOf(version)))).toEqual([false, true, true])
    expect(await text((await files.download(path('old'))).data)).toBe('kept')
    rmSync(fileOf(young))
  })

  it('stay where a data folder has served another database as well', async () => {
    const marker = `${folder()}/.database`
    const own = readFileSync(marker, 'utf8')
    const old = orphan(120)
    writeFileSync(marker, 'another')

    await killed()
    await killed()

    expect(existsSync(fileOf(old))).toBe(true)
    writeFileSync(marker, own)
    await killed()
    expect(existsSync(fileOf(old))).toBe(false)
  })
})
