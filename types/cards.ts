import { z } from 'zod'

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
    code: z.string(),
    detail: z.string(),
  })
  .meta({ id: 'CardWarning' })
export type CardWarning = z.infer<typeof cardWarning>
