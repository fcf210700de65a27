import { resolve } from 'node:path'
import { parse, TomlError } from 'smol-toml'
import { readEnvironment, type Variables } from './env.ts'
import { exitCode, Failure } from './failure.ts'

/**
 * What the local stack uses of a project's `supabase/config.toml`: the CLI's names and defaults, paths made absolute,
 * durations in seconds, `env(NAME)` replaced (by '' when the variable is not set).
 */
export interface Project {
  /** Folder that holds `supabase/`. */
  dir: string
  project_id: string
  api: { schemas: string[]; extra_search_path: string[]; max_rows: number; auto_expose_new_tables: boolean }
  db: {
    seed: { enabled: boolean; sql_paths: string[] }
    migrations: { enabled: boolean }
    vault: Record<string, string>
  }
  storage: {
    file_size_limit: number
    buckets: Record<string, Bucket>
  }
  auth: {
    site_url: string
    additional_redirect_urls: string[]
    jwt_expiry: number
    enable_refresh_token_rotation: boolean
    refresh_token_reuse_interval: number
    enable_signup: boolean
    enable_anonymous_sign_ins: boolean
    enable_manual_linking: boolean
    minimum_password_length: number
    password_requirements: string
    email: {
      enable_signup: boolean
      double_confirm_changes: boolean
      enable_confirmations: boolean
      secure_password_change: boolean
      max_frequency: number
      otp_length: number
      otp_expiry: number
      template: Record<string, { subject?: string; content_path?: string }>
    }
    sessions: { timebox: number | null; inactivity_timeout: number | null }
    external: Record<string, Provider>
    hook: Record<string, Hook>
    rate_limit: Record<string, number>
  }
  functions: Record<string, FunctionConfig>
  /** The whole file, `env(NAME)` replaced. */
  raw: Table
}

export interface Bucket {
  public: boolean
  file_size_limit: number | null
  allowed_mime_types: string[] | null
  /** Absolute folder whose files are uploaded when the database is new. */
  objects_path: string | null
}

export interface Provider {
  enabled: boolean
  client_id: string
  secret: string
  url: string
  redirect_uri: string
  skip_nonce_check: boolean
  email_optional: boolean
}

export interface Hook {
  enabled: boolean
  uri: string
  secrets: string
}

export interface FunctionConfig {
  slug: string
  enabled: boolean
  verify_jwt: boolean
  /** Absolute paths. */
  entrypoint: string
  import_map: string | null
}

/** Reads a project. `environment` answers `env(NAME)`; the children pass `functionEnvironment(stack)`. */
export function readProject(dir: string, environment?: Variables): Project {
  const file = `${dir}/supabase/config.toml`
  // A name such as SUPABASE_AUTH_… stands in .env for this file only; functions do not get it.
  const values = { ...readEnvironment(dir), ...environment }
  let text: string
  try {
    text = Deno.readTextFileSync(file)
  } catch {
    throw new Failure(
      `${dir} is not a Supabase project: ${file} cannot be read.`,
      exitCode.usage,
      'Name the folder that holds supabase/ with --project.',
    )
  }
  let raw: unknown
  try {
    raw = parse(text)
  } catch (error) {
    if (!(error instanceof TomlError)) throw error
    throw new Failure(
      `${file}, line ${error.line}, column ${error.column}: ${error.message.split('\n')[0]}`,
      exitCode.usage,
    )
  }
  const config = substitute(raw, values) as Table
  const read = new Reader(config, file)
  return {
    dir,
    project_id: read.string('project_id', dir.replace(/.*\//, '')),
    api: {
      schemas: read.strings('api.schemas', ['public', 'graphql_public']),
      extra_search_path: read.strings('api.extra_search_path', ['public', 'extensions']),
      max_rows: read.number('api.max_rows', 1000),
      auto_expose_new_tables: read.boolean('api.auto_expose_new_tables', true),
    },
    db: {
      seed: {
        enabled: read.boolean('db.seed.enabled', true),
        sql_paths: read.strings('db.seed.sql_paths', ['./seed.sql']),
      },
      migrations: { enabled: read.boolean('db.migrations.enabled', true) },
      vault: Object.fromEntries(
        Object.keys(read.table('db.vault')).map((name) => [name, read.string(`db.vault.${name}`, '')]),
      ),
    },
    storage: {
      file_size_limit: read.size('storage.file_size_limit', '50MiB') ?? 0,
      buckets: read.each('storage.buckets', (at) => ({
        public: read.boolean(`${at}.public`, false),
        file_size_limit: read.size(`${at}.file_size_limit`, null),
        allowed_mime_types: read.has(`${at}.allowed_mime_types`) ? read.strings(`${at}.allowed_mime_types`, []) : null,
        objects_path: read.has(`${at}.objects_path`)
          ? resolve(dir, 'supabase', read.string(`${at}.objects_path`, ''))
          : null,
      })),
    },
    auth: {
      site_url: read.string('auth.site_url', 'http://127.0.0.1:3000'),
      additional_redirect_urls: read.strings('auth.additional_redirect_urls', []),
      jwt_expiry: read.number('auth.jwt_expiry', 3600),
      enable_refresh_token_rotation: read.boolean('auth.enable_refresh_token_rotation', true),
      refresh_token_reuse_interval: read.number('auth.refresh_token_reuse_interval', 10),
      enable_signup: read.boolean('auth.enable_signup', true),
      enable_anonymous_sign_ins: read.boolean('auth.enable_anonymous_sign_ins', false),
      enable_manual_linking: read.boolean('auth.enable_manual_linking', false),
      minimum_password_length: read.number('auth.minimum_password_length', 6),
      password_requirements: read.string('auth.password_requirements', ''),
      email: {
        enable_signup: read.boolean('auth.email.enable_signup', true),
        double_confirm_changes: read.boolean('auth.email.double_confirm_changes', true),
        enable_confirmations: read.boolean('auth.email.enable_confirmations', false),
        secure_password_change: read.boolean('auth.email.secure_password_change', false),
        max_frequency: read.duration('auth.email.max_frequency', '1s') ?? 1,
        otp_length: read.number('auth.email.otp_length', 6),
        otp_expiry: read.number('auth.email.otp_expiry', 3600),
        template: read.each('auth.email.template', (at) => ({
          subject: read.string(`${at}.subject`, '') || undefined,
          content_path: read.string(`${at}.content_path`, '') || undefined,
        })),
      },
      sessions: {
        timebox: read.duration('auth.sessions.timebox', null),
        inactivity_timeout: read.duration('auth.sessions.inactivity_timeout', null),
      },
      external: read.each('auth.external', (at) => ({
        enabled: read.boolean(`${at}.enabled`, false),
        client_id: read.string(`${at}.client_id`, ''),
        secret: read.string(`${at}.secret`, ''),
        url: read.string(`${at}.url`, ''),
        redirect_uri: read.string(`${at}.redirect_uri`, ''),
        skip_nonce_check: read.boolean(`${at}.skip_nonce_check`, false),
        email_optional: read.boolean(`${at}.email_optional`, false),
      })),
      hook: read.each('auth.hook', (at) => ({
        enabled: read.boolean(`${at}.enabled`, false),
        uri: read.string(`${at}.uri`, ''),
        secrets: read.string(`${at}.secrets`, ''),
      })),
      rate_limit: read.each('auth.rate_limit', (at) => read.number(at, 0)),
    },
    functions: readFunctions(dir, read),
    raw: config,
  }
}

/** Functions of config.toml and of `supabase/functions/<slug>/index.ts`. Paths are relative to `supabase/`, as in the CLI. */
function readFunctions(dir: string, read: Reader): Record<string, FunctionConfig> {
  const base = `${dir}/supabase`
  const slugs = new Set(Object.keys(read.table('functions')))
  for (const entry of list(`${base}/functions`)) {
    if (
      entry.isDirectory &&
      /^[A-Za-z0-9][A-Za-z0-9_-]*$/.test(entry.name) &&
      isFile(`${base}/functions/${entry.name}/index.ts`)
    ) {
      slugs.add(entry.name)
    }
  }
  return Object.fromEntries(
    [...slugs].sort().map((slug) => {
      const at = `functions.${slug}`
      const entrypoint = resolve(base, read.string(`${at}.entrypoint`, `./functions/${slug}/index.ts`))
      const beside = ['deno.json', 'deno.jsonc'].map((name) => entrypoint.replace(/[^/]*$/, name)).find(isFile) ?? null
      const map = read.string(`${at}.import_map`, '')
      return [
        slug,
        {
          slug,
          enabled: read.boolean(`${at}.enabled`, true),
          verify_jwt: read.boolean(`${at}.verify_jwt`, true),
          entrypoint,
          import_map: map ? resolve(base, map) : beside,
        },
      ]
    }),
  )
}

function list(folder: string): Deno.DirEntry[] {
  try {
    return [...Deno.readDirSync(folder)]
  } catch {
    return []
  }
}

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile
  } catch {
    return false
  }
}

export type Table = Record<string, unknown>

function substitute(value: unknown, environment: Variables): unknown {
  if (typeof value === 'string') {
    const name = /^env\((.*)\)$/.exec(value)?.[1]
    return name === undefined ? value : (environment[name] ?? '')
  }
  if (Array.isArray(value)) return value.map((item) => substitute(item, environment))
  if (value === null || typeof value !== 'object' || value instanceof Date) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, substitute(item, environment)]))
}

/** Typed access by dotted path; a value of the wrong type is refused by name. */
class Reader {
  constructor(
    private readonly root: Table,
    private readonly file: string,
  ) {}

  private at(path: string): unknown {
    return path.split('.').reduce<unknown>((value, key) => (value as Table | undefined)?.[key], this.root)
  }

  private typed<T>(path: string, fallback: T, is: (value: unknown) => boolean, wanted: string): T {
    const value = this.at(path)
    if (value === undefined) return fallback
    if (!is(value))
      throw new Failure(`${this.file}: ${path} must be ${wanted}, not ${JSON.stringify(value)}`, exitCode.usage)
    return value as T
  }

  has = (path: string) => this.at(path) !== undefined
  string = (path: string, fallback: string) => this.typed(path, fallback, (v) => typeof v === 'string', 'a string')
  number = (path: string, fallback: number) => this.typed(path, fallback, (v) => typeof v === 'number', 'a number')
  boolean = (path: string, fallback: boolean) =>
    this.typed(path, fallback, (v) => typeof v === 'boolean', 'true or false')
  strings = (path: string, fallback: string[]) =>
    this.typed(
      path,
      fallback,
      (v) => Array.isArray(v) && v.every((item) => typeof item === 'string'),
      'a list of strings',
    )
  table = (path: string) =>
    this.typed<Table>(path, {}, (v) => typeof v === 'object' && v !== null && !Array.isArray(v), 'a table')

  each<T>(path: string, item: (at: string) => T): Record<string, T> {
    return Object.fromEntries(Object.keys(this.table(path)).map((name) => [name, item(`${path}.${name}`)]))
  }

  /** "1h30m" in seconds. */
  duration(path: string, fallback: string | null): number | null {
    const text = this.typed(
      path,
      fallback,
      (v) => typeof v === 'string' && /^([\d.]+(ms|s|m|h))+$/.test(v),
      'a duration such as "24h"',
    )
    if (text === null) return null
    const seconds = { ms: 0.001, s: 1, m: 60, h: 3600 }
    return [...text.matchAll(/([\d.]+)(ms|s|m|h)/g)].reduce(
      (sum, [, n, unit]) => sum + Number(n) * seconds[unit as 's'],
      0,
    )
  }

  /** "50MiB" in bytes. */
  size(path: string, fallback: string | null): number | null {
    const text = this.typed(
      path,
      fallback,
      (v) => typeof v === 'string' && /^\d+\s*([KMGT]i?)?B?$/i.test(v),
      'a size such as "50MiB"',
    )
    if (text === null) return null
    const [, n, unit] = /^(\d+)\s*([KMGT]?)/i.exec(text)!
    return Number(n) * 1024 ** ['', 'K', 'M', 'G', 'T'].indexOf(unit!.toUpperCase())
  }
}
