import postgres from 'postgres'
import { databaseUrl, type Stack } from '../stack.ts'
import { AuthError, invalid } from './errors.ts'
import type { Settings } from './settings.ts'

export interface Passwords {
  hash(password: string): Promise<string>
  matches(password: string, hash: string | null): Promise<boolean>
  close(): Promise<void>
}

/** bcrypt ignores what comes after, so a longer password is refused instead of being cut. */
const MAX_BYTES = 72

const bytes = (text: string) => new TextEncoder().encode(text).length

/**
 * bcrypt with hosted's cost, computed by pgcrypto: a hash takes 60 ms of CPU, and in this process it would hold up every
 * other request. The role `rest` may call pgcrypto; Auth's own role may not, as on hosted.
 */
export function createPasswords(stack: Stack): Passwords {
  const sql = postgres(databaseUrl(stack, 'rest'), { max: 2, idle_timeout: 30, onnotice: () => {} })
  return {
    async hash(password) {
      const [row] = await sql`select extensions.crypt(${password}, extensions.gen_salt('bf', 10)) as hash`
      return row!.hash
    },
    async matches(password, hash) {
      if (!hash || !/^\$2[abxy]\$\d\d\$.{53}$/.test(hash) || bytes(password) > MAX_BYTES) return false
      // The letter only names an implementation; pgcrypto knows `a` and `x`.
      const salt = hash.replace(/^\$2[by]\$/, '$2a$')
      const [row] = await sql`select extensions.crypt(${password}, ${salt}) = ${salt} as same`
      return row!.same
    },
    close: () => sql.end({ timeout: 1 }),
  }
}

const CLASSES: Record<string, RegExp[]> = {
  letters_digits: [/[a-zA-Z]/, /\d/],
  lower_upper_letters_digits: [/[a-z]/, /[A-Z]/, /\d/],
  lower_upper_letters_digits_symbols: [/[a-z]/, /[A-Z]/, /\d/, /[!@#$%^&*()_+\-=[\]{};'\\:"|<>?,./`~]/],
}

/** Throws unless the password is one that a new account may have. */
export function checkPassword(settings: Settings, password: string) {
  if (bytes(password) > MAX_BYTES) throw invalid('Password cannot be longer than 72 characters')
  const reasons: string[] = []
  const messages: string[] = []
  const least = Math.max(settings.minimum_password_length, 6)
  if ([...password].length < least) {
    reasons.push('length')
    messages.push(`Password should be at least ${least} characters.`)
  }
  if (!(CLASSES[settings.password_requirements] ?? []).every((needed) => needed.test(password))) {
    reasons.push('characters')
    messages.push(`Password should contain ${settings.password_requirements.replaceAll('_', ', ')}.`)
  }
  if (reasons.length) throw new AuthError(422, 'weak_password', messages.join(' '), { weak_password: { reasons } })
}
