import { noObject } from './errors.ts'
import type { Files } from './files.ts'
import type { Call } from './server.ts'
import type { Metadata } from './upload.ts'

export interface StoredObject {
  id: string
  name: string
  bucket_id: string
  version: string
  metadata: Metadata
  user_metadata: unknown
  created_at: string
  updated_at: string
}

/** Answers with a file: whole, a range of it, or only that it has not changed. */
export async function serveFile({ request, url }: Call, object: StoredObject, files: Files): Promise<Response> {
  const { size, mimetype, cacheControl, eTag, lastModified } = object.metadata
  const headers = new Headers({
    'accept-ranges': 'bytes',
    'cache-control': cacheControl,
    'content-type': mimetype,
    etag: eTag,
    'last-modified': new Date(lastModified).toUTCString(),
  })
  const name = url.searchParams.get('download')
  if (name !== null) {
    const encoded = encodeURIComponent(name || object.name.replace(/^.*\//, ''))
    headers.set('content-disposition', `attachment; filename=${encoded}; filename*=UTF-8''${encoded};`)
  }
  if (request.headers.get('if-none-match') === eTag) return new Response(null, { status: 304, headers })
  const range = readRange(request.headers.get('range'), size)
  if (range === 'unsatisfiable') {
    headers.set('content-range', `bytes */${size}`)
    return new Response(null, { status: 416, headers })
  }
  const [start, end] = range ?? [0, size - 1]
  if (range) headers.set('content-range', `bytes ${start}-${end}/${size}`)
  headers.set('content-length', String(end - start + 1))
  const status = range ? 206 : 200
  if (request.method === 'HEAD') return new Response(null, { status, headers })
  const body = await files.read(object.version, start, end).catch((error) => {
    // Replaced or removed since its row was read.
    if (error instanceof Deno.errors.NotFound) throw noObject()
    throw error
  })
  return new Response(body, { status, headers })
}

/** First and last byte of a `Range` header with one range; null when there is none or it is not understood. */
function readRange(header: string | null, size: number): [number, number] | 'unsatisfiable' | null {
  const [, first, last] = /^bytes=(\d*)-(\d*)$/.exec(header ?? '') ?? []
  if (first === undefined || last === undefined || (first === '' && last === '')) return null
  const start = first === '' ? Math.max(0, size - Number(last)) : Number(first)
  const end = first === '' || last === '' ? size - 1 : Math.min(Number(last), size - 1)
  return start > end || start >= size ? 'unsatisfiable' : [start, end]
}
