import { z } from 'zod'
import { id, idempotencyKey, type RouteDescription } from './common.ts'

/** What a card can say that has no type of its own: any JSON. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json }
export type JsonObject = { [key: string]: Json }

const extensions = z
  .record(z.string(), z.any())
  .meta({ description: 'Data of applications; every key is kept and comes back.' })

/** The six fields of V1; V2 and V3 hold them too, under `data`. */
const texts = {
  name: z.string(),
  description: z.string(),
  personality: z.string(),
  scenario: z.string(),
  first_mes: z.string(),
  mes_example: z.string(),
}

export const cardV1 = z.looseObject(texts).meta({ id: 'CharacterCardV1' })

const entryFields = {
  keys: z.array(z.string()),
  content: z.string(),
  extensions,
  enabled: z.boolean(),
  insertion_order: z.number(),
  case_sensitive: z.boolean().optional(),
  name: z.string().optional(),
  priority: z.number().optional(),
  comment: z.string().optional(),
  selective: z.boolean().optional(),
  secondary_keys: z.array(z.string()).optional(),
  constant: z.boolean().optional(),
  position: z.enum(['before_char', 'after_char']).optional(),
}

const bookFields = {
  name: z.string().optional(),
  description: z.string().optional(),
  scan_depth: z.number().optional(),
  token_budget: z.number().optional(),
  recursive_scanning: z.boolean().optional(),
  extensions,
}

export const bookEntryV2 = z.looseObject({
  ...entryFields,
  id: z.number().optional(),
  use_regex: z
    .boolean()
    .optional()
    .meta({ description: 'Not of V2, but SillyTavern writes it there; here it marks patterns.' }),
})
export const bookV2 = z.looseObject({ ...bookFields, entries: z.array(bookEntryV2) }).meta({ id: 'CharacterBookV2' })

export const bookEntryV3 = z.looseObject({
  ...entryFields,
  use_regex: z.boolean(),
  id: z.union([z.number(), z.string()]).optional(),
})
export const bookV3 = z.looseObject({ ...bookFields, entries: z.array(bookEntryV3) }).meta({ id: 'LorebookV3' })

/** A lorebook as a file of its own. */
export const lorebookFile = z
  .looseObject({ spec: z.literal('lorebook_v3'), data: bookV3 })
  .meta({ id: 'LorebookFile', description: 'A lorebook as a file of its own.' })

const dataFields = {
  ...texts,
  creator_notes: z.string(),
  system_prompt: z.string(),
  post_history_instructions: z.string(),
  alternate_greetings: z.array(z.string()),
  tags: z.array(z.string()),
  creator: z.string(),
  character_version: z.string(),
  extensions,
}

export const cardDataV2 = z.looseObject({ ...dataFields, character_book: bookV2.optional() })
export const cardV2 = z
  .looseObject({ spec: z.literal('chara_card_v2'), spec_version: z.string(), data: cardDataV2 })
  .meta({ id: 'CharacterCardV2' })

const asset = z.looseObject({ type: z.string(), uri: z.string(), name: z.string(), ext: z.string() })

export const cardDataV3 = z.looseObject({
  ...dataFields,
  group_only_greetings: z.array(z.string()),
  nickname: z.string().optional(),
  creator_notes_multilingual: z.record(z.string(), z.string()).optional(),
  source: z.array(z.string()).optional(),
  creation_date: z.number().optional(),
  modification_date: z.number().optional(),
  assets: z.array(asset).optional(),
  character_book: bookV3.optional(),
})
export const cardV3 = z
  .looseObject({ spec: z.literal('chara_card_v3'), spec_version: z.string(), data: cardDataV3 })
  .meta({ id: 'CharacterCardV3' })

export const cardSpec = z.enum(['v1', 'v2', 'v3'])
export type CardSpec = z.infer<typeof cardSpec>

/** Something an import did not take as it stood; the card is in, and what could be kept is kept for export. */
export const cardWarning = z
  .object({
    pointer: z.string().meta({ description: 'Place in the card, RFC 6901 as a URI fragment.' }),
    code: z.string().meta({ description: '`value_lost`: no export has it; the others are in docs/cards.md.' }),
    detail: z.string(),
  })
  .meta({ id: 'CardWarning' })
export type CardWarning = z.infer<typeof cardWarning>

/** Body of an import: a card of any version. What differs from its specification is repaired where it can be. */
const anyCard = z.union([cardV1, cardV2, cardV3])

/** What no card says; in the query, or in the form. */
export const importOptions = z.strictObject({
  age: z.coerce
    .number()
    .int()
    .min(18)
    .max(30_000)
    .meta({ description: 'Age of the character, which must be an adult; no card tells it. A form may carry it too.' }),
  is_mature: z
    .enum(['true', 'false'])
    .default('false')
    .meta({ description: 'Whether it is mature; a card whose tags say so is, whatever stands here.' }),
})

export const importHeaders = z.object({ 'idempotency-key': idempotencyKey.optional() })

export const characterParams = z.object({ id })

export const exportOptions = z.strictObject({
  format: z.enum(['json', 'png']).default('json'),
  spec: cardSpec
    .default('v3')
    .meta({ description: 'Version of the card. A picture of a V3 card holds a V2 copy for older readers too.' }),
})

export const importedCharacter = z
  .object({
    character: z.looseObject({ id, name: z.string(), avatar_path: z.string().nullable() }).meta({
      description: 'A row of table characters.',
    }),
    spec: cardSpec.meta({ description: 'Version of the card that was read.' }),
    warnings: z.array(cardWarning),
  })
  .meta({ id: 'ImportedCharacter' })

export const importedLorebook = z
  .object({
    lorebook: z.looseObject({ id, character_id: id }).meta({ description: 'A row of table lorebooks.' }),
    entries: z.int().meta({ description: 'How many entries it holds.' }),
    warnings: z.array(cardWarning),
  })
  .meta({ id: 'ImportedLorebook' })

export const cardRoutes: RouteDescription[] = [
  {
    method: 'post',
    path: '/characters/import',
    summary: 'Make a character of a card',
    description:
      'Takes a card V1, V2 or V3 as JSON or in its PNG (at most 8 MB), as the body itself or as `file` of a form. The ' +
      'character is private, its picture becomes the avatar, and what has no column is kept for export. No address in a ' +
      'card is ever asked. The same idempotency key returns the same character.',
    access: 'user',
    headers: importHeaders,
    query: importOptions,
    body: anyCard,
    bodyFiles: ['image/png', 'image/apng', 'application/octet-stream'],
    bodyForm: importOptions.partial(),
    responses: {
      201: { description: 'The character, and what was not taken as it stood.', content: importedCharacter },
    },
    problems: [403, 409],
  },
  {
    method: 'get',
    path: '/characters/{id}/export',
    summary: 'A character as a card',
    description:
      'Its owner gets everything, and an untouched card as it came in; others get the face of a character that they may ' +
      'see. A picture has the avatar where that is a PNG, else a plain one.',
    access: 'user',
    params: characterParams,
    query: exportOptions,
    responses: { 200: { description: 'The card.', content: anyCard, orFile: 'image/png' } },
    problems: [403, 404],
  },
  {
    method: 'post',
    path: '/characters/{id}/lorebook',
    summary: 'Give a character of mine the lorebook of a file',
    description: 'Takes the place of the one it has; so the same request again changes nothing.',
    access: 'user',
    params: characterParams,
    body: lorebookFile,
    responses: { 200: { description: 'The lorebook, and what was not taken as it stood.', content: importedLorebook } },
    problems: [403, 404],
  },
  {
    method: 'get',
    path: '/characters/{id}/lorebook',
    summary: 'The lorebook of a character of mine as a file',
    access: 'user',
    params: characterParams,
    responses: { 200: { description: 'The file.', content: lorebookFile } },
    problems: [403, 404],
  },
]
