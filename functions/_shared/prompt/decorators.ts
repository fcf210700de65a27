/** Conditions and places that the V3 card format writes at the beginning of a lore entry's content. */
export interface Decorators {
  isActive?: boolean
  onlyAfter?: number
  onlyEvery?: number
  /** sticky: once found, always there; once: only when it is found for the first time. */
  afterMatch?: 'sticky' | 'once'
  scanDepth?: number
  greeting?: number
  /** One of each group has to occur. */
  additionalKeys: string[][]
  excludeKeys: string[]
  place?: 'before_char' | 'after_char' | 'personality' | 'scenario'
  depth?: number
  reverseDepth?: number
  role?: 'system' | 'user' | 'assistant'
  isFirstToGo?: boolean
}

const positions = new Map<string, Decorators['place']>([
  ['before_desc', 'before_char'],
  ['after_desc', 'after_char'],
  ['personality', 'personality'],
  ['scenario', 'scenario'],
])

/**
 * Takes the decorator lines off. One that is not understood is ignored, and then the `@@@` line below it counts in its
 * stead; of a repeated name the first counts.
 */
export function readDecorators(content: string): { content: string; decorators: Decorators } {
  const decorators: Decorators = { additionalKeys: [], excludeKeys: [] }
  if (!content.startsWith('@@')) return { content, decorators }
  const seen = new Set<string>()
  let rest = content
  let wantsFallback = false
  while (rest.startsWith('@@')) {
    const end = rest.indexOf('\n')
    const line = end < 0 ? rest : rest.slice(0, end)
    rest = end < 0 ? '' : rest.slice(end + 1)
    const [, at, name, value] = /^(@@@?)([a-z_]+)(?:\s+(.*?))?\s*$/.exec(line) ?? []
    if (at === '@@@' && !wantsFallback) continue
    wantsFallback = !name || !(seen.has(name) || understand(decorators, name, value ?? ''))
    if (name && !wantsFallback && name !== 'additional_keys') seen.add(name)
  }
  return { content: rest, decorators }
}

/** False: not understood. */
function understand(decorators: Decorators, name: string, value: string): boolean {
  const number = /^\d{1,6}$/.test(value) ? Number(value) : undefined
  const words = value
    .split(',')
    .map((word) => word.trim())
    .filter(Boolean)
    .slice(0, 64)
  switch (name) {
    case 'activate':
      decorators.isActive = true
      return true
    case 'dont_activate':
      decorators.isActive ??= false
      return true
    case 'keep_activate_after_match':
      decorators.afterMatch ??= 'sticky'
      return true
    case 'dont_activate_after_match':
      decorators.afterMatch ??= 'once'
      return true
    case 'ignore_on_max_context':
      decorators.isFirstToGo = true
      return true
    case 'additional_keys':
      if (words.length > 0 && decorators.additionalKeys.length < 16) decorators.additionalKeys.push(words)
      return words.length > 0
    case 'exclude_keys':
      decorators.excludeKeys = words
      return words.length > 0
    case 'position':
      decorators.place = positions.get(value)
      return positions.has(value)
    case 'role':
      if (value !== 'system' && value !== 'user' && value !== 'assistant') return false
      decorators.role = value
      return true
  }
  if (number === undefined) return false
  switch (name) {
    case 'activate_only_after':
      decorators.onlyAfter = number
      return true
    case 'activate_only_every':
      if (number > 0) decorators.onlyEvery = number
      return number > 0
    case 'scan_depth':
      decorators.scanDepth = number
      return true
    case 'is_greeting':
      decorators.greeting = number
      return true
    case 'depth':
      decorators.depth = number
      return true
    case 'reverse_depth':
      decorators.reverseDepth = number
      return true
  }
  return false
}
