/**
 * What SQL hands over for a prompt, already authorised and ordered. Texts of characters and lore were written by
 * strangers: every part may be missing, empty or odd, and none may keep an answer from being made.
 */
export interface PromptMaterial {
  /** The pinned version's snapshot; null when the character was deleted while its answer waited. */
  character: Record<string, unknown> | null
  /** Number of that version. */
  character_version?: number | null
  /** Whom the character talks to: the owner of the conversation. */
  user: { name: string } | null
  /** The others who take part. */
  others?: string[]
  messages: BranchMessage[]
  /** Whether `messages` begins with the first message of the conversation. */
  is_whole?: boolean
  /** Where the history of the answer before began. */
  history_from?: string | null
  summary?: Summary | null
  lorebooks?: Lorebook[]
  /** A place for what the character remembers. */
  memories?: { content: string }[]
  conversation_id?: string
  /** The message that is to be written. */
  message_id?: string
}

/** A message of the branch, oldest first. */
export interface BranchMessage {
  id?: string
  role: 'user' | 'assistant'
  content: string
  name?: string | null
  author_id?: string | null
  /** Its text is the card's, and may have macros. */
  is_greeting?: boolean
}

/** Tells the branch up to and including a message. */
export interface Summary {
  message_id: string
  content: string
}

export interface Lorebook {
  id: string
  source: 'character' | 'conversation'
  scan_depth: number | null
  token_budget: number | null
  is_recursive: boolean
  entries: LoreEntry[]
}

export interface LoreEntry {
  id: string
  position: number
  keys: string[]
  secondary_keys: string[]
  is_selective: boolean
  is_constant: boolean
  is_enabled: boolean
  is_case_sensitive: boolean
  matches_whole_words: boolean | null
  uses_regex: boolean
  insertion_order: number
  priority: number | null
  placement: 'before_char' | 'after_char' | 'at_depth'
  depth: number | null
  role: 'system' | 'user' | 'assistant' | null
  /** Null where it is switched off, or the book has more text than is read. */
  content: string | null
}

/** A text of the snapshot; empty when it is none. */
export function textOf(record: Record<string, unknown> | null, key: string): string {
  const value = record?.[key]
  return typeof value === 'string' ? value.trim() : typeof value === 'number' ? String(value) : ''
}

/** A name in a prompt is one short line. */
export const nameOf = (value: unknown): string =>
  typeof value === 'string' ? value.replace(/\s+/g, ' ').trim().slice(0, 120) : ''
