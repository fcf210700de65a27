import { z } from 'zod'
import { storableText } from './common.ts'

/**
 * Shapes of what a character is made of, for forms and for whoever writes `characters` and `character_definitions`. The
 * constraints of the tables hold the same rules (`sql/40_characters/05_shapes.sql`); a property test compares the two.
 */

const spaces = ' \\u00a0\\u1680\\u2000-\\u200a\\u202f\\u205f\\u3000'
const atEnds = new RegExp(`^[${spaces}]|[${spaces}]$`)
const blank = new RegExp(`^[${spaces}\\u200c\\u200d\\ufe00-\\ufe0f]*$`)
const unseen =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  /[\u0001-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufeff\uffa0\ufff9-\ufffb]|\u034f|\u17b4|\u17b5/
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
const control = /[\u0001-\u0008\u000b\u000c\u000e-\u001f\u007f]/

/** Characters are code points, as Postgres counts them. */
const fits = (text: string, most: number) => Array.from(text).length <= most

/** One visible line, trimmed, without control, direction-changing or blank characters. */
export const line = (most: number) =>
  storableText.refine((text) => fits(text, most) && !atEnds.test(text) && !unseen.test(text) && !blank.test(text))

/** Text of several lines, without control characters other than tabs and line ends. */
export const text = (most: number) => storableText.refine((value) => fits(value, most) && !control.test(value))

/** `characters.tags` */
export const tags = z
  .array(line(32).refine((tag) => tag === tag.toLowerCase()))
  .max(16)
  .refine((list) => new Set(list).size === list.length)

const look = line(200).optional()

/** `characters.appearance` */
export const appearance = z.strictObject({
  heritage: look,
  skin_tone: look,
  eye_colour: look,
  hair_colour: look,
  hair_style: look,
  body_type: look,
  proportions: look,
  custom_traits: z.array(line(200)).max(32).optional(),
})

const textMap = (most: number) => z.record(line(60), text(most)).refine((map) => Object.keys(map).length <= 32)

/** `character_definitions.behaviour_preferences`: name to text. */
export const behaviourPreferences = textMap(500)

/** `character_definitions.custom_descriptions`: title to text. */
export const customDescriptions = textMap(8000)

/** `character_definitions.depth_prompt`: a text that is put so many messages before the newest one. */
export const depthPrompt = z.strictObject({
  prompt: text(16_000).refine((prompt) => /[^ \t\r\n]/.test(prompt)),
  depth: z.int().min(0).max(9999),
  role: z.enum(['system', 'user', 'assistant']),
})
