import type { Context } from 'hono'
import { limits } from '../_shared/cards/limits.ts'
import { readBytes, type Service } from '../_shared/http.ts'
import { Problem } from '../_shared/problem.ts'

export interface Upload {
  bytes: Uint8Array
  /** The other fields of a form. */
  fields: Record<string, string>
}

const json = /^application\/(?:[\w.+-]+\+)?json\b/i
const files = /^(image\/(a|x-)?png|application\/octet-stream)\b/i
const form = /^multipart\/form-data\b/i

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
  return form.test(type) ? await readForm(bytes, type) : { bytes, fields: {} }
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
  const fields = [...form].flatMap(([name, value]) => (typeof value === 'string' ? [[name, value] as const] : []))
  return { bytes: new Uint8Array(await file.arrayBuffer()), fields: Object.fromEntries(fields) }
}

/** A JSON document that may be as large as a card. */
export async function readJsonFile(c: Context<Service>): Promise<Uint8Array> {
  if (!json.test(c.req.header('content-type') ?? '')) {
    throw new Problem(415, 'content_type_unsupported', 'Send the lorebook as application/json.')
  }
  return await readBytes(c.req.raw.body, limits.json)
}
