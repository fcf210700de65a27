import { isIP } from 'node:net'
import postgres from 'postgres'
import { z } from 'zod'
import type { Tokens } from '../gateway/tokens.ts'
import { databaseUrl, type Stack } from '../stack.ts'
import { AuthError, invalid } from './errors.ts'
import type { Passwords } from './passwords.ts'
import type { Settings } from './settings.ts'

/** Everything a handler needs that is not in the request. */
export interface Auth {
  stack: Stack
  settings: Settings
  tokens: Tokens
  sql: Sql
  passwords: Passwords
}

export type Sql = postgres.Sql<Record<string, never>>
export type Transaction = postgres.TransactionSql<Record<string, never>>

/** One request. */
export interface Call {
  request: Request
  url: URL
  /** Parts of the path that the route names. */
  params: Record<string, string>
  ip: string | null
  agent: string | null
  /** The body as JSON, checked; throws 400 for anything else. */
  read<T>(schema: z.ZodType<T>): Promise<T>
}

export type Handler = (auth: Auth, call: Call) => Promise<Response>

/** Timestamps stay text in the form that supabase/auth sends: microseconds, UTC, `Z`. */
const timestamp = {
  to: 1184,
  from: [1114, 1184],
  parse: (text: string) => text.replace(' ', 'T').replace(/\+00$/, 'Z'),
  serialize: (value: string) => value,
}

/** Auth's own connections: `supabase_auth_admin`, so that triggers on auth.users run as the role they have on hosted. */
export function connect(stack: Stack): Sql {
  return postgres(databaseUrl(stack, 'supabase_auth_admin'), {
    max: 8,
    idle_timeout: 60,
    onnotice: () => {},
    types: { timestamp },
    connection: { TimeZone: 'UTC', application_name: 'auth' },
  }) as unknown as Sql
}

export const inTransaction = <T>(auth: Auth, work: (tx: Transaction) => Promise<T>): Promise<T> =>
  auth.sql.begin(work as never) as Promise<T>

const MAX_BODY = 1024 * 1024
const MAX_DEPTH = 64

export function createCall(request: Request, url: URL, params: Record<string, string>): Call {
  const forwarded = request.headers.get('x-forwarded-for')?.split(',')[0]?.trim() ?? ''
  return {
    request,
    url,
    params,
    ip: isIP(forwarded) ? forwarded : null,
    agent: request.headers.get('user-agent'),
    async read(schema) {
      const result = schema.safeParse(await readJson(request))
      if (result.success) return result.data
      const issue = result.error.issues[0]!
      throw new AuthError(
        400,
        'bad_json',
        `Could not parse request body as JSON: ${issue.path.join('.') || 'body'}: ${issue.message}`,
      )
    },
  }
}

export async function readText(request: Request): Promise<string> {
  const tooLarge = () => new AuthError(413, 'request_too_large', `Request body is larger than ${MAX_BODY} bytes`)
  if (Number(request.headers.get('content-length') ?? 0) > MAX_BODY) throw tooLarge()
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of request.body ?? []) {
    size += chunk.length
    if (size > MAX_BODY) throw tooLarge()
    chunks.push(chunk)
  }
  const bytes = new Uint8Array(size)
  let offset = 0
  for (const chunk of chunks) {
    bytes.set(chunk, offset)
    offset += chunk.length
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new AuthError(400, 'bad_json', 'Could not parse request body as JSON: it is not UTF-8')
  }
}

async function readJson(request: Request): Promise<unknown> {
  const text = await readText(request)
  let body: unknown
  try {
    body = JSON.parse(text)
  } catch (error) {
    throw new AuthError(400, 'bad_json', `Could not parse request body as JSON: ${(error as Error).message}`)
  }
  checkText(body)
  return body
}

/** Refuses what Postgres cannot store, before anything is written: NUL, unpaired surrogates, absurd nesting. */
function checkText(body: unknown) {
  const rest: [value: unknown, depth: number][] = [[body, 0]]
  while (rest.length) {
    const [value, depth] = rest.pop()!
    if (depth > MAX_DEPTH) throw invalid('Request body is nested too deeply')
    if (typeof value === 'string') {
      if (!isStorable(value)) throw invalid('Text must not contain NUL or unpaired surrogates')
    } else if (typeof value === 'object' && value !== null) {
      for (const [key, member] of Object.entries(value)) rest.push([key, depth], [member, depth + 1])
    }
  }
}

export const isStorable = (text: string) => !text.includes('\0') && text.isWellFormed()

/** A JSON object of the client's own making, such as user_metadata. */
export const metadata = z.record(z.string(), z.json())
export type Metadata = z.infer<typeof metadata>

/** Fields that Go leaves at their zero value when they are null or missing. */
export const text = z
  .string()
  .nullish()
  .transform((value) => value ?? '')
export const flag = z
  .boolean()
  .nullish()
  .transform((value) => value ?? false)

/** The local part, the `@` and a domain, without anything that could end up in a header or another address. */
const EMAIL =
  /^[a-z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*$/

/** The address in the one spelling under which accounts are kept; throws 400 when it is none. */
export function checkEmail(email: string): string {
  if (!email) throw invalid('An email address is required')
  if (email.length > 255) throw invalid('An email address is too long')
  const lower = email.toLowerCase()
  if (!EMAIL.test(lower)) throw invalid('Unable to validate email address: invalid format')
  return lower
}
