import { deepEqual, equal, notEqual, ok } from 'node:assert/strict'
import fc from 'fast-check'
import { expandMacros } from '../../functions/_shared/prompt/macros.ts'

const values = { char: 'Mira', user: 'Sam', original: 'the original', seeds: { pick: 'talk', random: 'answer' } }
const expand = (text: string, others = {}) => expandMacros(text, { ...values, ...others }).text

Deno.test('names and the original text are put in, without regard to case', () => {
  equal(expand('{{char}}, {{ Char }}, <BOT>, <char>'), 'Mira, Mira, Mira, Mira')
  equal(expand('{{USER}} and <user>'), 'Sam and Sam')
  equal(expand('{{original}} And be kind.'), 'the original And be kind.')
  equal(expand('[{{original}}]', { original: undefined }), '[]')
})

Deno.test('notes vanish, a hidden key is seen by searches only, reverse reads backwards', () => {
  deepEqual(expandMacros('a{{// not for models }}b{{comment: nor this}}c{{hidden_key:dragon}}d', values), {
    text: 'abcd',
    hidden: 'dragon',
  })
  equal(expand('{{reverse:a😀{{char}}}}'), 'ariM😀a')
})

Deno.test('random is the same for one answer, pick for a conversation, and both are one of the choices', () => {
  const choices = ['red', 'green, and blue', 'x']
  const draw = (name: string, seeds: { pick: string; random: string }) =>
    expand(`{{${name}:red,green\\, and blue, x }}`, { seeds })
  const drawn = (name: string) =>
    Array.from({ length: 60 }, (_, answer) => draw(name, { pick: 'talk', random: String(answer) }))

  ok(drawn('random').every((choice) => choices.includes(choice)))
  deepEqual([...new Set(drawn('random'))].sort(), [...choices].sort())
  equal(draw('random', values.seeds), draw('random', values.seeds))
  equal(new Set(drawn('pick')).size, 1)
  ok(['a, b', 'c'].includes(expand('{{pick::a, b::c}}')))
})

Deno.test('a roll is a number of the die', () => {
  for (const die of ['{{roll:6}}', '{{roll:d6}}', '{{Roll: D6}}']) {
    ok(/^[1-6]$/.test(expand(die)), die)
  }
  equal(expand('{{roll:0}} {{roll:many}}'), '{{roll:0}} {{roll:many}}')
})

Deno.test('two places of one text draw each for itself', () => {
  const text = '{{roll:1000000}} {{roll:1000000}}'
  const [one, two] = expand(text).split(' ')
  notEqual(one, two)
})

Deno.test('what is none of ours stays as it was written', () => {
  for (const text of ['{{unknown}}', '{{unknown:x}}', '{ {char} }', '{{', '}}', '{{char', 'a {{b', '<userx>', '{{}}']) {
    equal(expand(text), text)
  }
  equal(expand('{{trim {{char}} }}'), '{{trim Mira }}')
})

Deno.test('what is put in is never read as a macro', () => {
  equal(expand('Hi {{user}}', { user: '{{original}}' }), 'Hi {{original}}')
  equal(expand('{{{{user}}}}', { user: 'original' }), '{{original}}')
  equal(expand('{{random:{{user}}}}', { user: 'a,b' }), 'a,b')
})

Deno.test('any text comes to an end, in time and length that grow with it', () => {
  const pieces = fc.constantFrom(
    '{{',
    '}}',
    '{',
    '}',
    'char',
    'random:',
    'reverse:',
    ',',
    '\\,',
    '::',
    '<user>',
    'x',
    '😀',
  )
  fc.assert(
    fc.property(fc.array(pieces, { maxLength: 200 }), (parts) => {
      const text = parts.join('')
      const first = expand(text)
      equal(first, expand(text))
      ok(first.length <= text.length * 4 + 100)
    }),
  )
  for (const hostile of [
    '{{'.repeat(200_000),
    '{{reverse:'.repeat(50_000) + '}}'.repeat(50_000),
    '<user>'.repeat(200_000),
  ]) {
    ok(expand(hostile).length <= hostile.length + 100_000)
  }
  ok(expand('{{original}}'.repeat(50_000), { original: 'x'.repeat(10_000) }).length <= 100_000)
})

Deno.test('text without macros is the same text', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), (text) =>
      equal(expand(text.replace(/[{<]/g, '')), text.replace(/[{<]/g, '')),
    ),
  )
})
