import type { ChatMessage } from '../llm/route.ts'

/** SHA-256 of a prompt's stable beginning, in hex: while it stays, providers can reuse what they computed for it. */
export async function prefixHash(prefix: ChatMessage[]): Promise<string> {
  const bytes = new TextEncoder().encode(JSON.stringify(prefix.map(({ role, content }) => [role, content])))
  const digest = await crypto.subtle.digest('SHA-256', bytes)
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('')
}
