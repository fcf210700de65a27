import type { Auth, Call, Transaction } from './context.ts'
import { AuthError } from './errors.ts'
import type { Hook } from './settings.ts'

/** As on hosted: a hook runs inside the transaction of the request, so it may hold it up only so long. */
const TIMEOUT_MS = 2000

/** Claims that a custom access token hook must hand back, by the type they must have. */
const REQUIRED: Record<string, (value: unknown) => boolean> = {
  aud: (value) => typeof value === 'string' || Array.isArray(value),
  exp: Number.isInteger,
  iat: Number.isInteger,
  sub: (value) => typeof value === 'string',
  email: (value) => typeof value === 'string',
  phone: (value) => typeof value === 'string',
  role: (value) => typeof value === 'string',
  aal: (value) => typeof value === 'string',
  session_id: (value) => typeof value === 'string',
  is_anonymous: (value) => typeof value === 'boolean',
}

export interface TokenClaims {
  sub: string
  role: string
  exp: number
  [claim: string]: unknown
}

/** Claims of the next token: those given, or what the project's `custom_access_token` hook makes of them. */
export async function customClaims(
  auth: Auth,
  tx: Transaction,
  call: Call,
  claims: TokenClaims,
  method: string,
): Promise<TokenClaims> {
  const hook = auth.settings.hooks.custom_access_token
  if (!hook) return claims
  const event = {
    metadata: describe(call, 'custom-access-token'),
    user_id: claims.sub,
    claims,
    authentication_method: method,
  }
  const output = await run(tx, hook, event)
  const made = output.claims
  if (typeof made !== 'object' || made === null) throw schemaError('claims: missing')
  const wrong = Object.keys(REQUIRED).filter((name) => !REQUIRED[name]!((made as TokenClaims)[name]))
  if (wrong.length) throw schemaError(wrong.join(', '))
  return made as TokenClaims
}

/** Asks the project's `before_user_created` hook, which refuses by answering with an error. */
export async function beforeUserCreated(auth: Auth, tx: Transaction, call: Call, user: object): Promise<void> {
  const hook = auth.settings.hooks.before_user_created
  if (hook) await run(tx, hook, { metadata: describe(call, 'before-user-created'), user })
}

/** What is wrong with the configured hooks, in sentences, so that the stack can say so at start. */
export async function findFaults({ settings, sql }: Auth): Promise<string[]> {
  const faults = settings.ignoredHooks.map((name) => `[auth.hook.${name}] is not called by the local stack.`)
  for (const [name, { uri, schema, name: fn }] of Object.entries(settings.hooks)) {
    const [found] = await sql`
      select coalesce(has_schema_privilege(n.oid, 'usage') and has_function_privilege(p.oid, 'execute'), false) as callable
      from pg_proc p join pg_namespace n on n.oid = p.pronamespace
      where n.nspname = ${schema} and p.proname = ${fn}`
    if (found?.callable) continue
    const fault = found ? 'which supabase_auth_admin may not execute' : 'which is no function of the database'
    faults.push(`[auth.hook.${name}] names ${uri}, ${fault}: nobody can sign in.`)
  }
  return faults
}

async function run(tx: Transaction, hook: Hook, event: object): Promise<Record<string, unknown>> {
  let output: unknown
  try {
    if (!hook.schema) throw new Error('only pg-functions://postgres/<schema>/<function> can be called')
    await tx`select set_config('statement_timeout', ${`${TIMEOUT_MS}`}, true)`
    const [row] = await tx`select ${tx(hook.schema)}.${tx(hook.name)}(${tx.json(event as never)}::jsonb) as output`
    output = row!.output
    await tx`select set_config('statement_timeout', '0', true)`
  } catch (cause) {
    console.error(`auth: hook ${hook.uri} failed:`, cause)
    throw new AuthError(500, 'unexpected_failure', `Error running hook URI: ${hook.uri}`)
  }
  const answer = (output ?? {}) as { error?: { http_code?: number; message?: string } }
  if (answer.error?.message) {
    const { http_code: code, message } = answer.error
    const status = Number.isInteger(code) && code! >= 400 && code! < 600 ? code! : 500
    throw new AuthError(status, status === 500 ? 'unexpected_failure' : 'unknown', message)
  }
  return answer as Record<string, unknown>
}

const describe = (call: Call, name: string) => ({
  uuid: crypto.randomUUID(),
  time: new Date().toISOString(),
  name,
  ip_address: call.ip ?? '',
})

const schemaError = (what: string) =>
  new AuthError(500, 'unexpected_failure', `output claims do not conform to the expected schema: \n- ${what}\n`)
