import type { Project, Provider } from '../config.ts'
import { exitCode, Failure } from '../failure.ts'

export type ProviderSettings = Provider

/** A hook as a function of the database: `pg-functions://postgres/<schema>/<function>`. */
export interface Hook {
  uri: string
  schema: string
  name: string
}

export type HookName = 'custom_access_token' | 'before_user_created'

/** What `[auth]` of config.toml says, and what follows from where the stack is served. */
export interface Settings extends Omit<Project['auth'], 'hook'> {
  hooks: Partial<Record<HookName, Hook>>
  /** `iss` of every token: `<url>/auth/v1`. */
  issuer: string
}

export function readSettings({ hook: configured, ...auth }: Project['auth'], url: string): Settings {
  const hooks: Settings['hooks'] = {}
  for (const [name, { enabled, uri }] of Object.entries(configured)) {
    if (!enabled) continue
    if (name !== 'custom_access_token' && name !== 'before_user_created') {
      throw new Failure(`[auth.hook.${name}] is not available on the local stack.`, exitCode.usage)
    }
    const [, schema, fn] = /^pg-functions:\/\/[^/]+\/([^/]+)\/([^/]+)$/.exec(uri) ?? []
    if (!schema || !fn) {
      throw new Failure(
        `[auth.hook.${name}]: "${uri}" is not pg-functions://postgres/<schema>/<function>.`,
        exitCode.usage,
        'The local stack calls hooks that are functions of the database.',
      )
    }
    hooks[name] = { uri, schema, name: fn }
  }
  return { ...auth, hooks, issuer: `${url}/auth/v1` }
}

/** Go's duration notation, as `ban_duration` uses it (`24h`, `1h30m`), in milliseconds. Null when it is none. */
export function parseDuration(text: string): number | null {
  if (!/^(\d+(\.\d+)?(ms|s|m|h))+$/.test(text)) return null
  const units: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }
  let total = 0
  for (const [, number, , unit] of text.matchAll(/(\d+(\.\d+)?)(ms|s|m|h)/g)) total += Number(number) * units[unit!]!
  return total
}
