import { createHash } from 'node:crypto'
import { z } from 'zod'
import { type Auth, type Call, type Handler, inTransaction, type Transaction, text } from './context.ts'
import { AuthError, invalid } from './errors.ts'
import { openSession } from './sessions.ts'
import { findById } from './users.ts'

/** A sign-in under way in a browser: through a provider, or through a link in an e-mail. */
export interface Flow {
  id: string
  user_id: string | null
  auth_code: string | null
  authentication_method: string
  code_challenge: string | null
  code_challenge_method: 's256' | 'plain' | null
  provider_type: string
  provider_access_token: string | null
  provider_refresh_token: string | null
  auth_code_issued_at: string | null
  referrer: string | null
  linking_target_id: string | null
  created_at: string
}

export interface Challenge {
  challenge: string
  method: 's256' | 'plain'
}

const LIFETIME_MS = 5 * 60_000

/** The challenge of a PKCE client (RFC 7636), or null for one that takes tokens in the fragment. */
export function readChallenge(challenge: string, method: string): Challenge | null {
  if (!challenge && !method) return null
  if (!challenge || !method) throw invalid('PKCE flow requires code_challenge_method and code_challenge')
  if (challenge.length < 43 || challenge.length > 128) {
    throw invalid('code challenge has to be between 43 and 128 characters')
  }
  if (!/^[\w.~-]+$/.test(challenge)) {
    throw invalid('code challenge can only contain alphanumeric characters, hyphens, periods, underscores and tildes')
  }
  const known = method.toLowerCase()
  if (known !== 's256' && known !== 'plain') throw invalid('Invalid code_challenge_method')
  return { challenge, method: known }
}

export interface NewFlow {
  provider: string
  method: string
  challenge: Challenge | null
  userId?: string
  referrer?: string
  linkTo?: string
}

export async function createFlow(tx: Auth['sql'] | Transaction, flow: NewFlow): Promise<Flow> {
  // Abandoned flows are of no use to anybody after a day; this is the only place that makes new ones.
  await tx`delete from auth.flow_state where created_at < now() - interval '1 day'`
  const [row] = await tx<Flow[]>`
    insert into auth.flow_state
      (id, user_id, auth_code, authentication_method, code_challenge, code_challenge_method, provider_type, referrer, linking_target_id)
    values
      (gen_random_uuid(), ${flow.userId ?? null}, ${flow.challenge ? crypto.randomUUID() : null}, ${flow.method},
       ${flow.challenge?.challenge ?? null}, ${flow.challenge?.method ?? null}, ${flow.provider}, ${flow.referrer ?? null},
       ${flow.linkTo ?? null})
    returning *`
  return row!
}

export function isExpired(flow: Flow): boolean {
  const begun =
    flow.authentication_method === 'magiclink' ? (flow.auth_code_issued_at ?? flow.created_at) : flow.created_at
  return Date.now() > Date.parse(begun) + LIFETIME_MS
}

/** The code for the newest flow that this person began by asking for an e-mail of this kind. */
export async function issueCode(tx: Transaction, userId: string, method: string): Promise<string> {
  const [flow] = await tx<Flow[]>`
    update auth.flow_state set auth_code_issued_at = now(), updated_at = now()
    where id = (
      select id from auth.flow_state
      where user_id = ${userId} and authentication_method = ${method} and code_challenge is not null
      order by created_at desc limit 1
    )
    returning *`
  if (!flow?.auth_code) {
    throw new AuthError(
      400,
      'flow_state_not_found',
      'No associated flow state found. No valid flow state found for user.',
    )
  }
  return flow.auth_code
}

const exchangeBody = z.object({ auth_code: text, code_verifier: text })

/** `POST /token?grant_type=pkce`: a code and the verifier behind its challenge for a session. A code works once. */
export const exchangeCode: Handler = async (auth, call: Call) => {
  const { auth_code: code, code_verifier: verifier } = await call.read(exchangeBody)
  if (!code || !verifier) throw invalid('invalid request: both auth code and code verifier should be non-empty')
  const grant = await inTransaction(auth, async (tx) => {
    const [flow] = await tx<Flow[]>`select * from auth.flow_state where auth_code = ${code} for update`
    if (!flow?.user_id || !flow.code_challenge) {
      throw new AuthError(404, 'flow_state_not_found', 'invalid flow state, no valid flow state found')
    }
    if (isExpired(flow)) {
      throw new AuthError(422, 'flow_state_expired', 'invalid flow state, flow state has expired')
    }
    if (challengeOf(verifier, flow.code_challenge_method) !== flow.code_challenge) {
      throw new AuthError(400, 'bad_code_verifier', 'code challenge does not match previously saved code verifier')
    }
    const user = await findById(tx, flow.user_id)
    if (!user) throw new AuthError(404, 'user_not_found', 'User not found')
    await tx`delete from auth.flow_state where id = ${flow.id}`
    const session = await openSession(auth, tx, call, user, flow.authentication_method)
    if (flow.provider_access_token) session.provider_token = flow.provider_access_token
    if (flow.provider_refresh_token) session.provider_refresh_token = flow.provider_refresh_token
    return session
  })
  return Response.json(grant)
}

export const challengeOf = (verifier: string, method: 's256' | 'plain' | null): string =>
  method === 's256' ? createHash('sha256').update(verifier).digest('base64url') : verifier
