import fc from 'fast-check'
import { bookEntryV3, bookV3, cardDataV3 } from '../../types/cards.ts'

/** Cards as the specifications allow them, with unknown keys wherever a card can have them. */

// biome-ignore lint/suspicious/noExplicitAny: cards are documents; tests look into whatever they hold
export type Card = any

/** Any text that Postgres stores: control characters, marks and emoji, but no NUL. */
const text = (maxLength = 60) => fc.string({ unit: 'binary', maxLength }).map((value) => value.replaceAll('\u0000', ''))
const texts = fc.array(text(), { maxLength: 4 })

/** JSON, also of keys such as `__proto__`. Through text once, since JSON knows no -0. */
const json = fc
  .json({ maxDepth: 3, stringUnit: 'binary' })
  .map((value) => JSON.parse(value.replaceAll('\\u0000', ' ')) as unknown)

const specified = new Set([cardDataV3, bookV3, bookEntryV3].flatMap(({ shape }) => Object.keys(shape)))

/** Keys that no specification knows; fast-check likes words of JavaScript, and `name` is one. */
const unknown = fc
  .array(fc.tuple(fc.oneof(fc.constantFrom('__proto__', 'constructor', 'app/key', 'über~', 'depth'), text(8)), json), {
    maxLength: 3,
  })
  .map((pairs) => pairs.filter(([key]) => !specified.has(key)))

const depthPrompt = fc.record({
  prompt: text(),
  depth: fc.integer({ min: -1, max: 20 }),
  role: fc.constantFrom('system', 'user', 'narrator'),
})

const extensions = fc
  .tuple(unknown, fc.option(depthPrompt, { nil: undefined }))
  .map(([pairs, depth_prompt]) =>
    Object.fromEntries([...pairs, ...(depth_prompt ? [['depth_prompt', depth_prompt]] : [])]),
  )

/** What SillyTavern keeps with an entry. */
const fieldExtensions = fc.record(
  {
    position: fc.integer({ min: 0, max: 6 }),
    depth: fc.oneof(fc.integer({ min: 0, max: 9 }), fc.constant(null)),
    role: fc.oneof(fc.integer({ min: 0, max: 2 }), fc.constant(null)),
    selectiveLogic: fc.integer({ min: 0, max: 3 }),
    match_whole_words: fc.oneof(fc.boolean(), fc.constant(null)),
    case_sensitive: fc.oneof(fc.boolean(), fc.constant(null)),
    probability: fc.integer({ min: 0, max: 100 }),
  },
  { requiredKeys: [] },
)

/** Adds unknown keys; those of the specification win. */
const withUnknown = <T extends object>(known: fc.Arbitrary<T>) =>
  fc.tuple(known, unknown).map(([object, pairs]) => Object.fromEntries([...pairs, ...Object.entries(object)]))

const number = fc.oneof(fc.integer(), fc.double({ noNaN: true, noDefaultInfinity: true }))
const keys = fc.array(
  fc.oneof(
    text(12),
    fc.constantFrom(
      'ship',
      '/sh[ai]p/i',
      '(unclosed',
      '(?=look)',
      'a\\1',
      '\\\\1',
      'a{100}',
      '[(?=]',
      '(?P<n>a)',
      '(?>a)',
      '(a{99}){99}',
      '  ',
      'Mr. Smith',
    ),
  ),
  { maxLength: 4 },
)

const entry = (version: 2 | 3) =>
  withUnknown(
    fc.record(
      {
        keys,
        content: fc.oneof(
          text(),
          text().map((content) => `@@depth 2\n@@@role user\n${content}`),
        ),
        extensions: fc.oneof(extensions, fieldExtensions),
        enabled: fc.boolean(),
        insertion_order: number,
        ...(version === 3 && { use_regex: fc.boolean() }),
        case_sensitive: fc.boolean(),
        name: text(),
        priority: number,
        id: version === 3 ? fc.oneof(number, text()) : number,
        comment: text(),
        selective: fc.boolean(),
        secondary_keys: keys,
        constant: fc.boolean(),
        position: fc.constantFrom('before_char', 'after_char'),
      },
      {
        requiredKeys: [
          'keys',
          'content',
          'extensions',
          'enabled',
          'insertion_order',
          ...(version === 3 ? ['use_regex' as never] : []),
        ],
      },
    ),
  )

const book = (version: 2 | 3) =>
  withUnknown(
    fc.record(
      {
        name: text(),
        description: text(),
        scan_depth: number,
        token_budget: number,
        recursive_scanning: fc.boolean(),
        extensions,
        entries: fc.array(entry(version), { maxLength: 3 }),
      },
      { requiredKeys: ['extensions', 'entries'] },
    ),
  )

const v1Fields = {
  name: text(),
  description: text(),
  personality: text(),
  scenario: text(),
  first_mes: text(),
  mes_example: text(),
}

const dataFields = {
  ...v1Fields,
  creator_notes: text(),
  system_prompt: text(),
  post_history_instructions: text(),
  alternate_greetings: texts,
  tags: texts,
  creator: text(),
  character_version: text(),
  extensions,
}

const root = fc.tuple(unknown, fc.subarray(['name', 'description', 'tags', 'creator_notes', 'extensions']))

/** As a parser gives it: plain objects, no -0. */
const parsed = (card: unknown): Card => JSON.parse(JSON.stringify(card))

const envelope = (version: 2 | 3, data: fc.Arbitrary<Record<string, unknown>>): fc.Arbitrary<Card> =>
  fc
    .tuple(data, root)
    .map(([data, [pairs, repeated]]) =>
      Object.fromEntries([
        ...pairs.filter(([key]) => key !== 'data'),
        ...repeated.map((key) => [key, data[key]] as const),
        ['spec', `chara_card_v${version}`] as const,
        ['spec_version', `${version}.0`] as const,
        ['data', data] as const,
      ]),
    )
    .map(parsed)

export const cardV1: fc.Arbitrary<Card> = withUnknown(fc.record(v1Fields))
  .map(parsed)
  .filter((card) => !('spec' in card && Object.hasOwn(card, 'spec')))

export const cardV2 = envelope(
  2,
  withUnknown(
    fc.record({ ...dataFields, character_book: book(2) }, { requiredKeys: Object.keys(dataFields) as never[] }),
  ),
)

const v3Fields = { ...dataFields, group_only_greetings: texts }

export const cardV3 = envelope(
  3,
  withUnknown(
    fc.record(
      {
        ...v3Fields,
        nickname: text(),
        creator_notes_multilingual: fc.dictionary(fc.constantFrom('en', 'de', 'ja'), text()),
        source: texts,
        creation_date: number,
        modification_date: number,
        assets: fc.array(
          fc.record({
            type: fc.constantFrom('icon', 'emotion', 'x_other'),
            uri: fc.constantFrom(
              'ccdefault:',
              'embeded://a/b.png',
              'data:image/png;base64,AAAA',
              'http://169.254.169.254/',
            ),
            name: text(),
            ext: fc.constant('png'),
          }),
          { maxLength: 2 },
        ),
        character_book: book(3),
      },
      { requiredKeys: Object.keys(v3Fields) as never[] },
    ),
  ),
)

export const lorebookFile: fc.Arbitrary<Card> = book(3).map((data) => parsed({ spec: 'lorebook_v3', data }))
