import { z } from 'zod'
import { TokenError } from '../gateway/tokens.ts'
import {
  type Auth,
  type Call,
  checkEmail,
  type Handler,
  inTransaction,
  metadata,
  type Sql,
  type Transaction,
  text,
} from './context.ts'
import { AuthError, invalid } from './errors.ts'
import { createFlow, readChallenge } from './flows.ts'
import { hashOf, isFresh, sendEmailChange, sendMail } from './mail.ts'
import { checkPassword } from './passwords.ts'
import { endSessions, type Session } from './sessions.ts'
import { phoneDisabled } from './sign_in.ts'
import * as users from './users.ts'
import { applyEmailChange } from './verify.ts'

const UUID = /^[\da-f]{8}-[\da-f]{4}-[\da-f]{4}-[\da-f]{4}-[\da-f]{12}$/i

export const isUuid = (text: string) => UUID.test(text)

/** Claims of the caller's bearer: a user's token, or what a key of the project stands for. */
export async function readBearer({ tokens }: Auth, { request, url }: Call) {
  const header = request.headers.get('authorization')
  const apikey = request.headers.get('apikey') ?? url.searchParams.get('apikey')
  const bearer = header === null ? apikey : /^Bearer (\S+)$/i.exec(header)?.[1]
  if (!bearer) throw new AuthError(401, 'no_authorization', 'This endpoint requires a valid Bearer token')
  // A key counts where the gateway has checked it, and as bearer only because clients repeat it there.
  const key = bearer === apikey && tokens.keyClaims(bearer)
  if (key) return key
  try {
    return await tokens.verify(bearer)
  } catch (error) {
    if (!(error instanceof TokenError)) throw error
    throw new AuthError(403, 'bad_jwt', `invalid JWT: unable to parse or verify signature, ${error.message}`)
  }
}

/** The person behind the bearer and the session it was issued in. Both must still exist, whatever the token says. */
export async function requireUser(auth: Auth, call: Call): Promise<{ user: users.User; session: Session }> {
  const { sub, session_id: sessionId } = await readBearer(auth, call)
  if (!sub) throw new AuthError(403, 'bad_jwt', 'invalid claim: missing sub claim')
  const found = await load(auth.sql, sub, String(sessionId ?? ''))
  if (!found.user) throw new AuthError(403, 'user_not_found', 'User from sub claim in JWT does not exist')
  if (!found.session) {
    throw new AuthError(403, 'session_not_found', 'Session from session_id claim in JWT does not exist')
  }
  return { user: found.user, session: found.session }
}

async function load(sql: Sql | Transaction, userId: string, sessionId: string) {
  if (!isUuid(userId) || !isUuid(sessionId)) throw new AuthError(403, 'bad_jwt', 'invalid claim: ids must be UUIDs')
  const [session] = await sql<Session[]>`select * from auth.sessions where id = ${sessionId} and user_id = ${userId}`
  return { user: await users.findById(sql, userId), session }
}

export const getUser: Handler = async (auth, call) => {
  const { user } = await requireUser(auth, call)
  return Response.json(await users.presentUser(auth.sql, user))
}

const updateBody = z.object({
  email: text,
  phone: text,
  password: z.string().nullish(),
  nonce: text,
  data: metadata.nullish(),
  app_metadata: metadata.nullish(),
  code_challenge: text,
  code_challenge_method: text,
})

/** `PUT /user`: new password, address or metadata. A new password ends every other session. */
export const updateUser: Handler = async (auth, call) => {
  const { user: caller, session } = await requireUser(auth, call)
  const body = await call.read(updateBody)
  if (body.app_metadata) throw new AuthError(403, 'not_admin', 'Updating app_metadata requires admin privileges')
  if (body.phone) throw phoneDisabled('Unsupported phone provider')
  const email = body.email ? checkEmail(body.email) : ''
  const challenge = readChallenge(body.code_challenge, body.code_challenge_method)
  const passwordHash = body.password ? await newPassword(auth, caller, body.password, email) : null
  if (body.password === '') checkPassword(auth.settings, '')

  const updated = await inTransaction(auth, async (tx) => {
    let user = (await users.findById(tx, caller.id, true))!
    if (passwordHash) {
      checkNonce(auth, user, session, body.nonce)
      user = await users.updateUser(tx, user.id, {
        encrypted_password: passwordHash,
        reauthentication_token: '',
        recovery_token: '',
      })
      await endSessions(tx, user.id, { except: session.id })
    }
    if (body.data) user = await users.mergeUserData(tx, user, body.data)
    if (email && email !== user.email) user = await changeEmail(auth, tx, call, user, email, challenge)
    return users.presentUser(tx, user)
  })
  return Response.json(updated)
}

async function newPassword(auth: Auth, user: users.User, password: string, email: string): Promise<string> {
  checkPassword(auth.settings, password)
  if (user.is_anonymous && !email) {
    const message = 'Updating password of an anonymous user without an email or phone is not allowed'
    throw new AuthError(422, 'validation_failed', message)
  }
  if (await auth.passwords.matches(password, user.encrypted_password)) {
    throw new AuthError(422, 'same_password', 'New password should be different from the old password.')
  }
  return auth.passwords.hash(password)
}

/** With `secure_password_change`, a session older than a day needs the code of `GET /reauthenticate` too. */
function checkNonce(auth: Auth, user: users.User, session: Session, nonce: string) {
  if (!auth.settings.email.secure_password_change || Date.now() < Date.parse(session.created_at) + 24 * 3_600_000)
    return
  if (!nonce) throw new AuthError(400, 'reauthentication_needed', 'Password update requires reauthentication')
  const isRight = user.email && user.reauthentication_token === hashOf(user.email, nonce)
  if (!isRight || !isFresh(auth, user.reauthentication_sent_at)) {
    throw new AuthError(422, 'reauthentication_not_valid', 'Nonce has expired or is invalid')
  }
}

async function changeEmail(
  auth: Auth,
  tx: Transaction,
  call: Call,
  user: users.User,
  email: string,
  challenge: ReturnType<typeof readChallenge>,
): Promise<users.User> {
  if (await users.findByEmail(tx, email)) throw users.emailExists()
  // Somebody anonymous who gives an address signs up with it; everybody else confirms a change.
  if (user.is_anonymous && !auth.settings.email.enable_confirmations) return applyEmailChange(tx, user, email)
  if (challenge) await createFlow(tx, { provider: 'email_change', method: 'email_change', challenge, userId: user.id })
  return sendEmailChange(auth, tx, call, user, email, challenge !== null)
}

/** `GET /reauthenticate`: sends the code that a change of password may need. */
export const reauthenticate: Handler = async (auth, call) => {
  const { user } = await requireUser(auth, call)
  if (!user.email) throw invalid('Reauthentication requires the user to have an email or a phone number')
  if (!user.email_confirmed_at) throw new AuthError(422, 'email_not_confirmed', 'Please verify your email first.')
  await inTransaction(auth, async (tx) => {
    await sendMail(auth, tx, call, (await users.findById(tx, user.id, true))!, 'reauthentication')
  })
  return Response.json({})
}

/** `POST /logout`: ends this session, the others, or all. */
export const signOut: Handler = async (auth, call) => {
  const { user, session } = await requireUser(auth, call)
  const scope = call.url.searchParams.get('scope') || 'global'
  const scopes: Record<string, object> = { global: {}, local: { only: session.id }, others: { except: session.id } }
  if (!Object.hasOwn(scopes, scope)) throw invalid(`Unsupported logout scope "${scope}"`)
  await inTransaction(auth, (tx) => endSessions(tx, user.id, scopes[scope]))
  return new Response(null, { status: 204 })
}

/** `DELETE /user/identities/<id>`: takes one of several ways to sign in away. */
export const unlinkIdentity: Handler = async (auth, call) => {
  if (!auth.settings.enable_manual_linking) {
    throw new AuthError(404, 'manual_linking_disabled', 'Manual linking is disabled')
  }
  const { user } = await requireUser(auth, call)
  const id = call.params.id!
  if (!isUuid(id)) throw new AuthError(404, 'validation_failed', 'identity_id must be an UUID')
  await inTransaction(auth, async (tx) => {
    const owner = (await users.findById(tx, user.id, true))!
    const identities = await users.findIdentities(tx, owner.id)
    const unlinked = identities.find((identity) => identity.id === id)
    if (identities.length <= 1) {
      throw new AuthError(422, 'single_identity_not_deletable', 'User must have at least 1 identity after unlinking')
    }
    if (!unlinked) throw new AuthError(422, 'identity_not_found', "Identity doesn't exist")
    await tx`delete from auth.identities where id = ${id}`
    const left = identities.filter((identity) => identity.id !== id)
    // The account's address is one that an identity stands for.
    const email = left.some((identity) => identity.email === owner.email) ? owner.email : left[0]!.email
    await users.refreshProviders(tx, await users.updateUser(tx, owner.id, { email }))
  })
  return Response.json({})
}
