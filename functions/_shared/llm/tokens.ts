/**
 * Tokens of a text when nobody counted, by script. Vocabularies differ: a route's own figures correct the sum, see
 * `factor` in prompt/budget.ts. Weights are twentieths of a token for one UTF-16 code unit.
 */
export function estimateTokens(text: string): number {
  const weigh = (index: number) => weights[text.charCodeAt(index)]!
  const { length } = text
  let sum = 0
  let index = 0
  // Four at a time: prompts of a hundred thousand tokens are counted for each answer.
  for (; index + 4 <= length; index += 4) sum += weigh(index) + weigh(index + 1) + weigh(index + 2) + weigh(index + 3)
  for (; index < length; index += 1) sum += weigh(index)
  return Math.ceil(sum / 20)
}

/** What a chat format adds to each message, and to the whole. */
export const messageOverhead = 4
export const promptOverhead = 3

/** From the first code unit on. Where vocabularies lie far apart, the dearer one counts. */
const scripts: [from: number, twentieths: number][] = [
  [0x0000, 20],
  [0x0020, 5], // Space and Latin letters: about four make a token.
  [0x0021, 8], // Punctuation and digits come in shorter pieces.
  [0x0041, 5],
  [0x005b, 8],
  [0x0061, 5],
  [0x007b, 8],
  [0x0100, 10], // Latin with marks beyond Western Europe, Greek, Cyrillic
  [0x0530, 14], // Armenian, Hebrew, Arabic
  [0x0900, 18], // Indic scripts, Thai and their neighbours
  [0x1100, 20], // Hangul, and all that follows
  [0x1e00, 10], // Vietnamese, old Greek
  [0x2000, 12], // Typographic punctuation
  [0x2070, 20], // Symbols, Han, Kana, Hangul
  [0xd800, 25], // Half of a pair: emoji take two or three tokens.
  [0xe000, 20],
]

const weights = new Uint8Array(0x10000)
for (const [from, twentieths] of scripts) weights.fill(twentieths, from)
weights.fill(5, 0x09, 0x0e)

/** The longest beginning of a text that is worth no more than `tokens`, ended at a space where one is near. */
export function shorten(text: string, tokens: number): string {
  if (estimateTokens(text) <= tokens) return text
  const mark = ' …'
  let left = tokens * 20 - weights[0x20]! - weights[0x2026]!
  let end = 0
  while (end < text.length && left >= weights[text.charCodeAt(end)]!) {
    left -= weights[text.charCodeAt(end)]!
    end += 1
  }
  const space = text.lastIndexOf(' ', end)
  if (space > end * 0.8) end = space
  // Never half a pair.
  if (isHighSurrogate(text.charCodeAt(end - 1))) end -= 1
  return end > 0 ? text.slice(0, end).trimEnd() + mark : ''
}

const isHighSurrogate = (unit: number) => unit >= 0xd800 && unit <= 0xdbff
