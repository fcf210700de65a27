export interface Statement {
  text: string
  /** Line in the file, from 1, of the first character that is no comment or space. */
  line: number
}

/**
 * Splits a SQL file at its top-level semicolons: strings, quoted names, dollar quotes, nested comments and
 * `begin atomic … end` bodies are skipped whole. A statement keeps its leading comments.
 */
export function splitStatements(sql: string): Statement[] {
  const statements: Statement[] = []
  let start = 0
  let first = -1
  let line = 1
  let counted = 0
  let atomic = 0
  const end = (at: number) => {
    if (first >= 0) {
      line += sql.slice(counted, first).split('\n').length - 1
      counted = first
      statements.push({ text: sql.slice(start, at).trim(), line })
    }
    start = at + 1
    first = -1
    atomic = 0
  }
  const token =
    /--[^\n]*|\/\*|[eE]'(?:[^'\\]|\\[\s\S]|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(?:[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)?\$|[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*|;|\s+|[\s\S]/gy
  for (let match = token.exec(sql); match; match = token.exec(sql)) {
    const [word] = match
    if (word.startsWith('--') || /^\s/.test(word)) continue
    if (word === '/*') {
      token.lastIndex = endOfComment(sql, match.index)
      continue
    }
    if (word === ';' && atomic === 0) {
      end(match.index)
      continue
    }
    if (first < 0) first = match.index
    if (word.length > 1 && word.startsWith('$')) {
      const close = sql.indexOf(word, token.lastIndex)
      token.lastIndex = close < 0 ? sql.length : close + word.length
    } else if (/^begin$/i.test(word) && /^\s+atomic\b/i.test(sql.slice(token.lastIndex))) atomic++
    else if (atomic > 0 && /^case$/i.test(word)) atomic++
    else if (atomic > 0 && /^end$/i.test(word)) atomic--
  }
  end(sql.length)
  return statements
}

function endOfComment(sql: string, from: number): number {
  const mark = /\/\*|\*\//g
  mark.lastIndex = from
  let depth = 0
  for (let match = mark.exec(sql); match; match = mark.exec(sql)) {
    depth += match[0] === '/*' ? 1 : -1
    if (depth === 0) return mark.lastIndex
  }
  return sql.length
}
