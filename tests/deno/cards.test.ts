import { deepStrictEqual as deepEqual, ok, strictEqual as equal, throws } from 'node:assert'
import fc from 'fast-check'
import { readBook, readBookFile } from '../../functions/_shared/cards/book.ts'
import { readCard, type StoredCard, writeCard } from '../../functions/_shared/cards/card.ts'
import { requireKeepable } from '../../functions/_shared/cards/json.ts'
import { cardDataV2, cardDataV3, cardV1, cardV2, cardV3, type CardSpec, type Json } from '../../types/cards.ts'
import * as given from '../support/cards.ts'

const understands = (pattern: string) => !/unclosed|\(\?=|\\1/.test(pattern)

/** What comes back from the database, which keeps neither the order of keys nor -0. */
const stored = (card: Json): StoredCard => {
  requireKeepable(card)
  return JSON.parse(JSON.stringify(readCard(card, understands)))
}
const written = (card: StoredCard, spec: CardSpec): Json =>
  JSON.parse(JSON.stringify(writeCard(card, spec, { understands })))
const schemas = { v1: cardV1, v2: cardV2, v3: cardV3 }
const arbitraries = { v1: given.cardV1, v2: given.cardV2, v3: given.cardV3 }

for (const spec of ['v1', 'v2', 'v3'] as const) {
  Deno.test(`a card of ${spec} comes back as it came, unknown keys on every level included`, () => {
    fc.assert(
      fc.property(arbitraries[spec], (card) => {
        deepEqual(written(stored(card), spec), card)
      }),
      { numRuns: 300 },
    )
  })

  Deno.test(`a card of ${spec} becomes one of every other version that its specification allows`, () => {
    fc.assert(
      fc.property(arbitraries[spec], (card) => {
        for (const target of ['v1', 'v2', 'v3'] as const) schemas[target].parse(written(stored(card), target))
      }),
      { numRuns: 100 },
    )
  })
}

Deno.test('whatever stands where a card has its fields, what comes back is a card, and a second trip changes nothing', () => {
  const anything = fc.oneof(fc.jsonValue({ maxDepth: 2 }), fc.constantFrom(null, '7', 7, 'true', [null, 'a', 5], {}))
  const mangled = fc.record({
    spec: fc.constantFrom('chara_card_v2', 'chara_card_v3'),
    spec_version: anything,
    data: fc.record(Object.fromEntries(Object.keys(cardDataV3.shape).map((key) => [key, anything])), {
      requiredKeys: [],
    }),
  })

  fc.assert(
    fc.property(mangled, (raw) => {
      const card = JSON.parse(JSON.stringify(raw).replaceAll('\\u0000', ''))
      const spec = card.spec === 'chara_card_v2' ? 'v2' : 'v3'

      const once = written(stored(card), spec)

      schemas[spec].parse(once)
      deepEqual(written(stored(once), spec), once)
    }),
    { numRuns: 500 },
  )
})

Deno.test('a lorebook of its own comes back as it came', () => {
  fc.assert(
    fc.property(given.lorebookFile, ({ data }) => {
      const book = readBook(data, 'v3', { warn: () => {}, place: null }, understands)
      const card = { ...stored(v2()), lorebook: JSON.parse(JSON.stringify(book)) }
      deepEqual((written(card, 'v3') as { data: { character_book: Json } }).data.character_book, data)
    }),
  )
})

const plainEntry = {
  keys: ['a'],
  content: 'C',
  extensions: {},
  enabled: true,
  insertion_order: 1,
  position: 'after_char',
}

const v2 = (data: object = {}, root: object = {}): given.Card => ({
  spec: 'chara_card_v2',
  spec_version: '2.0',
  data: {
    name: 'Mira',
    description: 'A pilot.',
    personality: 'Dry.',
    scenario: 'On a ship.',
    first_mes: 'Hello.',
    mes_example: '<START>',
    creator_notes: '',
    system_prompt: '',
    post_history_instructions: '',
    alternate_greetings: ['Hi.'],
    tags: ['Space', 'Slow Burn'],
    creator: 'Ann',
    character_version: '1',
    extensions: {},
    ...data,
  },
  ...root,
})

Deno.test('what was edited after the import wins, and the rest stays as it came', () => {
  const card = v2({ extensions: { depth_prompt: { prompt: 'Be brief.', depth: 2, role: 'user', x: 1 }, world: 'Sea' } })
  const read = stored(card)
  equal(read.definition.depth_prompt?.prompt, 'Be brief.')
  read.character.tags = ['space', 'new']
  read.definition.depth_prompt = { prompt: 'Be long.', depth: 4, role: 'system' }
  read.definition.personality = 'Warm.'

  const { data } = written(read, 'v2') as given.Card

  deepEqual(data.tags, ['space', 'new'])
  deepEqual(data.extensions, { depth_prompt: { prompt: 'Be long.', depth: 4, role: 'system' }, world: 'Sea' })
  deepEqual(
    { ...data, tags: 0, extensions: 0, personality: 0 },
    { ...card.data, tags: 0, extensions: 0, personality: 0 },
  )
})

Deno.test('fields that an editor repeats at the root follow those under data', () => {
  const read = stored(v2({}, { name: 'Mira', tags: ['Space', 'Slow Burn'], description: 'An old text', fav: true }))
  read.character.name = 'Nora'

  const card = written(read, 'v2') as given.Card

  deepEqual([card.name, card.data.name, card.description, card.fav], ['Nora', 'Nora', 'An old text', true])
})

Deno.test('what a card calls its description is not public: it becomes the backstory', () => {
  const read = stored(v2())
  deepEqual([read.character.description, read.definition.backstory], ['', 'A pilot.'])

  read.character.description = 'For everybody.'

  equal((written(read, 'v2') as given.Card).data.description, 'For everybody.\n\nA pilot.')
})

Deno.test('a book that is null is no book, lists that are null are empty, and numbers may be text', () => {
  const read = stored(
    v2({
      character_book: null,
      alternate_greetings: null,
      tags: null,
      character_version: 1.5,
      creator_notes: undefined,
    }),
  )
  equal(read.lorebook, null)

  const { data } = written(read, 'v2') as given.Card

  cardDataV2.parse(data)
  deepEqual([data.alternate_greetings, data.tags, data.character_version, data.creator_notes], [[], [], '1.5', ''])
  ok(!('character_book' in data))
  const book = { extensions: null, scan_depth: '4', entries: [{ keys: 'a, b', content: 'C', insertion_order: '7' }] }
  const { lorebook } = stored(v2({ character_book: book }))
  equal(lorebook?.scan_depth, 4)
  deepEqual(lorebook?.entries[0]?.keys, ['a', 'b'])
  deepEqual([lorebook?.entries[0]?.insertion_order, lorebook?.entries[0]?.is_enabled], [7, true])
})

Deno.test('what was repaired is said, with its place; null is not worth a word', () => {
  const { warnings } = readCard(
    v2({ tags: 5, creator: null, character_book: { entries: [null, {}], extensions: {} } }),
    understands,
  )

  deepEqual(
    warnings.map(({ pointer, code }) => [pointer, code]),
    [
      ['#/data/tags', 'value_repaired'],
      ['#/data/character_book/entries/0', 'value_repaired'],
    ],
  )
})

Deno.test('what no export has is said to be lost, with its place', () => {
  const warningsOf = (data: object) =>
    readCard(v2(data), understands).warnings.map(({ pointer, code }) => [pointer.replace('#/data/', ''), code])
  const book = (entries: unknown, more: object = {}) => ({ character_book: { extensions: {}, entries, ...more } })
  const lost = (place: string) => [[place, 'value_lost']]
  const repaired = (place: string) => [[place, 'value_repaired']]

  deepEqual(warningsOf({ character_book: 'LOSTBOOK' }), lost('character_book'))
  deepEqual(warningsOf({ character_book: [{}, 1] }), lost('character_book'))
  deepEqual(warningsOf({ character_book: '' }), repaired('character_book'))
  deepEqual(warningsOf({ description: { en: 'A pilot' } }), lost('description'))
  deepEqual(warningsOf({ description: {} }), repaired('description'))
  deepEqual(warningsOf({ tags: { a: true } }), lost('tags'))
  deepEqual(warningsOf({ tags: 'A, b' }), repaired('tags'))
  deepEqual(warningsOf({ tags: Array.from({ length: 17 }, (_, index) => `t${index}`).join() }), lost('tags'))
  deepEqual(warningsOf({ alternate_greetings: ['Hi.', { text: 'Ho.' }] }), lost('alternate_greetings'))
  deepEqual(warningsOf({ alternate_greetings: 'Well, hello' }), repaired('alternate_greetings'))
  deepEqual(warningsOf({ alternate_greetings: ['Hi.', 5, null] }), repaired('alternate_greetings'))
  deepEqual(warningsOf({ extensions: ['x'] }), lost('extensions'))
  deepEqual(warningsOf(book('x')), lost('character_book/entries'))
  deepEqual(warningsOf(book([{ ...plainEntry, id: 'a' }])), lost('character_book/entries/0/id'))
  deepEqual(warningsOf(book([plainEntry, 'x'])), lost('character_book/entries/1'))
  deepEqual(warningsOf(book([{ ...plainEntry, constant: 'true', enabled: 0, insertion_order: '7' }])), [
    ...repaired('character_book/entries/0/enabled'),
    ...repaired('character_book/entries/0/insertion_order'),
    ...repaired('character_book/entries/0/constant'),
  ])
  deepEqual(warningsOf(book([], { scan_depth: 'all' })), lost('character_book/scan_depth'))
})

Deno.test('entries in an object are its values, those under numbers in their order', () => {
  const named = (name: string) => ({ ...plainEntry, name })
  const entries = { x: named('last'), 10: named('b'), 2: named('a'), 3: 'no entry' }
  const card = v2({ character_book: { extensions: {}, entries } })

  deepEqual(
    readCard(card, understands).warnings.map(({ pointer, code }) => [pointer, code]),
    [
      ['#/data/character_book/entries', 'value_repaired'],
      ['#/data/character_book/entries/3', 'value_lost'],
    ],
  )
  deepEqual((written(stored(card), 'v2') as given.Card).data.character_book.entries, ['a', 'b', 'last'].map(named))
})

Deno.test('an object that cannot be made text is a value like any other', () => {
  const odd = { toString: null, valueOf: 1 }
  const card = { spec: 'chara_card_v3', spec_version: odd, data: { name: odd, tags: [odd], assets: [{ uri: odd }] } }

  equal(stored(card).character.name, 'Unnamed')
  throws(() => readBookFile({ spec: odd, data: {} }, () => {}, understands), { message: 'lorebook_not_recognised' })
})

Deno.test('a newer version comes in with a warning and goes out as it was', () => {
  for (const [spec, spec_version] of [
    ['chara_card_v3', '3.1'],
    ['chara_card_v4', '4.0'],
  ] as const) {
    const card = { spec, spec_version, data: { ...v2().data, group_only_greetings: [], telepathy: { range: 3 } } }
    deepEqual(
      readCard(card, understands).warnings.map(({ code }) => code),
      ['card_version_newer'],
    )
    deepEqual(written(stored(card), 'v3'), card)
  }
})

Deno.test('an entry of SillyTavern is plain words unless a key stands between slashes', () => {
  const entry = (keys: string[], constant: boolean) => ({
    keys,
    content: 'C',
    extensions: { selectiveLogic: 0, position: 4, depth: 3, role: 1, match_whole_words: true },
    enabled: true,
    insertion_order: 1,
    use_regex: true,
    constant,
    position: 'after_char',
  })
  const entries = [entry(['Mr. Smith'], false), entry(['/x/'], true), entry(['a+b', '/sh[ai]p/'], false)]
  const card = v2({ character_book: { extensions: {}, entries } })
  const read = stored(card)
  const [plain, constant, pattern] = read.lorebook!.entries

  deepEqual([plain?.keys, plain?.uses_regex], [['Mr. Smith'], false])
  deepEqual([constant?.uses_regex, constant?.is_constant], [false, true])
  deepEqual([plain?.placement, plain?.depth, plain?.role, plain?.matches_whole_words], ['at_depth', 3, 'user', true])
  deepEqual([pattern?.keys, pattern?.uses_regex], [['/a\\+b/i', '/sh[ai]p/'], true])
  deepEqual(written(read, 'v2'), card)
})

Deno.test('a pattern that is not understood matches never, is reported and comes back', () => {
  const entry = {
    keys: ['(?=x)y', 'ok'],
    content: 'C',
    extensions: {},
    enabled: true,
    insertion_order: 1,
    use_regex: true,
  }
  const card = {
    spec: 'chara_card_v3',
    spec_version: '3.0',
    data: { ...v2().data, group_only_greetings: [], character_book: { extensions: {}, entries: [entry] } },
  }
  const read = readCard(card, understands)

  deepEqual(read.lorebook?.entries[0]?.keys, ['ok'])
  deepEqual(
    read.warnings.map(({ pointer, code }) => [pointer, code]),
    [['#/data/character_book/entries/0/keys', 'lore_pattern_not_understood']],
  )
  deepEqual(written(read, 'v3'), card)
})

Deno.test('a copy for V2 has no decorators and nothing that only V3 knows', () => {
  const entry = {
    keys: ['a'],
    content: '@@depth 2\n@@@role user\nText',
    extensions: {},
    enabled: true,
    insertion_order: 1,
    use_regex: false,
  }
  const data = {
    ...v2().data,
    group_only_greetings: ['All!'],
    nickname: 'Mi',
    source: ['x'],
    assets: [],
    character_book: { extensions: {}, entries: [entry] },
  }
  const read = stored({ spec: 'chara_card_v3', spec_version: '3.0', data })

  const copy = (written(read, 'v2') as given.Card).data

  deepEqual(
    ['group_only_greetings', 'nickname', 'source', 'assets'].filter((key) => key in copy),
    [],
  )
  equal(copy.character_book.entries[0].content, 'Text')
})

Deno.test('nonsense in the column for extras does not stop an export', () => {
  for (const card_extras of [
    { spec: 9, data: 5, root: [], mirrored: {} },
    { data: { kept: 'x', omitted: { a: 1 } } },
    {},
  ]) {
    const read = stored(v2())
    read.definition.card_extras = card_extras as never

    cardV3.parse(written(read, 'v3'))
  }
})

Deno.test('a card that changed since it came in states when, in V3', () => {
  const card = stored(v2())

  const changed = writeCard(card, 'v3', { understands, modifiedAt: 1_700_000_000 }) as given.Card

  equal(changed.data.modification_date, 1_700_000_000)
  ok(!('modification_date' in (written(card, 'v3') as given.Card).data))
})
