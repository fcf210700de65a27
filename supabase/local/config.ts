import { resolve } from 'node:path'
import { parse, TomlError } from 'smol-toml'
import { z } from 'zod'
import { readEnvironment, type Variables } from './env.ts'
import { exitCode, Failure } from './failure.ts'

const text = (fallback = '') => z.string().default(fallback)
const texts = (...fallback: string[]) => z.array(z.string()).default(fallback)
const number = (fallback: number) => z.number().default(fallback)
const flag = (fallback: boolean) => z.boolean().default(fallback)
const named = <T extends z.ZodType>(item: T) => z.record(z.string(), item).default({})
/** A table; left out, it has the defaults of its fields. */
const table = <T extends z.ZodRawShape>(shape: T) => z.object(shape).prefault({} as never)

const unitSeconds: Record<string, number> = { ms: 0.001, s: 1, m: 60, h: 3600 }
/** "1h30m", read as seconds. */
const duration = z
  .string()
  .regex(/^([\d.]+(ms|s|m|h))+$/, 'expected a duration such as "24h"')
  .transform((value) =>
    [...value.matchAll(/([\d.]+)(ms|s|m|h)/g)].reduce((sum, [, n, unit]) => sum + Number(n) * unitSeconds[unit!]!, 0),
  )
/** "50MiB", read as bytes. */
const size = z
  .string()
  .regex(/^\d+\s*([KMGT]i?)?B?$/i, 'expected a size such as "50MiB"')
  .transform((value) => {
    const [, n, unit] = /^(\d+)\s*([KMGT]?)/i.exec(value)!
    return Number(n) * 1024 ** ['', 'K', 'M', 'G', 'T'].indexOf(unit!.toUpperCase())
  })

const bucket = z.object({
  public: flag(false),
  file_size_limit: size.nullable().default(null),
  allowed_mime_types: z.array(z.string()).nullable().default(null),
  /** Absolute folder whose files are uploaded. */
  objects_path: z.string().nullable().default(null),
})

const provider = z.object({
  enabled: flag(false),
  client_id: text(),
  secret: text(),
  url: text(),
  redirect_uri: text(),
  skip_nonce_check: flag(false),
  email_optional: flag(false),
})

const hook = z.object({ enabled: flag(false), uri: text(), secrets: text() })

/** What the local stack uses of config.toml, with the CLI's names and defaults. Everything else is left to others. */
const config = z.object({
  project_id: text(),
  api: table({
    schemas: texts('public', 'graphql_public'),
    extra_search_path: texts('public', 'extensions'),
    max_rows: number(1000),
    auto_expose_new_tables: flag(true),
  }),
  db: table({
    seed: table({ enabled: flag(true), sql_paths: texts('./seed.sql') }),
    migrations: table({ enabled: flag(true) }),
    vault: named(z.string()),
  }),
  storage: table({ file_size_limit: size.prefault('50MiB'), buckets: named(bucket) }),
  auth: table({
    site_url: text('http://127.0.0.1:3000'),
    additional_redirect_urls: texts(),
    jwt_expiry: number(3600),
    enable_refresh_token_rotation: flag(true),
    refresh_token_reuse_interval: number(10),
    enable_signup: flag(true),
    enable_anonymous_sign_ins: flag(false),
    enable_manual_linking: flag(false),
    minimum_password_length: number(6),
    password_requirements: text(),
    email: table({
      enable_signup: flag(true),
      double_confirm_changes: flag(true),
      enable_confirmations: flag(false),
      secure_password_change: flag(false),
      max_frequency: duration.prefault('1s'),
      otp_length: number(6),
      otp_expiry: number(3600),
      template: named(z.object({ subject: z.string().optional(), content_path: z.string().optional() })),
    }),
    sessions: table({
      timebox: duration.nullable().default(null),
      inactivity_timeout: duration.nullable().default(null),
    }),
    external: named(provider),
    hook: named(hook),
    rate_limit: named(z.number()),
  }),
  functions: named(
    z.object({ enabled: flag(true), verify_jwt: flag(true), entrypoint: z.string().optional(), import_map: text() }),
  ),
})

export type Table = Record<string, unknown>
export type Provider = z.infer<typeof provider>
export type Hook = z.infer<typeof hook>

export interface FunctionConfig {
  slug: string
  enabled: boolean
  verify_jwt: boolean
  /** Absolute paths. */
  entrypoint: string
  import_map: string | null
}

/** A project as the stack sees it: paths absolute, durations in seconds, sizes in bytes, `env(NAME)` replaced. */
export interface Project extends Omit<z.infer<typeof config>, 'functions'> {
  /** Folder that holds `supabase/`. */
  dir: string
  functions: Record<string, FunctionConfig>
  /** The whole file, `env(NAME)` replaced. */
  raw: Table
}

/** Reads a project. `environment` answers `env(NAME)`; the children pass `functionEnvironment(stack)`. */
export function readProject(dir: string, environment?: Variables): Project {
  const file = `${dir}/supabase/config.toml`
  // A name such as SUPABASE_AUTH_… stands in .env for this file only; functions do not get it.
  const raw = substitute(readToml(dir, file), { ...readEnvironment(dir), ...environment }) as Table
  const { data, error } = config.safeParse(raw)
  if (error) {
    const list = error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`).join('\n  ')
    throw new Failure(`${file}: ${list}`, exitCode.usage)
  }
  for (const one of Object.values(data.storage.buckets)) {
    if (one.objects_path !== null) one.objects_path = resolve(dir, 'supabase', one.objects_path)
  }
  return {
    ...data,
    dir,
    project_id: data.project_id || dir.replace(/.*\//, ''),
    functions: readFunctions(dir, data.functions),
    raw,
  }
}

function readToml(dir: string, file: string): unknown {
  let content: string
  try {
    content = Deno.readTextFileSync(file)
  } catch {
    throw new Failure(
      `${dir} is not a Supabase project: ${file} cannot be read.`,
      exitCode.usage,
      'Name the folder that holds supabase/ with --project.',
    )
  }
  try {
    return parse(content)
  } catch (error) {
    if (!(error instanceof TomlError)) throw error
    const where = `line ${error.line}, column ${error.column}`
    throw new Failure(`${file}, ${where}: ${error.message.split('\n')[0]}`, exitCode.usage)
  }
}

/** Replaces `env(NAME)`, by '' when the variable is not set. */
function substitute(value: unknown, environment: Variables): unknown {
  if (typeof value === 'string') {
    const name = /^env\((.*)\)$/.exec(value)?.[1]
    return name === undefined ? value : (environment[name] ?? '')
  }
  if (Array.isArray(value)) return value.map((item) => substitute(item, environment))
  if (value === null || typeof value !== 'object' || value instanceof Date) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, substitute(item, environment)]))
}

/** Functions of config.toml and of `supabase/functions/<slug>/index.ts`. Paths are relative to `supabase/`, as in the CLI. */
function readFunctions(dir: string, configured: z.infer<typeof config>['functions']): Record<string, FunctionConfig> {
  const base = `${dir}/supabase`
  const slugs = new Set(Object.keys(configured))
  for (const { name, isDirectory } of list(`${base}/functions`)) {
    if (isDirectory && /^[A-Za-z0-9][\w-]*$/.test(name) && isFile(`${base}/functions/${name}/index.ts`)) slugs.add(name)
  }
  return Object.fromEntries(
    [...slugs].sort().map((slug) => {
      const { enabled = true, verify_jwt = true, import_map, entrypoint: path } = configured[slug] ?? {}
      const entrypoint = resolve(base, path ?? `./functions/${slug}/index.ts`)
      const beside = ['deno.json', 'deno.jsonc'].map((name) => entrypoint.replace(/[^/]*$/, name)).find(isFile) ?? null
      return [
        slug,
        { slug, enabled, verify_jwt, entrypoint, import_map: import_map ? resolve(base, import_map) : beside },
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

/** Whether a path leads to a file. */
export function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile
  } catch {
    return false
  }
}
