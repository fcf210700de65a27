/** What macros of card text stand for. Card text comes from strangers: expanding it takes time linear in its length. */
export interface MacroValues {
  char: string
  user: string
  /** What would stand here had the card's field been empty. */
  original?: string
  /** Same seed, same choice: `pick` keeps it for a conversation, `random` and `roll` for one answer. */
  seeds: { pick: string; random: string }
}

export interface Expanded {
  text: string
  /** Words of `hidden_key`: they stand in no prompt, yet a recursive search of lore sees them. */
  hidden: string
}

/** A piece of a macro's inside: as the card has it, or put in, and then never read as part of a macro. */
interface Part {
  text: string
  isGiven: boolean
}

const deepest = 16
/** Most that macros may add to one text; what comes after expands to nothing. */
const mostAdded = 100_000

/**
 * Expands `{{char}}`, `{{user}}`, `<BOT>`, `<USER>`, `{{original}}`, `{{random:a,b}}`, `{{pick:a,b}}`, `{{roll:d6}}`,
 * `{{reverse:x}}`, `{{hidden_key:x}}`, `{{comment:x}}` and `{{// x}}`, without regard to case and nested. What is put in is
 * not looked at again; unknown macros stay as they are.
 */
export function expandMacros(text: string, values: MacroValues): Expanded {
  if (!text.includes('{{') && !text.includes('<')) return { text, hidden: '' }
  const stack: Part[][] = [[]]
  const hidden: string[] = []
  let added = 0
  let count = 0
  const put = (given: string) => {
    added += given.length
    if (added <= mostAdded) stack.at(-1)!.push({ text: given, isGiven: true })
  }
  let from = 0
  const keep = (to: number) => {
    if (to > from) stack.at(-1)!.push({ text: text.slice(from, to), isGiven: false })
  }

  for (const { 0: found, index } of text.matchAll(/\{\{|\}\}|<(?:bot|char|user)>/gi)) {
    if (found === '{{' ? stack.length > deepest : found === '}}' && stack.length === 1) continue
    keep(index)
    from = index + found.length
    if (found === '{{') {
      stack.push([])
    } else if (found === '}}') {
      const inside = stack.pop()!
      count += 1
      const value = evaluate(inside, values, count)
      if (value) put(value.text)
      else stack.push(stack.pop()!.concat(literal('{{'), inside, literal('}}')))
      if (value?.hidden) hidden.push(value.hidden)
    } else {
      put(found.toLowerCase() === '<user>' ? values.user : values.char)
    }
  }
  keep(text.length)
  const whole = stack.flatMap((parts, depth) => (depth > 0 ? [literal('{{'), ...parts] : parts))
  return { text: join(whole), hidden: hidden.join('\n') }
}

const literal = (text: string): Part => ({ text, isGiven: false })
const join = (parts: Part[]) => parts.map(({ text }) => text).join('')

/** The value of one macro; null when it is none. */
function evaluate(inside: Part[], values: MacroValues, count: number): { text: string; hidden?: string } | null {
  const [head] = inside
  if (!head || head.isGiven) return null
  const comment = /^\s*\/\//.exec(head.text)
  if (comment) return { text: '' }
  const [all, word] = /^\s*([a-z_]+)\s*(?::{1,2}|(?=$))/i.exec(head.text) ?? []
  if (all === undefined) return null
  const name = word!.toLowerCase()
  const takesValue = all.endsWith(':')
  const rest = [{ ...head, text: head.text.slice(all.length) }, ...inside.slice(1)]
  const seeded = (seed: string) => hash(`${seed}\n${count}\n${join(inside)}`)

  if (!takesValue) {
    if (inside.length > 1) return null
    if (name === 'char' || name === 'bot') return { text: values.char }
    if (name === 'user') return { text: values.user }
    if (name === 'original') return { text: values.original ?? '' }
    return null
  }
  switch (name) {
    case 'random':
    case 'pick': {
      const choices = list(rest)
      const seed = name === 'pick' ? values.seeds.pick : values.seeds.random
      return { text: choices[seeded(seed) % choices.length]! }
    }
    case 'roll': {
      const [, sides] = /^\s*d?(\d{1,9})\s*$/i.exec(join(rest)) ?? []
      if (!Number(sides)) return null
      return { text: String((seeded(values.seeds.random) % Number(sides)) + 1) }
    }
    case 'reverse':
      return { text: Array.from(join(rest)).reverse().join('') }
    case 'hidden_key':
      return { text: '', hidden: join(rest) }
    case 'comment':
      return { text: '' }
    default:
      return null
  }
}

/** Splits at commas (or `::`, where there are some) that the card wrote itself; `\,` is a comma. */
function list(parts: Part[]): string[] {
  const separator = parts.some(({ text, isGiven }) => !isGiven && text.includes('::')) ? '::' : ','
  const items = ['']
  for (const { text, isGiven } of parts) {
    if (isGiven) {
      items.push(items.pop()! + text)
      continue
    }
    const [first, ...others] = text.replaceAll('\\,', escapedComma).split(separator)
    items.push(items.pop()! + first!, ...others)
  }
  return items.map((item) => item.replaceAll(escapedComma, ',').trim())
}

/** Stands for `\,` while a list is split; no text holds this noncharacter by accident. */
const escapedComma = '\ufdd0'

/** FNV-1a with a final mix, so that its low bits are as good as the others. */
export function hash(text: string): number {
  let value = 0x811c9dc5
  for (let index = 0; index < text.length; index += 1) value = Math.imul(value ^ text.charCodeAt(index), 0x01000193)
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b)
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35)
  return (value ^ (value >>> 16)) >>> 0
}
