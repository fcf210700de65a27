import type { Context } from 'hono'
import { limits } from '../_shared/cards/limits.ts'
import { readBytes, type Service } from '../_shared/http.ts'
import { pointer } from '../_shared/pointer.ts'
import { Problem } from '../_shared/problem.ts'

export interface Upload {
  bytes: Uint8Array
  /** Whether this is a picture, of whatever format: by its first bytes, or by its type where they are no JSON. */
  isPicture: boolean
  /** The other fields of a form, as often as each stands in it. */
  fields: [string, string][]
}

const json = /^application\/(?:[\w.+-]+\+)?json\b/i
const files = /^(image\/(a|x-)?png|application\/octet-stream)\b/i
const form = /^multipart\/form-data\b/i

/** How PNG, JPEG, GIF, WebP, BMP, TIFF and the family of HEIC and AVIF begin, byte by byte. */
const pictures = /^(\x89PNG|\xff\xd8\xff|GIF8[79]a|RIFF.{4}WEBP|BM.{4}\0\0\0\0|II\*\0|MM\0\*|.{4}ftyp)/s
// White space of JSON and a byte order mark, then the object that a card is.
const jsonStart = /^(\xef\xbb\xbf)?[ \t\n\r]*\{/

function isPicture(bytes: Uint8Array, type: string): boolean {
  const start = String.fromCharCode(...bytes.subarray(0, 64))
  return !jsonStart.test(start) && (pictures.test(start) || /^image\//i.test(type))
}

/** A card as the body itself or as `file` of a form; what it is, its first bytes tell, since browsers often do not. */
export async function readUpload(c: Context<Service>): Promise<Upload> {
  const type = c.req.header('content-type') ?? ''
  if (!json.test(type) && !files.test(type) && !form.test(type)) {
    throw new Problem(
      415,
      'content_type_unsupported',
      'Send a card as application/json, as image/png, or as `file` of multipart/form-data.',
    )
  }
  const bytes = await readBytes(c.req.raw.body, limits.file)
  return form.test(type) ? await readForm(bytes, type) : { bytes, isPicture: isPicture(bytes, type), fields: [] }
}

async function readForm(body: Uint8Array<ArrayBuffer>, type: string): Promise<Upload> {
  let form: FormData
  try {
    form = await new Response(body, { headers: { 'content-type': type } }).formData()
  } catch (cause) {
    throw new Problem(400, 'body_unreadable', 'The body is not a valid form.', { cause })
  }
  const file = form.get('file')
  if (!(file instanceof File)) {
    throw Problem.invalid([{ pointer: '#/file', code: 'file_missing', detail: 'The form needs a file named `file`.' }])
  }
  const fields = [...form].flatMap(([name, value]) =>
    typeof value === 'string' ? [[name, value] satisfies [string, string]] : [],
  )
  const bytes = new Uint8Array(await file.arrayBuffer())
  return { bytes, isPicture: isPicture(bytes, file.type), fields }
}

/** What query and form say of a character. Two ages are none, and `1e3` or `0x1E` are no ages that somebody meant. */
export function readOptions(c: Context<Service>, fields: Upload['fields']): Record<string, string> {
  const all = [...new URL(c.req.url).searchParams, ...fields]
  const options = Object.fromEntries(all)
  const contradicted = new Set(all.filter(([name, value]) => value !== options[name]).map(([name]) => name))
  if (contradicted.size > 0) {
    throw Problem.invalid(
      [...contradicted].map((name) => ({
        pointer: pointer([name]),
        code: 'value_contradicted',
        detail: 'This is said more than once, and not the same.',
      })),
    )
  }
  if (options.age !== undefined && !/^\d{1,5}$/.test(options.age)) {
    throw Problem.invalid([{ pointer: '#/age', code: 'invalid_format', detail: 'An age is written in digits alone.' }])
  }
  return options
}

/** A JSON document that may be as large as a card. */
export async function readJsonFile(c: Context<Service>): Promise<Uint8Array> {
  if (!json.test(c.req.header('content-type') ?? '')) {
    throw new Problem(415, 'content_type_unsupported', 'Send the lorebook as application/json.')
  }
  return await readBytes(c.req.raw.body, limits.json)
}
