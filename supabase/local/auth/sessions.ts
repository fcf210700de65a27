import type { Auth, Call, Transaction } from './context.ts'
import { AuthError } from './errors.ts'
import { customClaims } from './hooks.ts'
import { findById, isBanned, presentUser, type User, updateUser } from './users.ts'

export interface Session {
  id: string
  user_id: string
  created_at: string
  refreshed_at: string | null
  not_after: string | null
}

/** What a sign-in answers. */
export interface Grant {
  access_token: string
  token_type: 'bearer'
  expires_in: number
  expires_at: number
  refresh_token: string
  user: Awaited<ReturnType<typeof presentUser>>
  [member: string]: unknown
}

interface RefreshToken {
  token: string
  session_id: string
  user_id: string
  revoked: boolean
  parent: string | null
  updated_at: string
}

/** Begins a session for somebody who has just proved who they are, by `method`. */
export async function openSession(auth: Auth, tx: Transaction, call: Call, user: User, method: string): Promise<Grant> {
  if (isBanned(user)) throw new AuthError(403, 'user_banned', 'User is banned')
  if (user.deleted_at) throw new AuthError(403, 'user_not_found', 'User not found')
  const [session] = await tx<Session[]>`
    insert into auth.sessions (id, user_id, aal, user_agent, ip, created_at, updated_at)
    values (gen_random_uuid(), ${user.id}, 'aal1', ${call.agent}, ${call.ip}, now(), now()) returning *`
  await tx`
    insert into auth.mfa_amr_claims (id, session_id, authentication_method, created_at, updated_at)
    values (gen_random_uuid(), ${session!.id}, ${method}, now(), now())`
  const refreshToken = await addRefreshToken(tx, user.id, session!.id, null)
  const signedIn = await updateUser(tx, user.id, { last_sign_in_at: new Date().toISOString() })
  return grant(auth, tx, call, signedIn, session!.id, refreshToken, method)
}

/**
 * Exchanges a refresh token for the next. A token works once. The token before the current one, and any other within the
 * reuse interval, is taken for a client that lost the answer; an older one for a thief: then the family ends.
 */
export async function refresh(auth: Auth, tx: Transaction, call: Call, token: string): Promise<Grant | AuthError> {
  const [known] = await tx<RefreshToken[]>`select * from auth.refresh_tokens where token = ${token}`
  if (!known) throw refused('refresh_token_not_found', 'Refresh Token Not Found')
  // Refreshes of one session take turns here, so each sees what the one before it made.
  const [session] = await tx<Session[]>`select * from auth.sessions where id = ${known.session_id} for update`
  const [used] = await tx<RefreshToken[]>`select * from auth.refresh_tokens where token = ${token}`
  const user = session && (await findById(tx, session.user_id))
  if (!session || !used || !user) throw refused('session_not_found', 'Session Not Found')
  if (isBanned(user)) throw refused('user_banned', 'User Banned')
  checkLifetime(auth, session, used)

  let next: string
  if (!used.revoked) {
    next = await swap(tx, used)
  } else {
    const [active] = await tx<RefreshToken[]>`
      select * from auth.refresh_tokens where session_id = ${session.id} and not revoked order by created_at desc limit 1`
    const withinInterval = Date.parse(used.updated_at) + auth.settings.refresh_token_reuse_interval * 1000 >= Date.now()
    if (active?.parent === token) next = active.token
    else if (withinInterval) next = await addRefreshToken(tx, user.id, session.id, token)
    else {
      // The end of the family has to be kept, so this refusal is returned and not thrown.
      if (auth.settings.enable_refresh_token_rotation) await revokeFamily(tx, session.id)
      return refused('refresh_token_already_used', 'Already Used')
    }
  }
  await tx`
    update auth.sessions set refreshed_at = now() at time zone 'utc', updated_at = now(), user_agent = ${call.agent}, ip = ${call.ip}
    where id = ${session.id}`
  return grant(auth, tx, call, user, session.id, next, 'token_refresh')
}

const refused = (code: string, why: string) => new AuthError(400, code, `Invalid Refresh Token: ${why}`)

async function swap(tx: Transaction, used: RefreshToken): Promise<string> {
  await tx`update auth.refresh_tokens set revoked = true, updated_at = now() where token = ${used.token}`
  return addRefreshToken(tx, used.user_id, used.session_id, used.token)
}

/** Revoked long ago, as far as the reuse interval is concerned: none of these tokens may be taken for a lost answer. */
const revokeFamily = (tx: Transaction, sessionId: string) =>
  tx`update auth.refresh_tokens set revoked = true, updated_at = to_timestamp(0) where session_id = ${sessionId}`

function checkLifetime({ settings }: Auth, session: Session, token: RefreshToken) {
  const now = Date.now()
  const { timebox, inactivity_timeout: inactivity } = settings.sessions
  const pastTimebox = timebox && now > Date.parse(session.created_at) + timebox * 1000
  const pastEnd = session.not_after !== null && now > Date.parse(session.not_after)
  if (pastTimebox || pastEnd) throw refused('session_expired', 'Session Expired')
  const refreshedAt = session.refreshed_at ? Date.parse(`${session.refreshed_at}Z`) : 0
  const lastUse = Math.max(refreshedAt, Date.parse(token.updated_at))
  if (inactivity && now > lastUse + inactivity * 1000) throw refused('session_expired', 'Session Expired (Inactivity)')
}

async function addRefreshToken(tx: Transaction, userId: string, sessionId: string, parent: string | null) {
  const token = randomText(22)
  await tx`
    insert into auth.refresh_tokens (id, token, user_id, session_id, revoked, parent, created_at, updated_at)
    values (gen_random_uuid()::text, ${token}, ${userId}, ${sessionId}, false, ${parent}, clock_timestamp(), now())`
  return token
}

async function grant(
  auth: Auth,
  tx: Transaction,
  call: Call,
  user: User,
  sessionId: string,
  refreshToken: string,
  method: string,
): Promise<Grant> {
  const issuedAt = Math.floor(Date.now() / 1000)
  const expiresAt = issuedAt + auth.settings.jwt_expiry
  const methods = await tx<{ method: string; timestamp: number }[]>`
    select authentication_method as method, extract(epoch from created_at)::int as timestamp
    from auth.mfa_amr_claims where session_id = ${sessionId} order by created_at desc`
  const claims = await customClaims(
    auth,
    tx,
    call,
    {
      iss: auth.settings.issuer,
      sub: user.id,
      aud: user.aud,
      exp: expiresAt,
      iat: issuedAt,
      email: user.email ?? '',
      phone: user.phone ?? '',
      app_metadata: user.raw_app_meta_data ?? {},
      user_metadata: user.raw_user_meta_data ?? {},
      role: user.role,
      aal: 'aal1',
      amr: [...methods],
      session_id: sessionId,
      is_anonymous: user.is_anonymous,
    },
    method,
  )
  return {
    access_token: await auth.tokens.sign(claims),
    token_type: 'bearer',
    expires_in: auth.settings.jwt_expiry,
    expires_at: expiresAt,
    refresh_token: refreshToken,
    user: await presentUser(tx, user),
  }
}

export const endSessions = (
  tx: Transaction,
  userId: string,
  { except, only }: { except?: string; only?: string } = {},
) =>
  tx`
    delete from auth.sessions where user_id = ${userId}
    ${except ? tx`and id <> ${except}` : tx``} ${only ? tx`and id = ${only}` : tx``}`

/** Letters and digits of which nobody can guess one: 22 of them are 130 bits. */
export function randomText(length: number): string {
  const alphabet = 'abcdefghijklmnopqrstuvwxyz0123456789'
  const bytes = crypto.getRandomValues(new Uint8Array(length * 2))
  // 252 is the last multiple of 36 in a byte; what lies above would favour the first letters.
  const letters = [...bytes].filter((byte) => byte < 252).map((byte) => alphabet[byte % 36])
  return letters.length >= length ? letters.slice(0, length).join('') : randomText(length)
}
