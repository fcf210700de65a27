import { deepStrictEqual, ok } from 'node:assert/strict'
import fc from 'fast-check'
import { decode, encode, encodeBroadcast, type Version } from '../../supabase/local/realtime/codec.ts'
import { BadSubscription, OPERATORS, parseFilters } from '../../supabase/local/realtime/filters.ts'

const bytes = (max = 300) => fc.uint8Array({ maxLength: max })
const version = fc.constantFrom<Version>(1, 2)

Deno.test('no frame makes the codec throw, and none is read that lacks a topic or an event', () => {
  const frame = fc.oneof(
    fc.string(),
    fc.json(),
    bytes().map((b) => b.buffer),
    fc.anything(),
  )
  fc.assert(
    fc.property(frame, version, (data, v) => {
      const read = decode(data, v)
      ok(read === null || (typeof read.topic === 'string' && typeof read.event === 'string'))
    }),
    { numRuns: 2_000 },
  )
})

Deno.test('a text frame reads as it was written, in both versions', () => {
  const message = fc.record({
    joinRef: fc.option(fc.string()),
    ref: fc.option(fc.string()),
    topic: fc.string(),
    event: fc.string(),
    payload: fc.dictionary(fc.string(), fc.jsonValue()),
  })
  fc.assert(
    fc.property(message, version, (written, v) => {
      const same = JSON.parse(JSON.stringify(written))
      deepStrictEqual(decode(encode(written, v), v), same)
    }),
  )
})

Deno.test('a broadcast is a frame of kind 4 with its parts, or text where a part is too long for it', () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 300 }), fc.string({ maxLength: 300 }), bytes(), (topic, event, payload) => {
      const frame = encodeBroadcast(topic, { event, raw: true, bytes: payload }, 2)
      const [t, e] = [topic, event].map((text) => new TextEncoder().encode(text))
      if (t!.length > 255 || e!.length > 255) return deepStrictEqual(frame, null)
      deepStrictEqual([...(frame as Uint8Array)], [4, t!.length, e!.length, 0, 0, ...t!, ...e!, ...payload])
    }),
  )
})

Deno.test('a quoted value of a filter is read as it is, whatever stands in it', () => {
  const value = fc.string()
  const quoted = (text: string) => `"${text.replace(/["\\]/g, '\\$&')}"`
  fc.assert(
    fc.property(fc.array(value, { minLength: 1, maxLength: 5 }), (values) => {
      const text = values.map((item, n) => `c${n}=not.eq.${quoted(item)}`).join(',')
      deepStrictEqual(
        parseFilters(text),
        values.map((item, n) => ({ column: `c${n}`, op: 'eq', value: item, negate: true })),
      )
    }),
  )
})

Deno.test('any other text is read or refused, never a crash', () => {
  const piece = fc.constantFrom(...OPERATORS, 'id', '=', '.', ',', '(', ')', '"', '\\', 'not.', 'a', ' ')
  fc.assert(
    fc.property(
      fc.array(piece, { maxLength: 20 }).map((pieces) => pieces.join('')),
      (text) => {
        try {
          ok(Array.isArray(parseFilters(text)))
        } catch (error) {
          ok(error instanceof BadSubscription)
        }
      },
    ),
    { numRuns: 2_000 },
  )
})
