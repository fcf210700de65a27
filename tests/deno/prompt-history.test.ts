import { deepEqual, equal, ok } from 'node:assert/strict'
import fc from 'fast-check'
import { type Branch, cutHistory } from '../../functions/_shared/prompt/history.ts'
import { estimatePrompt } from '../../functions/_shared/llm/route.ts'
import { estimateTokens, shorten } from '../../functions/_shared/llm/tokens.ts'

const branchOf = (costs: number[], more: Partial<Branch> = {}): Branch => ({
  costs,
  isAnswer: costs.map((_, index) => index % 2 === 0),
  isWhole: true,
  previous: null,
  summarised: null,
  ...more,
})

const sum = (costs: number[]) => costs.reduce((total, cost) => total + cost, 0)

Deno.test('a branch that fits is told whole, whatever was told before', () => {
  deepEqual(cutHistory(branchOf([10, 10, 10]), 100), { start: 0, outgrown: null })
  equal(cutHistory(branchOf([10, 10, 10], { previous: 2, summarised: 1 }), 100).start, 0)
})

Deno.test('a branch that does not fit loses so much that it does not happen again at once', () => {
  const costs = Array.from({ length: 30 }, () => 10)
  const { start, outgrown } = cutHistory(branchOf(costs), 200)
  equal(start, 19) // 11 of 20, beginning with what somebody asked
  equal(outgrown, 18)
})

Deno.test('the beginning stays while the rest fits, and after a summary it is what the summary does not tell', () => {
  const costs = Array.from({ length: 30 }, () => 10)
  equal(cutHistory(branchOf(costs, { previous: 15 }), 200).start, 15)
  equal(cutHistory(branchOf(costs, { previous: 5 }), 200).start, 19)
  equal(cutHistory(branchOf(costs, { summarised: 12 }), 200).start, 12)
  equal(cutHistory(branchOf(costs, { summarised: 12, previous: 15 }), 200).start, 15)
  equal(cutHistory(branchOf(costs, { summarised: 15, previous: 12 }), 200).start, 15)
  // What a small model left is too little for a large one.
  equal(cutHistory(branchOf(costs, { previous: 27 }), 200).start, 19)
})

Deno.test('a summary is asked for before the room is full, and not again until it is nearly full again', () => {
  const costs = Array.from({ length: 18 }, () => 10)
  const { start, outgrown } = cutHistory(branchOf(costs), 200)
  deepEqual([start, outgrown], [0, 6])
  const after = cutHistory(branchOf([...costs, 10, 10], { summarised: 7 }), 200)
  deepEqual(after, { start: 0, outgrown: null })
  equal(cutHistory(branchOf([...costs, 10, 10, 10, 10], { summarised: 7 }), 200).start, 7)
})

Deno.test('the history fits whenever the newest message does, which always stays', () => {
  const index = fc.option(fc.nat(60))
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 5, max: 300 }), { minLength: 1, maxLength: 60 }),
      fc.nat(3000),
      fc.boolean(),
      index,
      index,
      (costs, room, isWhole, previous, summarised) => {
        fc.pre(costs.at(-1)! <= room)
        const { start, outgrown } = cutHistory(branchOf(costs, { isWhole, previous, summarised }), room)
        ok(start >= 0 && start < costs.length)
        ok(sum(costs.slice(start)) <= room)
        if (outgrown !== null) ok(outgrown >= (summarised ?? 0) && outgrown < costs.length - 1)
      },
    ),
  )
})

Deno.test('while a conversation grows its beginning seldom moves, and never back', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 5, max: 60 }), { minLength: 200, maxLength: 400 }), (costs) => {
      const room = 1000
      let previous: number | null = null
      let moves = 0
      let dropped = 0
      for (let length = 1; length <= costs.length; length += 2) {
        const { start } = cutHistory(branchOf(costs.slice(0, length), { previous }), room)
        ok(start >= (previous ?? 0))
        if (start !== (previous ?? 0)) moves += 1
        previous = start
        dropped = sum(costs.slice(0, start))
      }
      // Each move makes room for about a third, less the messages that stand on its edge.
      ok(moves <= dropped / (room * 0.3 - 60) + 1, `${moves} moves for ${dropped} tokens`)
    }),
    { numRuns: 50 },
  )
})

Deno.test('tokens are estimated by script, and of two texts together there are no more than of both', () => {
  equal(estimateTokens('x'.repeat(40)), 10)
  equal(estimateTokens('ж'.repeat(40)), 20)
  equal(estimateTokens('漢'.repeat(40)), 40)
  equal(estimateTokens('😀'), 3)
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), fc.string({ unit: 'grapheme' }), (a, b) => {
      ok(estimateTokens(a + b) <= estimateTokens(a) + estimateTokens(b))
      ok(estimatePrompt([{ content: a }]) > estimateTokens(a))
    }),
  )
})

Deno.test('a shortened text is a beginning of it, fits, and ends with no half of a pair', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', maxLength: 300 }), fc.nat(100), (text, tokens) => {
      const short = shorten(text, tokens)
      ok(estimateTokens(short) <= tokens)
      ok(text.startsWith(short.replace(/ …$/, '')))
      ok(short.isWellFormed())
      if (estimateTokens(text) <= tokens) equal(short, text)
    }),
  )
})
