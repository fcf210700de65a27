import { createClient, type SupabaseClient } from '@supabase/supabase-js'
import { inBackground } from './background.ts'
import { type ServiceDatabase, serviceDatabase } from './database.ts'
import { withDeadline } from './deadline.ts'
import { addressList } from './limits/address.ts'
import { postgresLimiter, type RateLimiter } from './limits/limiter.ts'
import { upstashLimiter } from './limits/upstash.ts'
import { createLog, type Level, type Log, sentryReporter } from './log.ts'
import { version } from './version.ts'
import { type WallClock, wallClock } from './wall-clock.ts'

/** Everything outside this process. The only module that reads variables or builds clients. */
export interface Env {
  /** Origin of the Supabase project. */
  url: string
  version: string
  /** Origins whose pages may call: a list, or `*` for any. */
  corsOrigins: string[] | '*'
  log: Log
  keys: { publishable: Record<string, string>; secret: Record<string, string> }
  /** Public keys of users' tokens, when the platform hands them over; else they are fetched from the project. */
  jwks: { keys: JsonWebKey[] } | null
  clock: WallClock
  /** Acts as the caller: row level security decides. */
  db(token: string): SupabaseClient
  /** Acts as service_role over HTTP, for the services of the platform (Auth's admin API, Storage). */
  admin: SupabaseClient
  /** Runs `service` functions on the hot path. */
  service: ServiceDatabase
  workerSecret: string
  /** Where a provider of models is, and the key for it; null while its variables are not set. */
  provider(names: ProviderNames): { baseURL: string; apiKey: string } | null
  limits: { connectMs: number; idleMs: number; totalMs: number }
  /** Limits of requests, where addresses are read, and which of them are not limited. */
  rates: { limiter: RateLimiter; addressHeader: string; isExempt(address: string | null): boolean }
  /** Whether Upstash Redis answers; null while it is not configured. */
  pingRedis: (() => Promise<boolean>) | null
}

export interface ProviderNames {
  base_url_env: string | null
  api_key_env: string | null
  default_base_url: string | null
}

export class MissingVariable extends Error {
  constructor(name: string) {
    super(`Environment variable ${name} is missing or unreadable; see .env.example.`)
    this.name = 'MissingVariable'
  }
}

type Read = (name: string) => string | undefined

let live: Env | undefined

/** The environment of the running function; made once per isolate, so that its functions share one pool. */
export function liveEnv(): Env {
  live ??= readEnv((name) => Deno.env.get(name)?.trim() || undefined)
  return live
}

/** Reads the variables; throws MissingVariable at once for what every function needs, and on use for the rest. */
export function readEnv(read: Read): Env {
  const need = (name: string, value = read(name)) => {
    if (!value) throw new MissingVariable(name)
    return value
  }
  const seconds = (name: string, fallback: number) => {
    const value = Number(read(name) ?? fallback)
    if (!Number.isFinite(value) || value < 0) throw new MissingVariable(name)
    return value
  }
  // A project has named keys, a legacy one, or both; clients may still send the legacy one.
  const keys = (name: string, legacy: string): Record<string, string> => {
    const old = read(legacy)
    const given = { ...(old && { legacy: old }), ...parsed<Record<string, string>>(read, name) }
    if (Object.keys(given).length === 0) throw new MissingVariable(name)
    return given
  }

  const exempt = (list = '') => {
    try {
      return addressList(list)
    } catch {
      throw new MissingVariable('RATE_LIMIT_EXEMPT')
    }
  }

  const redis = redisOf(read)
  const url = need('SUPABASE_URL').replace(/\/+$/, '')
  const databaseUrl = read('DATABASE_POOL_URL') ?? need('SUPABASE_DB_URL')
  const publishable = keys('SUPABASE_PUBLISHABLE_KEYS', 'SUPABASE_ANON_KEY')
  const secret = keys('SUPABASE_SECRET_KEYS', 'SUPABASE_SERVICE_ROLE_KEY')
  const anyOf = (set: Record<string, string>) => set.default ?? Object.values(set).at(-1)!
  const level = (read('LOG_LEVEL')?.toLowerCase() ?? 'info') as Level
  if (!['debug', 'info', 'warn', 'error'].includes(level)) throw new MissingVariable('LOG_LEVEL')
  const dsn = read('SENTRY_DSN')
  const auth = { persistSession: false, autoRefreshToken: false, detectSessionInUrl: false }
  const origins = read('CORS_ORIGINS') ?? '*'

  const once = <T>(make: () => T) => {
    let made: T | undefined
    return () => (made ??= make())
  }
  const admin = once(() => createClient(url, anyOf(secret), { auth }))
  const service = once(() => serviceDatabase(databaseUrl))

  return {
    url,
    version,
    corsOrigins: origins === '*' ? '*' : origins.split(',').map((origin) => origin.trim().replace(/\/$/, '')),
    log: createLog({ level, ...(dsn && { report: sentryReporter(dsn, version, inBackground) }) }),
    keys: { publishable, secret },
    jwks: parsed<{ keys: JsonWebKey[] }>(read, 'SUPABASE_JWKS') ?? null,
    clock: wallClock(seconds('WALL_CLOCK_SECONDS', 150)),
    db: (token) =>
      createClient(url, anyOf(publishable), { auth, global: { headers: { authorization: `Bearer ${token}` } } }),
    get admin() {
      return admin()
    },
    get service() {
      return service()
    },
    get workerSecret() {
      return need('WORKER_SECRET')
    },
    provider({ base_url_env, api_key_env, default_base_url }) {
      const baseURL = (base_url_env ? read(base_url_env) : undefined) ?? default_base_url
      const apiKey = api_key_env ? read(api_key_env) : undefined
      if (!baseURL || (api_key_env && !apiKey)) return null
      // The SDK insists on a key; servers that need none ignore it.
      return { baseURL, apiKey: apiKey ?? 'none' }
    },
    limits: {
      connectMs: seconds('LLM_CONNECT_SECONDS', 20) * 1000,
      idleMs: seconds('LLM_IDLE_SECONDS', 20) * 1000,
      totalMs: seconds('LLM_TOTAL_SECONDS', 300) * 1000,
    },
    rates: {
      limiter: redis ? upstashLimiter({ ...redis, service }) : postgresLimiter(service),
      addressHeader: read('CLIENT_ADDRESS_HEADER') ?? 'cf-connecting-ip',
      isExempt: exempt(read('RATE_LIMIT_EXEMPT')),
    },
    pingRedis: redis && pingOf(redis),
  }
}

interface RedisAddress {
  url: string
  token: string
}

/** Both variables or none: half of them is a mistake that would go unnoticed. */
function redisOf(read: Read): RedisAddress | null {
  const [url, token] = [read('UPSTASH_REDIS_REST_URL'), read('UPSTASH_REDIS_REST_TOKEN')]
  if (!url && !token) return null
  if (!url || !/^https?:$/.test(URL.parse(url)?.protocol ?? '')) throw new MissingVariable('UPSTASH_REDIS_REST_URL')
  if (!token) throw new MissingVariable('UPSTASH_REDIS_REST_TOKEN')
  return { url, token }
}

function pingOf({ url, token }: RedisAddress): () => Promise<boolean> {
  return async () => {
    const headers = { authorization: `Bearer ${token}` }
    const request = (signal: AbortSignal) => fetch(url, { method: 'POST', headers, body: '["PING"]', signal })
    try {
      const response = await withDeadline('redis', 2000, request)
      await response.body?.cancel()
      return response.ok
    } catch {
      return false
    }
  }
}

function parsed<T>(read: Read, name: string): T | undefined {
  const value = read(name)
  if (!value) return undefined
  try {
    const json = JSON.parse(value)
    return Array.isArray(json) ? ({ keys: json } as T) : json
  } catch {
    throw new MissingVariable(name)
  }
}
