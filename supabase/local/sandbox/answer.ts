/** What the sandbox model says: a function of the request alone, so that a test can know the answer beforehand. */

export interface ChatMessage {
  role: string
  content?: string | { type: string; text?: string }[] | null
}

export function textOf(message: ChatMessage | undefined): string {
  if (!message?.content) return ''
  if (typeof message.content === 'string') return message.content
  return message.content.map((part) => part.text ?? '').join('')
}

/** FNV-1a with a final mix, so that its low bits are as good as the others; the same on every machine. */
export function hash(text: string): number {
  let value = 0x811c9dc5
  for (const byte of new TextEncoder().encode(text)) value = Math.imul(value ^ byte, 0x01000193)
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b)
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35)
  return (value ^ (value >>> 16)) >>> 0
}

/** Finds the character's name in the system prompt. */
export function speaker(messages: ChatMessage[]): string {
  const prompt = messages
    .filter((m) => m.role === 'system' || m.role === 'developer')
    .map(textOf)
    .join('\n')
  const patterns = [
    /^\s*(?:character(?:'s)? )?name\s*[:=]\s*["“]?([^\n"”,;(]{1,60})/im,
    /\byou are (?!an? |the )["“]?([\p{L}\p{N}][^\n"”.,;:!?(]{0,59})/iu,
    /\b(?:play|playing|portray|act as|role of) ["“]?([\p{Lu}][^\n"”.,;:!?(]{0,59})/u,
  ]
  for (const pattern of patterns) {
    const name = pattern.exec(prompt)?.[1]?.trim()
    if (name) return name
  }
  return 'The assistant'
}

const gestures = [
  'looks up and smiles',
  'tilts their head',
  'leans a little closer',
  'laughs softly',
  'thinks for a moment',
]
const openings = [
  'I was hoping you would say that.',
  'Now that is worth talking about.',
  'I have been turning that over, too.',
  'Thank you for telling me.',
]
const middles = [
  'It reminds me of an evening when the rain would not stop and nobody wanted to go home.',
  'Some things are easier to say to somebody who listens, and I am listening.',
  'If I have learned anything, it is that small questions have long answers.',
  'There is more to it than it seems, and I like that.',
]
const endings = [
  'What happened next?',
  'And what do you make of it?',
  'Shall we stay with that for a while?',
  'Tell me more, slowly.',
]

/**
 * A few sentences in character. When the last message is the assistant's own (a prefill), the answer goes on from there:
 * prefill and answer together are what would have been said in one go.
 */
export function answerTo(messages: ChatMessage[]): string {
  const prefill = messages.at(-1)?.role === 'assistant' ? textOf(messages.at(-1)) : ''
  const said = textOf(messages.findLast((m) => m.role === 'user'))
    .replace(/\s+/g, ' ')
    .trim()
  const name = speaker(messages)
  const seed = hash(`${name}\n${said}`)
  const pick = (list: string[], shift: number) => list[(seed >>> shift) % list.length]!
  const quote = Array.from(said).slice(0, 80).join('')
  const whole = [
    `*${name} ${pick(gestures, 0)}.*`,
    quote ? `“${quote}”, you say. ${pick(openings, 4)}` : pick(openings, 4),
    pick(middles, 9),
    pick(endings, 14),
  ].join(' ')
  if (!prefill) return whole
  return whole.startsWith(prefill)
    ? whole.slice(prefill.length)
    : `${/\s$/.test(prefill) ? '' : ' '}${pick(endings, 14)}`
}

/** Text that finds the careless consumer: each entry is one delta. */
export const hostileDeltas = [
  'NUL:\u0000 ',
  'lone high:\ud83d ',
  'lone low:\ude00 ',
  'pair split: \ud83d',
  '\ude00 ',
  '👩‍👩‍👧‍👦 e\u0301 ',
  '\u202egnp.exe\u202c ',
  'data: [DONE]\n\n',
  'event: generation.completed\ndata: {}\n\n',
  '<script>alert(1)</script> <img src=x onerror=alert(1)> ',
  "'; drop table public.messages; -- ",
  '{{constructor}} $' + '{process.env.SECRET} ',
  '\u2028\u2029\ufeff\r\n\t ',
  '%s %n $1 \\u0000 \\ ',
  'ﷺ'.repeat(40),
]

/** Words with the space that precedes them: one delta each. */
export function deltasOf(text: string): string[] {
  return text.match(/\s*\S+\s*$|\s*\S+/g) ?? []
}

/** About four characters a token; good enough for prices in tests. */
export function countTokens(text: string): number {
  return Math.ceil(text.length / 4)
}
