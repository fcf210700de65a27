import { hash } from './answer.ts'
import type { Entry } from './log.ts'

type Schema = Record<string, unknown>

/**
 * The JSON schema that a request wants its answer to conform to: by `response_format`, or by words of the system that
 * quote one after "JSON Schema:", which models that can follow instructions do.
 */
export function schemaOf(body: Entry['body']): Schema | null {
  const format = body.response_format as { type?: string; json_schema?: { schema?: Schema } } | undefined
  if (format?.type === 'json_schema') return format.json_schema?.schema ?? {}
  for (const { role, content } of body.messages ?? []) {
    if ((role !== 'system' && role !== 'user') || typeof content !== 'string') continue
    const quoted = /JSON Schema:\s*(\{.*\})[ \t]*$/im.exec(content)?.[1]
    if (!quoted) continue
    try {
      return JSON.parse(quoted)
    } catch {
      // Words about schemas are not one.
    }
  }
  return null
}

/** A document that conforms to the schema, made of the text's own words; the same text gives the same document. */
export function sample(schema: Schema, text: string): unknown {
  const seed = hash(text)
  if (Array.isArray(schema.enum)) return schema.enum[seed % schema.enum.length]
  if ('const' in schema) return schema.const
  const some = (schema.anyOf ?? schema.oneOf ?? schema.allOf) as Schema[] | undefined
  if (some?.[0]) return sample(some[0], text)
  const type = Array.isArray(schema.type) ? schema.type[0] : schema.type
  const number = (name: string, fallback: number) =>
    typeof schema[name] === 'number' ? (schema[name] as number) : fallback
  switch (type) {
    case 'object':
      return Object.fromEntries(
        Object.entries((schema.properties ?? {}) as Record<string, Schema>).map(([key, value]) => [
          key,
          sample(value, text),
        ]),
      )
    case 'array':
      return Array.from({ length: Math.min(number('maxItems', 1), Math.max(1, number('minItems', 0))) }, (_, index) =>
        sample((schema.items ?? {}) as Schema, `${text.split(/\s+/)[index] ?? text}`),
      )
    case 'number':
    case 'integer':
      return Math.max(number('minimum', 0), Math.min(number('maximum', 0), 0))
    case 'boolean':
      return true
    case 'null':
      return null
    default:
      return Array.from(text.replace(/\s+/g, ' ').trim() || 'text')
        .slice(0, Math.min(80, number('maxLength', 80)))
        .join('')
  }
}
