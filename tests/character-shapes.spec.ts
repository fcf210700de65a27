import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { z } from 'zod'
import { appearance, behaviourPreferences, customDescriptions, depthPrompt, tags } from '../types/characters.ts'
import { database } from './support/local.ts'

/** What the constraints of characters take is what their zod schemas take. */

const piece = fc.constantFrom(
  ...[
    'a',
    'tall',
    'É',
    'ñ',
    '龙',
    '😀',
    ' ',
    '  ',
    '\n',
    '\t',
    '\u0001',
    '\u007f',
    '\u0085',
    '\u00a0',
    '\u00ad',
    '\u200b',
  ],
  ...[
    '\u200d',
    '\u202e',
    '\u2060',
    '\u2800',
    '\u3000',
    '\ufe0f',
    '\ufeff',
    'x'.repeat(31),
    'y'.repeat(60),
    'z'.repeat(199),
  ],
)
/** Mostly harmless, now and then something that no line may have, and as long as the limits or one longer. */
const words = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom('tall', 'a scar', 'Grey', 'dry humour') },
  { weight: 2, arbitrary: fc.array(piece, { maxLength: 4 }).map((pieces) => pieces.join('')) },
  {
    weight: 1,
    arbitrary: fc
      .constantFrom(32, 33, 60, 61, 200, 201, 500, 501, 8000, 8001, 16_000, 16_001)
      .map((length) => '😀'.repeat(length)),
  },
)
const anything = fc.oneof(
  { weight: 6, arbitrary: words },
  { weight: 1, arbitrary: fc.constantFrom(null, 7, true, [], {}, ['x']) },
)
const looks = ['heritage', 'skin_tone', 'eye_colour', 'hair_colour', 'hair_style', 'body_type', 'proportions']
const list = fc.oneof(
  { weight: 5, arbitrary: fc.array(anything, { maxLength: 3 }) },
  {
    weight: 1,
    arbitrary: fc.constantFrom(16, 17, 32, 33).map((length) => Array.from({ length }, (_, n) => `trait ${n}`)),
  },
)
const map = fc.oneof(
  { weight: 5, arbitrary: fc.dictionary(words, anything, { maxKeys: 3 }) },
  {
    weight: 1,
    arbitrary: fc
      .constantFrom(32, 33)
      .map((length) => Object.fromEntries(Array.from({ length }, (_, n) => [`${n}`, 'x']))),
  },
)

const shapes: [name: string, check: string, schema: z.ZodType, values: fc.Arbitrary<unknown>][] = [
  [
    'appearance',
    'private.is_appearance(v)',
    appearance,
    fc.oneof(
      { weight: 4, arbitrary: fc.dictionary(fc.constantFrom(...looks, 'wings'), anything, { maxKeys: 3 }) },
      { weight: 2, arbitrary: list.map((custom_traits) => ({ custom_traits })) },
      { weight: 1, arbitrary: anything },
    ),
  ],
  ['behaviour_preferences', 'private.is_text_map(v, 32, 500)', behaviourPreferences, fc.oneof(map, map, anything)],
  ['custom_descriptions', 'private.is_text_map(v, 32, 8000)', customDescriptions, fc.oneof(map, map, anything)],
  [
    'depth_prompt',
    'private.is_depth_prompt(v)',
    depthPrompt,
    fc.oneof(
      {
        weight: 5,
        arbitrary: fc.record(
          {
            prompt: anything,
            depth: fc.oneof(fc.constantFrom(0, 4, 9999, 10_000, -1, 1.5, '4'), anything),
            role: fc.constantFrom('system', 'user', 'assistant', 'tool', null),
            extra: fc.constant(1),
          },
          { requiredKeys: ['prompt', 'role', 'depth'] },
        ),
      },
      {
        weight: 3,
        arbitrary: fc.record({
          prompt: words,
          depth: fc.constantFrom(0, 4, 9999),
          role: fc.constantFrom('system', 'user'),
        }),
      },
      { weight: 1, arbitrary: anything },
    ),
  ],
  [
    'tags',
    `case when jsonb_typeof(v) = 'array' and not jsonb_path_exists(v, 'strict $[*] ? (@.type() != "string")')
      then private.is_tag_list(array(select jsonb_array_elements_text(v))) else false end`,
    tags,
    fc.oneof(
      list,
      fc.array(fc.constantFrom('space', 'Space', 'elf', 'É', 'é', 'x'.repeat(32), 'x'.repeat(33)), { maxLength: 3 }),
    ),
  ],
]

describe('what a character is made of', () => {
  it.each(shapes)('has one shape for forms and for the table: %s', async (_, check, schema, values) => {
    const sql = database()
    const seen = { taken: 0, refused: 0 }
    await fc.assert(
      fc.asyncProperty(fc.array(values, { minLength: 30, maxLength: 30 }), async (samples) => {
        const rows = await sql.unsafe(
          `select coalesce(${check}, false) as ok from jsonb_array_elements($1::text::jsonb) with ordinality as s (v, n) order by n`,
          [JSON.stringify(samples)],
        )
        const bySchema = samples.map((sample) => schema.safeParse(sample).success)
        for (const ok of bySchema) seen[ok ? 'taken' : 'refused'] += 1
        const differing = samples.filter((_, index) => rows[index]!.ok !== bySchema[index])
        expect(differing).toEqual([])
      }),
      { numRuns: 25 },
    )
    expect(Math.min(seen.taken, seen.refused)).toBeGreaterThan(100)
  })
})
