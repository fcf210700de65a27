import { z } from 'zod'

export type Structured<T> = { ok: true; value: T } | { ok: false; mistake: string }

/** Reads a model's JSON document against a schema; a code fence around it, and words before and after, are forgiven. */
export function readStructured<S extends z.ZodType>(text: string, schema: S): Structured<z.output<S>> {
  const from = text.indexOf('{')
  const to = text.lastIndexOf('}')
  let value: unknown
  try {
    value = JSON.parse(from >= 0 && to > from ? text.slice(from, to + 1) : text)
  } catch {
    return { ok: false, mistake: 'It is not a JSON document.' }
  }
  const read = schema.safeParse(value)
  if (read.success) return { ok: true, value: read.data }
  return { ok: false, mistake: `It does not conform to the schema: ${z.prettifyError(read.error).slice(0, 1000)}` }
}
