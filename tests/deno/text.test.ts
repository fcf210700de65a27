import { equal } from 'node:assert/strict'
import { safeText, textStream } from '../../functions/_shared/text.ts'

const stream = (deltas: string[]) => {
  const text = textStream()
  return [...deltas.map((delta) => text.push(delta)), text.end()].join('')
}

Deno.test('text for Postgres holds no NUL and no half of a pair', () => {
  equal(safeText('a\u0000b\ud83dc\ude00d😀'), 'a\ufffdb\ufffdc\ufffdd😀')
})

Deno.test('a pair that a provider cut between two deltas becomes one character again', () => {
  equal(stream(['a\ud83d', '\ude00b']), 'a😀b')
  equal(stream(['\ud83d', '', '\ude00']), '😀')
})

Deno.test('a half that stays alone becomes U+FFFD, also at the very end', () => {
  equal(stream(['a\ud83d', 'b']), 'a\ufffdb')
  equal(stream(['\ude00', 'a\ud83d']), '\ufffda\ufffd')
})

Deno.test('however a text is cut, its deltas give the same text', () => {
  const whole = 'x😀\u0000é👩‍👩‍👧\ud83d!'
  for (let cut = 0; cut <= whole.length; cut += 1) {
    equal(stream([whole.slice(0, cut), whole.slice(cut)]), safeText(whole))
  }
})
