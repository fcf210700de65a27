import { randomUUID } from 'node:crypto'
import { createClient, type SupabaseClient } from '@supabase/supabase-js'
import postgres from 'postgres'
import { afterAll, inject } from 'vitest'
import WebSocket from 'ws'
import type { LoginRole, Stack } from '../../supabase/local/stack.ts'
import type { Database } from '../../types/database.ts'

/** The running stack, as its `stack.json` describes it. */
export const stack: Stack = inject('stack')
export const url = stack.url
export const functionsUrl = `${url}/functions/v1`
export const publishableKey = stack.keys.publishable
export const secretKey = stack.keys.secret

export type Client = SupabaseClient<Database>

export interface Person {
  id: string
  email: string
  password: string
  /** Access token of the session that `client` holds. */
  token: string
  client: Client
}

// Node 20 has no WebSocket of its own.
const realtime = { transport: WebSocket as never }

/** A client with the publishable key and, when given, a user's token. */
export function client(token?: string): Client {
  return createClient<Database>(url, publishableKey, {
    auth: { persistSession: false, autoRefreshToken: false },
    global: token ? { headers: { authorization: `Bearer ${token}` } } : {},
    realtime,
  })
}

/** A visitor who has not signed in. */
export const anonymous = (): Client => client()

/** A server with the secret key: `service_role`. */
export function admin(): Client {
  return createClient<Database>(url, secretKey, { auth: { persistSession: false, autoRefreshToken: false }, realtime })
}

/** Signs up a new person through Auth and returns their signed-in client. */
export async function signUp(details: { email?: string; password?: string; data?: object } = {}): Promise<Person> {
  const email = details.email ?? `person-${randomUUID()}@example.com`
  const password = details.password ?? 'correct horse battery staple'
  const signedIn = client()
  const { data, error } = await signedIn.auth.signUp({ email, password, options: { data: details.data } })
  if (error) throw error
  if (!data.session) throw new Error(`No session for ${email}: are confirmations switched on?`)
  return { id: data.session.user.id, email, password, token: data.session.access_token, client: signedIn }
}

/** Gives a person a plan; `enterprise` has no limits, for tests of something else that ask for much at once. */
export async function choosePlan(plan: string, person: { id: string }, sql = database()): Promise<void> {
  await sql`select admin.set_plan(${person.id}, ${plan})`
}

const connections: postgres.Sql[] = []
afterAll(() => Promise.all(connections.splice(0).map((sql) => sql.end({ timeout: 1 }))))

function connect(role: LoginRole, max: number): postgres.Sql {
  const { host, port, name, passwords } = stack.database
  const sql = postgres({ host, port, database: name, user: role, password: passwords[role], max, onnotice: () => {} })
  connections.push(sql)
  return sql
}

let dashboard: postgres.Sql | undefined
let platform: postgres.Sql | undefined

/** SQL as an admin would type it in the dashboard: role `postgres`. Shared by the file's tests. */
export const database = (): postgres.Sql => (dashboard ??= connect('postgres', 4))

/** SQL as the platform itself: the only superuser. For looking at what no product role may see. */
export const superuser = (): postgres.Sql => (platform ??= connect('supabase_admin', 2))

/** One database session of its own, for races and locks. */
export const session = (role: LoginRole = 'postgres'): postgres.Sql => connect(role, 1)

/** Polls until `read` returns something truthy, and returns it; throws after `ms`. */
export async function until<T>(read: () => T | Promise<T>, ms = 10_000): Promise<NonNullable<T>> {
  const deadline = Date.now() + ms
  for (;;) {
    const value = await read()
    if (value) return value
    if (Date.now() > deadline) throw new Error(`Nothing came within ${ms} ms: ${read}`)
    await new Promise((resolve) => setTimeout(resolve, 25))
  }
}
