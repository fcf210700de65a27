import type { Project, Provider } from '../config.ts'
import type { Variables } from '../env.ts'

export type ProviderSettings = Provider

/** A hook as a function of the database: `pg-functions://postgres/<schema>/<function>`. */
export interface Hook {
  uri: string
  /** Both empty when the hook is of another kind, which the local stack cannot call: then it fails, as it must. */
  schema: string
  name: string
}

const HOOKS = ['custom_access_token', 'before_user_created'] as const

/** What `[auth]` of config.toml says, and what follows from where the stack is served. */
export interface Settings extends Omit<Project['auth'], 'hook'> {
  hooks: Partial<Record<(typeof HOOKS)[number], Hook>>
  /** Hooks that are configured and that nothing here ever calls. */
  ignoredHooks: string[]
  /** `iss` of every token: `<url>/auth/v1`. */
  issuer: string
}

/**
 * `GOTRUE_MAILER_AUTOCONFIRM=true`, Auth's own name for it, takes every address as confirmed. It stands in local.env, so
 * that config.toml can ask for confirmations on hosted while nobody has to open the inbox to try something.
 */
export function readSettings(project: Pick<Project, 'auth'>, url: string, environment: Variables): Settings {
  const { hook: configured, ...auth } = project.auth
  const hooks: Settings['hooks'] = {}
  for (const hook of HOOKS) {
    const { enabled = false, uri = '' } = configured[hook] ?? {}
    const [, schema = '', name = ''] = /^pg-functions:\/\/[^/]+\/([^/]+)\/([^/]+)$/.exec(uri) ?? []
    if (enabled) hooks[hook] = { uri, schema, name }
  }
  const enabled = Object.keys(configured).filter((name) => configured[name]!.enabled)
  const ignoredHooks = enabled.filter((name) => !Object.hasOwn(hooks, name))
  const autoconfirm = environment.GOTRUE_MAILER_AUTOCONFIRM === 'true'
  const email = { ...auth.email, enable_confirmations: auth.email.enable_confirmations && !autoconfirm }
  return { ...auth, email, hooks, ignoredHooks, issuer: `${url}/auth/v1` }
}

/** Go's duration notation, as `ban_duration` uses it (`24h`, `1h30m`), in milliseconds. Null when it is none. */
export function parseDuration(text: string): number | null {
  if (!/^(\d+(\.\d+)?(ms|s|m|h))+$/.test(text)) return null
  const units: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }
  let total = 0
  for (const [, number, , unit] of text.matchAll(/(\d+(\.\d+)?)(ms|s|m|h)/g)) total += Number(number) * units[unit!]!
  return total
}
