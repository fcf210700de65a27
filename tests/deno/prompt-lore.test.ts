import { deepEqual, equal, ok } from 'node:assert/strict'
import fc from 'fast-check'
import { RE2JS } from 're2js'
import { findLore, fitLore, type Verdict } from '../../functions/_shared/prompt/lore.ts'
import { Effort, Haystack, keyOf } from '../../functions/_shared/prompt/lore-match.ts'
import { foldCase, neededWords } from '../../functions/_shared/prompt/lore-words.ts'
import { expandMacros } from '../../functions/_shared/prompt/macros.ts'
import type { Lorebook, LoreEntry } from '../../functions/_shared/prompt/material.ts'

const entryOf = (values: Partial<LoreEntry> = {}): LoreEntry => ({
  id: crypto.randomUUID(),
  position: 0,
  keys: ['dragon'],
  secondary_keys: [],
  is_selective: false,
  is_constant: false,
  is_enabled: true,
  is_case_sensitive: false,
  matches_whole_words: null,
  uses_regex: false,
  insertion_order: 100,
  priority: null,
  placement: 'before_char',
  depth: null,
  role: null,
  content: 'Dragons are shy.',
  ...values,
})

const bookOf = (entries: Partial<LoreEntry>[], values: Partial<Lorebook> = {}): Lorebook => ({
  id: crypto.randomUUID(),
  source: 'character',
  scan_depth: null,
  token_budget: null,
  is_recursive: false,
  ...values,
  entries: entries.map((entry, position) => entryOf({ position, ...entry })),
})

const talk = (...contents: string[]) =>
  contents.map((content, index) => ({
    role: (contents.length - index) % 2 === 1 ? ('user' as const) : ('assistant' as const),
    content,
  }))

const names = { char: 'Mira', user: 'Sam', seeds: { pick: '', random: '' } }
const find = (book: Lorebook | Lorebook[], said: ReturnType<typeof talk>, greeting: number | null = null) =>
  findLore([book].flat(), { said, greeting, expand: (text) => expandMacros(text, names) })
/** What becomes of one entry. */
const reasonOf = (entry: Partial<LoreEntry>, said: string | ReturnType<typeof talk>, book: Partial<Lorebook> = {}) =>
  find(bookOf([entry], book), typeof said === 'string' ? talk(said) : said)[0]!.reason

Deno.test('an entry comes when one of its keys was said, without regard to case unless it asks for it', () => {
  equal(reasonOf({ keys: ['wyrm', 'dragon'] }, 'A Dragon!'), 'key')
  equal(reasonOf({ keys: ['wyrm'] }, 'A Dragon!'), 'no_key')
  equal(reasonOf({ is_case_sensitive: true }, 'A Dragon!'), 'no_key')
  equal(reasonOf({ keys: ['Dragon'], is_case_sensitive: true }, 'A Dragon!'), 'key')
  equal(reasonOf({ keys: ['', '  '] }, 'A Dragon!'), 'no_key')
  equal(reasonOf({ keys: ['{{user}}'] }, 'I am sam'), 'key')
})

Deno.test('an entry that is off never comes, an empty one adds nothing, a constant one always comes', () => {
  equal(reasonOf({ is_enabled: false, is_constant: true }, 'dragon'), 'disabled')
  equal(reasonOf({ is_enabled: false, content: null }, 'dragon'), 'disabled')
  equal(reasonOf({ content: null }, 'dragon'), 'book_too_large')
  equal(reasonOf({ content: ' {{// nothing}} ' }, 'dragon'), 'empty')
  equal(reasonOf({ content: ' ' }, 'dragon'), 'empty')
  equal(reasonOf({ is_constant: true, keys: [] }, 'Hello'), 'constant')
})

Deno.test('a selective entry needs a second key; others ignore theirs', () => {
  equal(reasonOf({ secondary_keys: ['gold'], is_selective: true }, 'dragon'), 'no_secondary_key')
  equal(reasonOf({ secondary_keys: ['gold'], is_selective: true }, 'a dragon and gold'), 'key')
  equal(reasonOf({ secondary_keys: ['gold'], is_selective: false }, 'dragon'), 'key')
  equal(reasonOf({ secondary_keys: [], is_selective: true }, 'dragon'), 'key')
})

Deno.test('whole words are whole in every script that has spaces, and anywhere in those that have none', () => {
  const whole = (key: string, text: string) => reasonOf({ keys: [key], matches_whole_words: true }, text) === 'key'
  equal(reasonOf({ keys: ['cat'] }, 'education'), 'key')
  for (const [key, text, is] of [
    ['cat', 'education', false],
    ['cat', 'the cat.', true],
    ['cat', 'CAT', true],
    ['cat', 'cats', false],
    ['cat', 'cat_food', false],
    ['кот', 'который', false],
    ['кот', 'Это кот!', true],
    ['γάτα', 'γάτας', false],
    ['قط', 'قطار', false],
    ['कमल', 'कमला', false],
    ['龙', '一条龙在飞', true],
    ['ドラゴン', '赤いドラゴンが', true],
    ['แมว', 'ฉันมีแมวตัวหนึ่ง', true],
    ['龙', 'X龙Y', true],
    ['a.b', 'a.bc', false],
    ['[x]', 'y[x]z', true],
    ['😀', 'a😀b', true],
    ['cafe\u0301', 'un café noir', true],
  ] as const) {
    equal(whole(key, text), is, `${key} in ${text}`)
  }
})

Deno.test('patterns are read by an engine that takes linear time; broken ones match nothing', () => {
  const pattern = (key: string, text: string, more: Partial<LoreEntry> = {}) =>
    reasonOf({ keys: [key], uses_regex: true, ...more }, text)
  equal(pattern('drag(on|ons)\\b', 'Dragons'), 'key')
  equal(pattern('/^dragon$/m', 'a\ndragon\nb'), 'key')
  equal(pattern('/dragon/', 'Dragon'), 'no_key')
  equal(pattern('/dragon/i', 'Dragon'), 'key')
  equal(pattern('Dragon', 'dragon', { is_case_sensitive: true }), 'no_key')
  for (const broken of [
    '(',
    '[',
    '(?=dragon)',
    '(dragon)\\1',
    'a{2000}',
    '*',
    'x{1,999}',
    'dragon|x{301}',
    'dragon'.repeat(200),
  ]) {
    equal(pattern(broken, 'dragondragon'), 'no_key', broken)
  }
  equal(pattern('(a+)+$', `${'a'.repeat(20_000)}!`), 'no_key')
  // Constant and secondary keys mean nothing to patterns.
  equal(pattern('wyrm', 'dragon', { is_constant: true }), 'no_key')
  equal(pattern('dragon', 'dragon', { is_selective: true, secondary_keys: ['x'] }), 'key')
})

Deno.test('the words that a pattern needs are told where that is sure', () => {
  deepEqual(neededWords('\\bDragons?\\b'), ['dragon'])
  deepEqual(neededWords('(red|old) (?:dragon|wyrm)s?'), ['dragon', 'wyrm'])
  deepEqual(neededWords('red (dragon)+|a.*(castle)?ruin'), ['dragon', 'ruin'])
  deepEqual(neededWords('abc{2,}d'), ['abc'])
  deepEqual(neededWords('abc{0,2}defg'), ['defg'])
  deepEqual(neededWords('[]a]wyr\\.m[^x]'), ['wyr.m'])
  deepEqual(neededWords('赤い竜'), ['赤い竜'])
  for (const unsure of [
    '(dragon)?',
    'dragon|',
    'd.r.a',
    'дракон',
    '(?i)dragon',
    '\\Qdragon',
    'dragon)',
    '(dragon',
    '[[:alpha:]]dragon',
  ]) {
    equal(neededWords(unsure), null, unsure)
  }
})

/** A pattern, and a text that it matches but for its anchors. */
interface Example {
  pattern: string
  text: string
}
const leaves: [pattern: string, ...texts: string[]][] = [
  ['ab', 'ab', 'AB'],
  ['abc', 'abc', 'aBc'],
  ['a b', 'a b'],
  ['ask', 'a\u017f\u212a', 'ASK'],
  ['\\.x', '.x'],
  ['\\b', ''],
  ['^', ''],
  ['.', 'x', '龙'],
  ['\\w', 'x'],
  ['[ab]', 'a', 'b'],
  ['[^]b]', 'c'],
  ['[]k]', ']', 'k'],
  ['Éa', 'éa'],
  ['赤い竜', '赤い竜'],
  ['\\x61b', 'ab'],
  ['ab{,2}', 'ab{,2}'],
]
const times = {
  '*': [0, 2],
  '+': [1, 2],
  '?': [0, 1],
  '{2}': [2],
  '{0,1}': [0, 1],
  '{1,}': [1, 3],
  '??': [0],
  '+?': [1],
}
const examples = fc.letrec<{ one: Example; many: Example }>((tie) => ({
  one: fc.oneof(
    { maxDepth: 4 },
    fc.constantFrom(...leaves.flatMap(([pattern, ...texts]) => texts.map((text) => ({ pattern, text })))),
    fc
      .tuple(fc.constantFrom('(', '(?:', '(?i:'), tie('many'))
      .map(([open, { pattern, text }]) => ({ pattern: `${open}${pattern})`, text })),
    fc
      .tuple(tie('many'), fc.constantFrom(...Object.entries(times)), fc.nat(1))
      .map(([{ pattern, text }, [mark, counts], at]) => ({
        pattern: `(?:${pattern})${mark}`,
        text: text.repeat(counts[at % counts.length]!),
      })),
    fc
      .tuple(fc.constantFrom('abc', 'xy'), fc.constantFrom(...Object.entries(times)), fc.nat(1))
      .map(([word, [mark, counts], at]) => ({
        pattern: word + mark,
        text: word.slice(0, -1) + word.at(-1)!.repeat(counts[at % counts.length]!),
      })),
  ),
  many: fc
    .tuple(fc.array(fc.array(tie('one'), { minLength: 1, maxLength: 3 }), { minLength: 1, maxLength: 3 }), fc.nat(2))
    .map(([branches, at]) => ({
      pattern: branches.map((branch) => branch.map(({ pattern }) => pattern).join('')).join('|'),
      text: branches[at % branches.length]!.map(({ text }) => text).join(''),
    })),
})).many

Deno.test('no match is without a word that its pattern needs', () => {
  let told = 0
  fc.assert(
    fc.property(examples, fc.constantFrom('', ' ', 'abc', 'x'), fc.boolean(), (example, beside, isCaseSensitive) => {
      const words = neededWords(example.pattern)
      if (!words) return
      const text = beside + example.text + beside
      if (!RE2JS.compile(example.pattern, isCaseSensitive ? 0 : RE2JS.CASE_INSENSITIVE).test(text)) return
      told += 1
      ok(
        words.some((word) => foldCase(text).includes(word)),
        `${example.pattern} matches ${text} without ${words}`,
      )
    }),
    { numRuns: 4_000 },
  )
  ok(told > 100, `${told} told`)
})

Deno.test('only the newest messages are looked at, as many as the entry or the book says', () => {
  const said = talk('dragon', 'b', 'c', 'd', 'e')
  equal(reasonOf({}, said), 'no_key')
  equal(reasonOf({}, said, { scan_depth: 5 }), 'key')
  equal(reasonOf({ content: '@@scan_depth 5\nText' }, said), 'key')
  equal(reasonOf({}, talk('dragon'), { scan_depth: 0 }), 'no_key')
})

Deno.test('the text of entries calls others where the book is recursive, each once, and it ends', () => {
  const entries = [
    { keys: ['a'], content: 'See b{{hidden_key:secret}}.' },
    { keys: ['b'], content: 'See c and a.' },
    { keys: ['c'], content: 'C.' },
    { keys: ['secret'], content: 'S.' },
  ]
  const reasons = (is_recursive: boolean) =>
    find(bookOf(entries, { is_recursive }), talk('a')).map(({ reason }) => reason)
  deepEqual(reasons(true), ['key', 'recursion', 'recursion', 'recursion'])
  deepEqual(reasons(false), ['key', 'no_key', 'no_key', 'no_key'])
  // Hidden words are nobody's text: said in a message they call, in the prompt they are not.
  equal(find(bookOf(entries), talk('a'))[0]!.text, 'See b.')
  const chain = Array.from({ length: 50 }, (_, index) => ({ keys: [`<${index}>`], content: `<${index + 1}>` }))
  ok(find(bookOf(chain, { is_recursive: true }), talk('<0>')).filter(({ isIn }) => isIn).length <= 6)
})

Deno.test('decorators of V3 are conditions and places, and are taken off', () => {
  const decorated = (
    lines: string,
    said: string | ReturnType<typeof talk> = 'dragon',
    greeting: number | null = null,
  ) => {
    const list = typeof said === 'string' ? talk(said) : said
    return find(bookOf([{ content: `${lines}\nDragons.` }]), list, greeting)[0]!
  }
  equal(decorated('@@depth 3\n@@role user').text, 'Dragons.')
  deepEqual(decorated('@@depth 3\n@@role user').place, { at: 'depth', depth: 3, role: 'user' })
  deepEqual(decorated('@@reverse_depth 1').place, { at: 'start', depth: 1, role: 'system' })
  deepEqual(decorated('@@depth 3\n@@position scenario').place, { at: 'scenario' })
  equal(decorated('@@activate', 'nothing').reason, 'constant')
  equal(decorated('@@dont_activate').reason, 'switched_off')
  equal(decorated('@@dont_activate\n@@activate', 'nothing').reason, 'constant')
  equal(decorated('@@exclude_keys egg, tail', 'dragon egg').reason, 'excluded_key')
  equal(decorated('@@additional_keys egg,tail', 'dragon').reason, 'no_additional_key')
  equal(decorated('@@additional_keys egg,tail\n@@additional_keys gold', 'dragon tail').reason, 'no_additional_key')
  equal(decorated('@@additional_keys egg,tail\n@@additional_keys gold', 'dragon tail gold').reason, 'key')
  equal(decorated('@@activate_only_after 2', talk('Hi', 'dragon')).reason, 'not_yet')
  equal(decorated('@@activate_only_after 2', talk('Hi', 'a', 'Hi', 'dragon')).reason, 'key')
  equal(decorated('@@activate_only_every 2', talk('Hi', 'dragon')).reason, 'not_yet')
  equal(decorated('@@is_greeting 1', 'dragon', 0).reason, 'other_greeting')
  equal(decorated('@@is_greeting 1', 'dragon', 1).reason, 'key')
  const long = talk('dragon', ...Array.from({ length: 9 }, () => 'x'))
  equal(decorated('@@keep_activate_after_match', long).reason, 'key')
  equal(decorated('@@dont_activate_after_match', talk('x', 'x', 'dragon')).reason, 'key')
  equal(decorated('@@dont_activate_after_match', talk('dragon', 'x', 'dragon')).reason, 'already_used')
})

Deno.test('an unknown decorator is ignored, and what stands below it counts instead', () => {
  const placed = (lines: string) => find(bookOf([{ content: `${lines}\nText` }]), talk('dragon'))[0]!
  deepEqual(placed('@@new_thing 1\n@@@newer\n@@@newest\n@@@depth x\n@@@depth 2\n@@@depth 9').place, {
    at: 'depth',
    depth: 2,
    role: 'system',
  })
  deepEqual(placed('@@depth 1\n@@@depth 2').place, { at: 'depth', depth: 1, role: 'system' })
  deepEqual(placed('@@depth 1\n@@depth 2').place, { at: 'depth', depth: 1, role: 'system' })
  deepEqual(placed('@@depth 1\n@@@role user').place, { at: 'depth', depth: 1, role: 'system' })
  equal(placed('@@nothing').text, 'Text')
  equal(placed('@@constructor').text, 'Text')
})

Deno.test('over budget the least worth goes first, and what stays is in the order of insertion', () => {
  const words = 'word '.repeat(40)
  const book = bookOf([
    { id: 'low', priority: 1, insertion_order: 1, content: words },
    { id: 'high', priority: 9, insertion_order: 2, content: words },
    { id: 'early', priority: 5, insertion_order: 3, content: words },
    { id: 'late', priority: 5, insertion_order: 4, content: words },
    { id: 'first to go', priority: 99, insertion_order: 0, content: `@@ignore_on_max_context\n${words}` },
  ])
  const kept = (limit: number, budget: number | null = null) => {
    book.token_budget = budget
    const found = find(book, talk('dragon'))
    return fitLore(found, limit, new Map()).map(({ entry }) => entry.id)
  }
  const one = find(book, talk('dragon'))[0]!.tokens
  deepEqual(kept(9999), ['first to go', 'low', 'high', 'early', 'late'])
  deepEqual(kept(one * 4), ['low', 'high', 'early', 'late'])
  deepEqual(kept(one * 2), ['high', 'late'])
  deepEqual(kept(9999, one), ['high'])
  deepEqual(kept(0), [])
})

Deno.test('no order of entries, keys or budget takes more than allowed or forgets an entry', () => {
  const entries = fc.array(
    fc.record({
      keys: fc.array(fc.constantFrom('a', 'b', '(', 'c+', '龙'), { maxLength: 3 }),
      content: fc.constantFrom('a', '@@depth 2\nb', '@@activate\nlong text '.repeat(5), '', '{{char}} c'),
      priority: fc.option(fc.integer({ min: -2, max: 2 })),
      insertion_order: fc.integer({ min: -2, max: 2 }),
      is_constant: fc.boolean(),
      uses_regex: fc.boolean(),
    }),
    { maxLength: 20 },
  )
  fc.assert(
    fc.property(entries, fc.boolean(), fc.nat(60), (list, is_recursive, limit) => {
      const verdicts = find(bookOf(list, { is_recursive }), talk('a 龙', 'b', 'c'))
      equal(verdicts.length, list.length)
      const kept = fitLore(
        verdicts.filter(({ isIn }) => isIn),
        limit,
        new Map(),
      )
      ok(kept.reduce((sum: number, { tokens }: Verdict) => sum + tokens, 0) <= limit)
      equal(verdicts.filter(({ isIn }) => isIn).length, kept.length)
    }),
  )
})

Deno.test('a hostile book costs no more than a bounded effort, counted and not timed', () => {
  const effort = new Effort()
  const text = new Haystack('ab'.repeat(10_000), effort)
  let searches = 0
  while (text.hasKey(keyOf(`aba${searches}`), { isCaseSensitive: false, matchesWholeWords: false }) !== null)
    searches += 1
  equal(searches, 3000)
  const patterns = Array.from({ length: 2000 }, (_, index) => `(?:\\pL{20}){10}${index}x`)
  const hostile = bookOf(patterns.map((key) => ({ keys: [key], uses_regex: true })))
  equal(find(hostile, talk('ab'.repeat(10_000))).at(-1)!.reason, 'too_much_work')
})
