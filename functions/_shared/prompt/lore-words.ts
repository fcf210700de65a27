/**
 * Words of which a pattern needs at least one, whatever else it asks for: a text without any is known not to match, at a
 * fraction of what the pattern's engine takes to find out. Null: none can be told. Reads less of the syntax than the engine
 * does and gives up where it is not sure; a word may be told only if no match can be without it, in upper or lower case.
 */
export function neededWords(pattern: string): string[] | null {
  // Quoting, classes by name and number, and groups with flags or names have rules of their own.
  if (/\\[QxpP0-9]|\(\?(?!:)|\[[^\]]*\[/.test(pattern)) return null
  const reader = { pattern, at: 0 }
  const words = alternatives(reader, 0)
  return reader.at === pattern.length ? words : null
}

/** Folds case as engines do that compare letters one by one: `ſ` is an s there, and the Kelvin sign a k. */
export const foldCase = (text: string): string => text.toLowerCase().replaceAll('\u017f', 's')

interface Reader {
  pattern: string
  at: number
}

const fewestLetters = 3
const mostWords = 16
const deepest = 20

/** `a|b` needs a word of a or one of b. */
function alternatives(reader: Reader, depth: number): string[] | null {
  let words: string[] | null = []
  while (true) {
    const branch = sequence(reader, depth)
    words = words && branch && words.length + branch.length <= mostWords ? [...words, ...branch] : null
    if (reader.pattern[reader.at] !== '|') return words
    reader.at += 1
  }
}

/** Everything of `abc` is needed: the words of the part whose shortest is longest say most. */
function sequence(reader: Reader, depth: number): string[] | null {
  let best: string[] | null = null
  let run = ''
  const offer = (words: string[] | null) => {
    if (words && shortest(words) > (best ? shortest(best) : fewestLetters - 1)) best = words
  }
  const endRun = () => {
    offer([run])
    run = ''
  }
  while (reader.at < reader.pattern.length && !'|)'.includes(reader.pattern[reader.at]!)) {
    const part = atom(reader, depth)
    const isOptional = repeat(reader)
    if (typeof part === 'string' && isOptional === null) {
      run += part
      continue
    }
    // Of `ab+` the first b still follows the a, and what comes behind may follow another one.
    if (typeof part === 'string' && isOptional === false) run += part
    endRun()
    if (typeof part !== 'string' && !isOptional) offer(part)
  }
  endRun()
  return best
}

const shortest = (words: string[]) => Math.min(...words.map((word) => word.length))

/** One letter that stands for itself, the words that a group needs, or null: anything. */
function atom(reader: Reader, depth: number): string | string[] | null {
  const { pattern } = reader
  const first = String.fromCodePoint(pattern.codePointAt(reader.at)!)
  reader.at += first.length
  if (first === '(') {
    if (pattern.startsWith('?:', reader.at)) reader.at += 2
    if (depth >= deepest) return give(reader)
    const words = alternatives(reader, depth + 1)
    if (pattern[reader.at] !== ')') return give(reader)
    reader.at += 1
    return words
  }
  if (first === '[') {
    // A bracket right behind the opening one, or behind its ^, stands for itself.
    const [all] = /^\^?\]?(?:\\.|[^\]\\])*\]/su.exec(pattern.slice(reader.at)) ?? []
    if (all === undefined) return give(reader)
    reader.at += all.length
    return null
  }
  if (first === '\\') {
    const escaped = pattern[reader.at]
    if (escaped === undefined) return give(reader)
    reader.at += 1
    return /[^\w\s]/.test(escaped) && escaped < '\u007f' ? escaped : null
  }
  return isSure(first) ? foldCase(first) : null
}

/** Gives up: the pattern is not read to its end. */
function give(reader: Reader): null {
  reader.at = Infinity
  return null
}

/** Reads `*`, `+`, `?` or `{…}`: whether what stands before may be missing; null: none of them. */
function repeat(reader: Reader): boolean | null {
  if (!'*+?{'.includes(reader.pattern[reader.at] ?? ' ')) return null
  const [all, least] = /^(?:[*?]|\+|\{(\d+)(?:,\d*)?\})\??/.exec(reader.pattern.slice(reader.at)) ?? []
  if (all === undefined) return null
  reader.at += all.length
  return least === undefined ? all[0] !== '+' : Number(least) === 0
}

/** A letter of ASCII, or of a script without upper and lower case, that means nothing but itself. */
const isSure = (letter: string): boolean =>
  !/[.^$*+?{}]/.test(letter) &&
  (letter < '\u0080' || (letter.toLowerCase() === letter && letter.toUpperCase() === letter))
