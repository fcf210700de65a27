import { deepEqual } from 'node:assert/strict'
import { paced } from '../../functions/_shared/generation/pacer.ts'

/** Says the texts in the order in which they came, and resolves when there are so many. */
function heard(count: number) {
  const texts: string[] = []
  const { promise, resolve } = Promise.withResolvers<string[]>()
  const hear = (name: string) => (text: string) => {
    texts.push(`${name}: ${text}`)
    if (texts.length === count) resolve(texts)
  }
  return { texts, hear, all: promise }
}

Deno.test('the first piece goes out at once, what follows quickly goes out together', async () => {
  const { texts, hear, all } = heard(2)
  const { push } = paced(hear('one'))

  for (const piece of ['The', ' lights', ' are', ' out.']) push(piece)

  deepEqual(texts, ['one: The'])
  deepEqual(await all, ['one: The', 'one:  lights are out.'])
})

Deno.test('answers that are made at once give their readers text in the same turn of the event loop', async () => {
  const { texts, hear, all } = heard(4)
  let together: string[] = []
  const first = paced((text) => {
    hear('one')(text)
    queueMicrotask(() => {
      together = [...texts]
    })
  })
  const second = paced(hear('two'))
  for (const { push } of [first, second]) push('a')
  for (const { push } of [first, second]) push('b')

  await all

  deepEqual(together, ['one: a', 'two: a', 'one: b', 'two: b'])
})

Deno.test('the end says what is held, once', async () => {
  const { texts, hear } = heard(9)
  const [ended, other] = [paced(hear('ended')), heard(2)]
  const beat = paced(other.hear('other'))
  for (const pace of [ended, beat]) pace.push('a')
  for (const pace of [ended, beat]) pace.push('b')

  ended.flush()
  await other.all

  deepEqual(texts, ['ended: a', 'ended: b'])
})
