import { Buffer } from 'node:buffer'
import { badRequest, tooLarge } from './errors.ts'
import type { Files } from './files.ts'

export interface Metadata {
  eTag: string
  size: number
  mimetype: string
  cacheControl: string
  lastModified: string
  contentLength: number
  httpStatusCode: number
}

/** A file that is written, and not yet shown by any row. */
export interface Upload {
  version: string
  metadata: Metadata
  /** JSON text, or null. */
  userMetadata: string | null
}

/** Room for the other fields of a form beside its file. */
const FORM_BYTES = 64 * 1024

/** Writes the uploaded bytes, which are the body itself or the file of a form, and describes them. */
export async function readUpload(
  request: Request,
  files: Files,
  limit: number,
  checkType: (type: string) => void,
): Promise<Upload> {
  const type = request.headers.get('content-type') ?? 'application/octet-stream'
  const isForm = type.startsWith('multipart/form-data')
  if (Number(request.headers.get('content-length') ?? 0) > limit + (isForm ? FORM_BYTES : 0)) throw tooLarge()
  const part = isForm ? await readForm(request, limit) : readPlain(request, type)
  checkType(part.mimetype)
  const version = crypto.randomUUID()
  const { size, etag } = await files.write(version, part.body, limit)
  const { mimetype, cacheControl, userMetadata } = part
  const lastModified = new Date().toISOString()
  const metadata = { eTag: etag, size, mimetype, cacheControl, lastModified, contentLength: size, httpStatusCode: 200 }
  return { version, metadata, userMetadata }
}

interface Part {
  body: ReadableStream<Uint8Array> | null
  mimetype: string
  cacheControl: string
  userMetadata: string | null
}

function readPlain({ headers, body }: Request, type: string): Part {
  let userMetadata: string | null
  try {
    userMetadata = headers.has('x-metadata') ? objectText(atob(headers.get('x-metadata')!)) : null
  } catch {
    throw badRequest('x-metadata must be the base64 of a JSON object')
  }
  const mimetype = type.split(';')[0]!.trim().toLowerCase()
  return { body, mimetype, cacheControl: headers.get('cache-control') ?? 'no-cache', userMetadata }
}

async function readForm(request: Request, limit: number): Promise<Part> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of request.body ?? []) {
    size += chunk.byteLength
    if (size > limit + FORM_BYTES) throw tooLarge()
    chunks.push(chunk)
  }
  const type = request.headers.get('content-type')!
  const bytes = nameFile(Buffer.concat(chunks), /boundary="?([^";]+)/.exec(type)?.[1] ?? '')
  const form = await new Response(bytes, { headers: { 'content-type': type } }).formData().catch(() => {
    throw badRequest('The form could not be read')
  })
  const file = [...form.values()].find((value) => value instanceof File)
  if (!file) throw badRequest('The form has no file')
  const seconds = form.get('cacheControl')
  const metadata = form.get('metadata')
  try {
    return {
      body: file.stream(),
      mimetype: file.type.split(';')[0]!.toLowerCase() || 'application/octet-stream',
      cacheControl: seconds ? `max-age=${seconds}` : 'no-cache',
      userMetadata: typeof metadata === 'string' ? objectText(metadata) : null,
    }
  } catch {
    throw badRequest('metadata must be a JSON object')
  }
}

/** supabase-js leaves the file's field without a name, and Deno leaves such a field out of the form. */
function nameFile(form: Buffer, boundary: string): Uint8Array<ArrayBuffer> {
  const unnamed = `--${boundary}\r\nContent-Disposition: form-data; name="`
  const at = form.indexOf(`${unnamed}"`)
  if (at < 0) return new Uint8Array(form)
  const end = at + unnamed.length
  return new Uint8Array(Buffer.concat([form.subarray(0, end), Buffer.from('file'), form.subarray(end)]))
}

function objectText(text: string): string {
  const value: unknown = JSON.parse(text)
  if (typeof value !== 'object' || value === null) throw new SyntaxError('not an object')
  return JSON.stringify(value)
}
