/**
 * What the supervisor decides once and every child reads: `<data>/stack.json`, mode 0600.
 * Nothing in here belongs to the project that is served.
 */
export interface Stack {
  /** Folder that holds `supabase/config.toml`. */
  project: string
  /** Data folder: database files, keys, logs, uploaded files. */
  data: string
  /** The one public origin, for example `http://127.0.0.1:54321`. */
  url: string
  /** Loopback ports; `platform` is the public one. They stay the same when a child is restarted. */
  ports: { platform: number; functions: number; worker: number; sandbox: number }
  database: { host: string; port: number; name: string; passwords: Record<LoginRole, string> }
  keys: {
    publishable: string
    secret: string
    /** HS256 secret between the gateway and `@supabase/lite`; no token signed with it leaves the gateway. */
    jwtSecret: string
    /** ES256 private key (JWK with `kid`) that signs users' tokens. */
    signingKey: JsonWebKey & { kid: string }
    /** Random, one per data folder: `${LOCAL_SECRET}` in local.env. */
    localSecret: string
  }
  /** `--wall-clock N`: the functions child is ended N seconds after its first request. */
  wallClockSeconds: number | null
  /** `--realtime-limits`: hosted's Realtime limits are enforced. */
  realtimeLimits: boolean
}

/** Roles that may log in. `rest` is the gateway's: member of anon, authenticated and service_role, nothing more. */
export type LoginRole = 'supabase_admin' | 'postgres' | 'supabase_auth_admin' | 'rest'

export function readStack(file: string): Stack {
  return JSON.parse(Deno.readTextFileSync(file))
}

export function databaseUrl(stack: Stack, role: LoginRole, database = stack.database.name): string {
  const { host, port, passwords } = stack.database
  return `postgresql://${role}:${encodeURIComponent(passwords[role])}@${host}:${port}/${encodeURIComponent(database)}`
}
