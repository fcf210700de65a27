import { isPattern } from '../prompt/lore-match.ts'

/**
 * Whether a key can be kept and matched as a pattern: within what the column takes, as private.is_lore_key_list in
 * sql/55_lorebooks has it, and understood by the engine of the prompt.
 */
export function understands(pattern: string): boolean {
  const escaped = pattern.replaceAll('\\\\', '')
  if ([...pattern].length > 200 || /\\([1-9]|k)/.test(escaped)) return false
  if (/\(\?(<?[=!]|P?>|P=|\()|\{[0-9]*,?[0-9]*[0-9]{3}/.test(escaped.replace(/\\./gs, ''))) return false
  return isPattern(pattern)
}
