import { deepEqual, equal, notEqual, ok, throws } from 'node:assert/strict'
import fc from 'fast-check'
import { estimatePrompt, type Route } from '../../functions/_shared/llm/route.ts'
import { type Budget, budgetOf, smallerThan } from '../../functions/_shared/prompt/budget.ts'
import { composePrompt } from '../../functions/_shared/prompt/compose.ts'
import type { BranchMessage, LoreEntry, PromptMaterial } from '../../functions/_shared/prompt/material.ts'
import { prefixHash } from '../../functions/_shared/prompt/prefix.ts'

const budgetFor = (prompt: number, factor = 1): Budget => ({ prompt, window: 2 * prompt, answer: prompt, factor })
const roomy = budgetFor(100_000)

const material: PromptMaterial = {
  character: { name: 'Mira', personality: 'Kind to {{user}}.', scenario: 'A boat.', backstory: ' ', unknown: 'x' },
  user: { name: 'Sam' },
  messages: [
    { id: '1', role: 'user', content: 'Hi {{char}}', name: 'Sam' },
    { id: '2', role: 'assistant', content: '' },
  ],
  is_whole: true,
  conversation_id: 'c',
  message_id: 'm',
}

const said = (count: number, text = 'word '.repeat(8)): BranchMessage[] =>
  Array.from({ length: count }, (_, index) => ({
    id: String(index),
    role: index % 2 === 0 ? 'assistant' : 'user',
    content: `${index} ${text}`,
    name: index % 2 === 0 ? null : 'Sam',
    author_id: index % 2 === 0 ? null : 'sam',
  }))

const entry = (values: Partial<LoreEntry>): LoreEntry => ({
  id: 'e',
  position: 0,
  keys: [],
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
  content: 'Lore.',
  ...values,
})

const withLore = (entries: Partial<LoreEntry>[], more: Partial<PromptMaterial> = {}): PromptMaterial => ({
  ...material,
  ...more,
  lorebooks: [
    {
      id: 'b',
      source: 'character',
      scan_depth: null,
      token_budget: null,
      is_recursive: false,
      entries: entries.map((values, position) => entry({ id: `e${position}`, position, ...values })),
    },
  ],
})

const compose = (from: PromptMaterial, budget = roomy, partial = '') => composePrompt(from, budget, partial)
const contents = (from: PromptMaterial, budget = roomy) => compose(from, budget).messages.map(({ content }) => content)

Deno.test('a prompt has the given sections in a fixed order, with names put in', () => {
  const [system, ...rest] = compose(material).messages
  const at = (text: string) => system!.content.indexOf(text)
  ok(
    at('You are Mira.') === 0 &&
      at('Kind to Sam.') > 0 &&
      at('Kind to Sam.') < at('A boat.') &&
      at('A boat.') < at('# Names'),
  )
  equal(at('# Backstory'), -1)
  equal(at('{{'), -1)
  // What people wrote is theirs, empty messages are refused by providers.
  deepEqual(rest, [{ role: 'user', content: 'Hi {{char}}' }])
})

Deno.test('everything that a character is made of has its place, and what is for people has none', () => {
  const system = contents({
    ...material,
    character: {
      name: 'Miranda Vale',
      nickname: 'Mira',
      description: 'A pilot.',
      age: 30,
      gender: 'woman',
      occupation: 'pilot',
      hobbies: ['chess', 'rain'],
      language: 'English',
      voice: 'low',
      appearance: { eye_colour: 'grey', hair_style: 'short', custom_traits: ['a scar'] },
      creator_notes: 'NOT FOR MODELS',
      system_instruction: '{{original}} Never lie to {{user}}.',
      personality: 'Dry.',
      scenario: 'A boat.',
      backstory: 'Born at sea.',
      uses_generated_behaviour: true,
      behaviour_preferences: { humour: 'dry' },
      custom_descriptions: { Ship: 'An old freighter of {{char}}.' },
      example_dialogue: '<START>\n{{user}}: Hi\n{{char}}: Aye.\n<start>\n{{char}}: No.',
    },
  })[0]!
  const order = [
    'You are Mira. Answer Sam as Mira would, and stay in character. Never lie to Sam.',
    '# About Mira\nA pilot.',
    'Age: 30\nGender: woman\nOccupation: pilot\nHobbies: chess, rain\nLanguage: English\nVoice: low',
    'Eyes: grey\nHair: short\nTraits: a scar',
    '# Personality\nDry.',
    'of their own accord',
    'humour: dry',
    'Ship: An old freighter of Mira.',
    '# Backstory\nBorn at sea.',
    '# Scenario\nA boat.',
    'Sam: Hi\nMira: Aye.\n---\nMira: No.',
    'You are Mira; you talk to Sam.',
  ].map((text) => system.indexOf(text))
  ok(
    order.every((at) => at >= 0),
    String(order),
  )
  deepEqual(
    order,
    [...order].sort((a, b) => a - b),
  )
  equal(system.includes('NOT FOR MODELS'), false)
})

Deno.test('who speaks is said where several people do, also two of one name', () => {
  const messages: BranchMessage[] = [
    { role: 'user', content: 'Hi', name: 'Sam', author_id: 'a' },
    { role: 'user', content: 'Me too', name: 'Sam', author_id: 'b' },
  ]
  deepEqual(contents({ ...material, messages }).slice(1), ['Sam: Hi', 'Sam: Me too'])
  deepEqual(contents({ ...material, messages: messages.slice(1) }).slice(1), ['Me too'])
  const shared = contents({ ...material, messages: messages.slice(1), others: ['Ann'] })
  equal(shared[1], 'Sam: Me too')
  ok(shared[0]!.includes('you talk to Sam, and to Ann.'))
})

Deno.test('a handed-over answer goes on from what is written', () => {
  deepEqual(compose(material, roomy, 'Once').messages.at(-1), { role: 'assistant', content: 'Once' })
})

Deno.test('a character deleted meanwhile is no crash', () => {
  ok(contents({ character: null, user: null, messages: [] })[0]!.includes('the assistant'))
})

Deno.test('the greeting is the card’s text, other answers are not', () => {
  const messages: BranchMessage[] = [
    { role: 'assistant', content: 'Hello, {{user}}.', is_greeting: true },
    { role: 'assistant', content: 'I say {{user}}.' },
  ]
  deepEqual(contents({ ...material, messages }).slice(1), ['Hello, Sam.', 'I say {{user}}.'])
})

Deno.test('instructions after the history, the depth prompt, lore and memories stand where they say', () => {
  const talk = said(6, '').map((message, index) => (index === 5 ? { ...message, content: '5 dragon' } : message))
  const list = compose({
    ...withLore(
      [
        { is_constant: true, content: 'BEFORE', insertion_order: 2 },
        { is_constant: true, content: 'FIRST', insertion_order: 1 },
        { is_constant: true, content: 'AFTER', placement: 'after_char' },
        { keys: ['dragon'], content: 'FOUND' },
        { keys: ['dragon'], content: 'DEEP', placement: 'at_depth', depth: 3, role: 'user' },
        { keys: ['dragon'], content: '@@reverse_depth 1\nEARLY' },
        { is_constant: true, content: '@@depth 0\nLAST' },
        { keys: ['nothing'], content: 'ABSENT' },
      ],
      { messages: talk, memories: [{ content: 'Sam likes tea.' }] },
    ),
    character: {
      ...material.character,
      description: 'ABOUT',
      post_history_instructions: '{{original}}Be brief.',
      depth_prompt: { prompt: 'Depth of {{char}}', depth: 2, role: 'system' },
    },
  }).messages
  deepEqual(
    list.slice(1).map(({ role, content }) => `${role}: ${content.trim()}`),
    [
      'assistant: 0',
      'system: EARLY',
      'user: 1',
      'assistant: 2',
      'user: DEEP',
      'user: 3',
      'system: Depth of Mira',
      'assistant: 4',
      'system: # What Mira remembers\n- Sam likes tea.\n\nFOUND',
      'user: 5 dragon',
      'system: LAST',
      'system: Be brief.',
    ],
  )
  const at = ['FIRST', 'BEFORE', 'ABOUT', 'AFTER'].map((text) => list[0]!.content.indexOf(text))
  ok(at[0]! > 0)
  deepEqual(
    at,
    [...at].sort((a, b) => a - b),
  )
})

Deno.test('examples go first, then the oldest messages, and examples do not come back', () => {
  const from: PromptMaterial = {
    ...material,
    character: { name: 'Mira', example_dialogue: `EXAMPLE ${'word '.repeat(200)}` },
  }
  const told = (count: number, history_from: string | null = null) => {
    const { messages, trace } = compose({ ...from, messages: said(count), history_from }, budgetFor(1000))
    const outcome = trace.sections.find(({ name }) => name === 'example_dialogue')!
    return { isShown: messages[0]!.content.includes('EXAMPLE'), outcome, ...trace.history }
  }
  equal(told(10).isShown, true)
  deepEqual([told(50).isShown, told(50).left_out], [false, 0])
  equal(told(50).outcome.reason, 'history_needs_room')
  ok(told(90).left_out > 0)
  equal(told(90).isShown, false)
})

Deno.test('a summary tells what the history does not, and nothing while everything fits', () => {
  const summary = { message_id: '40', content: 'They met.' }
  const short = compose({ ...material, messages: said(42), summary }, budgetFor(5000))
  equal(short.messages[0]!.content.includes('They met.'), false)
  equal(short.trace.summary!.is_used, false)
  const long = compose({ ...material, messages: said(120), summary }, budgetFor(1800))
  ok(long.messages[0]!.content.includes('# The story so far\nThey met.'))
  equal(long.trace.history.from, '41')
  equal(long.trace.summary!.is_used, true)
})

Deno.test('when even the character is too large, the least important parts go and the instruction is cut last', () => {
  const huge = 'word '.repeat(4000)
  const { messages, trace } = compose(
    {
      ...material,
      character: {
        name: 'Mira',
        system_instruction: `FIRST ${huge}`,
        description: huge,
        personality: huge,
        backstory: huge,
        scenario: huge,
        post_history_instructions: huge,
        example_dialogue: huge,
        depth_prompt: { prompt: huge, depth: 1, role: 'system' },
      },
    },
    budgetFor(2000),
  )
  const outcomes = Object.fromEntries(trace.sections.map(({ name, outcome }) => [name, outcome]))
  deepEqual(outcomes, {
    system_instruction: 'shortened',
    description: 'left_out',
    personality: 'left_out',
    backstory: 'left_out',
    scenario: 'left_out',
    example_dialogue: 'left_out',
    names: 'in',
    depth_prompt: 'shortened',
    post_history_instructions: 'shortened',
  })
  ok(messages[0]!.content.startsWith('FIRST word'))
  deepEqual(
    messages.filter(({ role }) => role === 'user'),
    [{ role: 'user', content: 'Hi {{char}}' }],
  )
  ok(estimatePrompt(messages) <= 2000)
})

Deno.test('a small model gets the beginning of the instruction, and every part together leaves room for what was said', () => {
  const huge = 'word '.repeat(4000)
  const character = {
    name: 'Mira',
    system_instruction: `FIRST ${huge}`,
    post_history_instructions: huge,
    depth_prompt: { prompt: huge, depth: 1, role: 'system' },
  }
  const entries = Array.from({ length: 60 }, () => ({ is_constant: true, content: `@@depth 1\n${'word '.repeat(20)}` }))
  const from = { ...withLore(entries, { memories: Array(60).fill({ content: 'word '.repeat(10) }) }), character }
  for (const size of [60, 100, 300, 1000, 3000]) {
    const messages = [...said(40), { role: 'user' as const, content: 'word '.repeat(size / 8) }]
    const composed = compose({ ...from, messages }, budgetFor(size))
    ok(composed.estimated <= size, `${composed.estimated} of ${size}`)
    ok(composed.messages[0]!.content.startsWith('FIRST'), composed.messages[0]!.content)
  }
})

Deno.test('the history begins at the same message whether lore is found or not', () => {
  const entries = Array.from({ length: 12 }, () => ({ keys: ['dragon'], content: 'word '.repeat(20) }))
  for (let count = 20; count < 60; count += 1) {
    const from = (last: string) => {
      const messages = [...said(count), { id: 'last', role: 'user' as const, content: last }]
      return compose(withLore(entries, { messages }), budgetFor(700)).trace.history.from
    }
    equal(from('dragon'), from('nobody'))
  }
})

Deno.test('a newest message that does not fit is no prompt at all', () => {
  const messages: BranchMessage[] = [{ role: 'user', content: 'word '.repeat(2000) }]
  throws(() => compose({ ...material, messages }, budgetFor(1000)), { code: 'context_too_long' })
})

Deno.test('the room of a route is its window less the answer, by what its tokens have turned out to be', () => {
  const route = { context_window: 8000, max_output: 4000 } as Route
  equal(budgetOf(route, { max_tokens: 1000 }).prompt, 7000)
  equal(budgetOf({ ...route, token_factor: 1.4 }, { max_tokens: 1000 }).prompt, 5000)
  equal(budgetOf({ ...route, token_factor: 100 }, { max_tokens: 1000 }).prompt, 3500)
  equal(budgetOf(route, { max_tokens: 32_000 }).prompt, 4000)
  equal(budgetOf(route, {}).prompt, 8000 - 1024)
  equal(smallerThan(budgetOf(route, { max_tokens: 1000 }), 2000).prompt, 1200)
  equal(smallerThan(budgetOf(route, { max_tokens: 1000 }), 9000).prompt, 4200)
  ok(compose(material, budgetFor(1000, 2)).tokens >= compose(material, budgetFor(1000)).tokens * 2 - 1)
})

const text = fc.oneof(
  fc.lorem({ maxCount: 30 }),
  fc.string({ unit: 'grapheme', maxLength: 60 }),
  fc.constantFrom(
    '',
    '{{user}} {{random:a,b}}',
    '漢字'.repeat(100),
    'word '.repeat(500),
    '{{original}}',
    '<START>\nx\n<START>\ny',
  ),
)

const anyMaterial: fc.Arbitrary<PromptMaterial> = fc.record({
  character: fc.option(
    fc.record(
      {
        name: text,
        nickname: fc.oneof(text, fc.constant(7), fc.constant(null)),
        description: text,
        personality: text,
        scenario: text,
        backstory: text,
        system_instruction: text,
        example_dialogue: text,
        post_history_instructions: text,
        hobbies: fc.oneof(fc.array(text, { maxLength: 3 }), fc.constant('none')),
        appearance: fc.oneof(fc.constant(null), fc.dictionary(fc.constantFrom('heritage', 'x'), text)),
        behaviour_preferences: fc.oneof(fc.constant([]), fc.dictionary(text, text, { maxKeys: 3 })),
        depth_prompt: fc.oneof(
          fc.constant('broken'),
          fc.record({ prompt: text, depth: fc.integer({ min: -2, max: 9 }), role: fc.constantFrom('user', 'x') }),
        ),
      },
      { requiredKeys: [] },
    ),
  ),
  user: fc.option(fc.record({ name: text })),
  others: fc.array(text, { maxLength: 2 }),
  messages: fc.array(text, { maxLength: 25 }).map((texts) =>
    texts.map((content, index) => ({
      id: String(index),
      role: index % 2 === 0 ? ('user' as const) : ('assistant' as const),
      content,
      name: 'Sam',
    })),
  ),
  is_whole: fc.boolean(),
  history_from: fc.option(fc.nat(25).map(String)),
  summary: fc.option(fc.record({ message_id: fc.nat(25).map(String), content: text })),
  memories: fc.array(fc.record({ content: text }), { maxLength: 3 }),
  lorebooks: fc.array(
    fc.record({
      id: fc.constant('b'),
      source: fc.constantFrom('character' as const, 'conversation' as const),
      scan_depth: fc.option(fc.nat(9)),
      token_budget: fc.option(fc.nat(500)),
      is_recursive: fc.boolean(),
      entries: fc.array(
        fc
          .record({
            keys: fc.array(fc.constantFrom('a', 'e', 'or', '漢', '('), { maxLength: 2 }),
            is_constant: fc.boolean(),
            uses_regex: fc.boolean(),
            placement: fc.constantFrom('before_char' as const, 'after_char' as const, 'at_depth' as const),
            depth: fc.option(fc.nat(30)),
            priority: fc.option(fc.integer()),
            content: fc.oneof(
              text,
              text.map((words) => `@@depth 1\n@@role assistant\n${words}`),
            ),
          })
          .map(entry),
        { maxLength: 8 },
      ),
    }),
    { maxLength: 2 },
  ),
})

Deno.test('whatever the material, a prompt stays within its budget and ends with the newest messages, whole', () => {
  fc.assert(
    fc.property(anyMaterial, fc.integer({ min: 60, max: 4000 }), text, (from, size, partial) => {
      const budget = budgetFor(size)
      let composed: ReturnType<typeof compose>
      try {
        composed = compose(from, budget, partial)
      } catch (error) {
        equal((error as { code?: string }).code, 'context_too_long')
        return
      }
      const { messages, estimated, trace } = composed
      equal(estimated, estimatePrompt(messages))
      ok(estimated <= size, `${estimated} of ${size}`)
      ok(messages.every(({ content }) => content !== ''))
      deepEqual(compose(from, budget, partial), composed)
      const newest = from.messages.filter(({ content }) => content !== '').slice(-trace.history.messages || 9999)
      const own = messages.filter(
        ({ role, content }) => role !== 'system' && newest.some((m) => content.endsWith(m.content)),
      )
      ok(own.length >= newest.length)
      if (newest.length > 0) ok(messages.some(({ content }) => content.endsWith(newest.at(-1)!.content)))
    }),
    { numRuns: 300 },
  )
})

Deno.test('the prefix is the same to the byte while only the tail changes, and its hash says so', async () => {
  const book = withLore([
    { is_constant: true, content: 'ALWAYS' },
    ...Array.from({ length: 20 }, (_, index) => ({
      keys: [`key${index}`],
      content: `FOUND ${index} ${'word '.repeat(20)}`,
    })),
  ])
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(25), { minLength: 120, maxLength: 120 }), async (keys) => {
      let history_from: string | null = null
      const hashes: string[] = []
      let before: ReturnType<typeof compose> | null = null
      for (let count = 2; count <= keys.length; count += 2) {
        const messages = said(count, 'word '.repeat(12)).map((message, index) => ({
          ...message,
          content: `${message.content} key${keys[index]}`,
        }))
        const composed = compose({ ...book, messages, history_from, message_id: String(count) }, budgetFor(1500))
        hashes.push(await prefixHash(composed.prefix))
        if (before && hashes.at(-1) === hashes.at(-2)) {
          deepEqual(composed.prefix, before.prefix)
          // All of the history that both tell is at the same place: what moves stands behind it.
          const same = before.messages.findIndex(
            (message, index) => message.content !== composed.messages[index]?.content,
          )
          ok(same < 0 || same >= before.messages.length - 2, `${same} of ${before.messages.length}`)
        }
        before = composed
        history_from = composed.trace.history.from
      }
      // 120 messages of about 20 tokens, in a room of about 1,000: it moves a few times and not 60.
      ok(new Set(hashes).size <= 6, String(new Set(hashes).size))
    }),
    { numRuns: 20 },
  )
})

Deno.test('another character, summary or beginning is another prefix', async () => {
  const hash = (from: PromptMaterial, budget = roomy) => prefixHash(compose(from, budget).prefix)
  const first = await hash(material)
  equal(first, await hash({ ...material, messages: [...material.messages, ...said(1)] }))
  notEqual(first, await hash({ ...material, character: { name: 'Ada' } }))
  notEqual(
    await hash({ ...material, messages: said(60) }),
    await hash({ ...material, messages: said(60) }, budgetFor(900)),
  )
})

Deno.test('the trace accounts for every part, without its text', () => {
  const from = withLore(
    [
      { is_constant: true, content: 'SECRET lore' },
      { keys: ['wyrm', 'hi'], content: 'SECRET too' },
      { keys: ['nothing'], content: 'SECRET three' },
      { is_enabled: false, content: 'SECRET four' },
    ],
    { character_version: 3 },
  )
  const { trace, tokens, messages } = compose({ ...from, character: { ...from.character, personality: 'SECRET' } })
  equal(JSON.stringify(trace).includes('SECRET'), false)
  deepEqual(
    trace.sections.map(({ name, source, outcome, reason, entry_id, key }) => [
      name,
      source,
      outcome,
      reason,
      entry_id,
      key,
    ]),
    [
      ['instruction', 'parlor', 'in', undefined, undefined, undefined],
      ['lore', 'lore', 'in', 'constant', 'e0', undefined],
      ['personality', 'character', 'in', undefined, undefined, undefined],
      ['scenario', 'character', 'in', undefined, undefined, undefined],
      ['names', 'parlor', 'in', undefined, undefined, undefined],
      ['lore', 'lore', 'in', 'key', 'e1', 1],
    ],
  )
  deepEqual(trace.left_out_lore, { character: { no_key: [2], disabled: [3] } })
  deepEqual(trace.history, { from: '1', to: '1', messages: 1, left_out: 0, chars: 11, tokens: 8 })
  deepEqual([trace.tokens, trace.character_version], [tokens, 3])
  equal(tokens, estimatePrompt(messages))
  ok(trace.sections.every(({ chars, tokens }) => chars > 0 && tokens > 0))
})
