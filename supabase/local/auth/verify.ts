import { z } from 'zod'
import {
  type Auth,
  type Call,
  checkEmail,
  type Handler,
  inTransaction,
  isStorable,
  type Transaction,
  text,
} from './context.ts'
import { AuthError, invalid, toAuthError } from './errors.ts'
import { createFlow, issueCode, readChallenge } from './flows.ts'
import { columnsOf, hashOf, isFresh, sendEmailChange, sendMail } from './mail.ts'
import { errorRedirect, redirect, redirectTarget, withParameters } from './redirects.ts'
import { type Grant, openSession } from './sessions.ts'
import { phoneDisabled } from './sign_in.ts'
import * as users from './users.ts'

type Kind = 'signup' | 'invite' | 'magiclink' | 'recovery' | 'email_change'

/** Shown when the first of two addresses has confirmed a change. */
const ONE_OF_TWO = 'Confirmation link accepted. Please proceed to confirm link sent to the other email'

const verifyBody = z.object({ type: text, token: text, token_hash: text, email: text, phone: text, redirect_to: text })

/** `POST /verify`: the code of an e-mail, or the hash out of its link, for a session. */
export const verify: Handler = async (auth, call) => {
  const body = await call.read(verifyBody)
  if (!body.type) throw invalid('Verify requires a verification type')
  if (body.phone || body.type === 'sms' || body.type === 'phone_change')
    throw phoneDisabled('Unsupported phone provider')
  if (Boolean(body.token) === Boolean(body.token_hash)) throw invalid('Verify requires either a token or a token hash')
  if (body.token && !body.email) throw invalid('Only an email address or phone number should be provided on verify')
  if (body.token_hash && (body.email || body.redirect_to)) {
    throw invalid('Only the token_hash and type should be provided')
  }
  const email = body.token ? checkEmail(body.email) : null
  const grant = await inTransaction(auth, async (tx) => {
    const hash = email ? hashOf(email, body.token) : body.token_hash
    const { user } = await consume(auth, tx, body.type, hash, email)
    return user && openSession(auth, tx, call, user, 'otp')
  })
  return Response.json(grant ?? { msg: ONE_OF_TWO, code: '200' })
}

/** `GET /verify`: the link of an e-mail. Ends at an allowed address with tokens in the fragment, or with a PKCE code. */
export const followLink: Handler = async (auth, call) => {
  const { token = '', type = '' } = Object.fromEntries(call.url.searchParams)
  if (!type) throw invalid('Verify requires a verification type')
  if (!token) throw invalid('Verify requires a token or a token hash')
  const target = redirectTarget(auth.settings, call.request)
  const pkce = token.startsWith('pkce_')
  try {
    if (!isStorable(token)) throw invalid('Verify requires a token or a token hash')
    const location = await inTransaction(auth, async (tx) => {
      const { user, kind } = await consume(auth, tx, type, token, null)
      if (!user) return withParameters(target, pkce ? { message: ONE_OF_TWO } : {}, { message: ONE_OF_TWO })
      if (pkce)
        return withParameters(target, { code: await issueCode(tx, user.id, kind === 'signup' ? 'email/signup' : kind) })
      return withParameters(target, {}, tokensOf(await openSession(auth, tx, call, user, 'otp'), { type: kind }))
    })
    return redirect(location)
  } catch (error) {
    return redirect(errorRedirect(target, toAuthError(error), pkce))
  }
}

/** A session as the fragment of a redirect carries it. */
export const tokensOf = (grant: Grant, extra: Record<string, string>) => ({
  ...extra,
  access_token: grant.access_token,
  token_type: grant.token_type,
  expires_in: String(grant.expires_in),
  expires_at: String(grant.expires_at),
  refresh_token: grant.refresh_token,
})

/** Where proofs of a type are kept. `email` stands for whatever the person was last sent. */
const KINDS: Record<string, Kind[]> = {
  signup: ['signup'],
  invite: ['invite'],
  magiclink: ['magiclink'],
  recovery: ['recovery'],
  email: ['signup', 'magiclink'],
  email_change: ['email_change'],
}

/** Finds whose proof this is and applies it; it works once. No user means that another confirmation is still missing. */
async function consume(
  auth: Auth,
  tx: Transaction,
  type: string,
  hash: string,
  email: string | null,
): Promise<{ user: users.User | null; kind: Kind }> {
  const kinds = Object.hasOwn(KINDS, type) ? KINDS[type]! : null
  if (!kinds) throw invalid(email ? 'Unsupported verification type' : 'Invalid email verification type')
  const why = email ? 'Token has expired or is invalid' : 'Email link is invalid or has expired'
  const expired = new AuthError(403, 'otp_expired', why)
  // A typed code may belong to a proof whose link is for PKCE clients.
  const hashes = email ? [hash, `pkce_${hash}`] : [hash]

  for (const kind of kinds) {
    const [user] = await findByProof(tx, kind, hashes, email)
    if (!user) continue
    if (users.isBanned(user)) throw new AuthError(403, 'user_banned', 'User is banned')
    if (!isFresh(auth, user[columnsOf[kind][1]])) throw expired
    return { kind, user: await apply(auth, tx, kind, user, hashes) }
  }
  throw expired
}

/** The row is locked, so of two that bring the same proof at once the second finds it used. */
function findByProof(tx: Transaction, kind: Kind, hashes: string[], email: string | null): Promise<users.User[]> {
  const among = (column: string) => tx`${tx(column)} = any (${hashes})`
  const proof =
    kind === 'email_change'
      ? tx`(${among('email_change_token_new')} or ${among('email_change_token_current')})`
      : among(columnsOf[kind][0])
  const address =
    email && kind === 'email_change'
      ? tx`and ${email} in (email, email_change)`
      : email
        ? tx`and email = ${email}`
        : tx``
  return tx<users.User[]>`select * from auth.users where ${proof} ${address} and not is_sso_user limit 1 for update`
}

async function apply(
  auth: Auth,
  tx: Transaction,
  kind: Kind,
  user: users.User,
  hashes: string[],
): Promise<users.User | null> {
  if (kind === 'email_change') return confirmChange(auth, tx, user, hashes)
  if (kind === 'signup' || kind === 'invite') {
    await tx`
      update auth.identities set identity_data = identity_data || '{"email_verified": true}', updated_at = now()
      where user_id = ${user.id} and email = ${user.email}`
    return users.confirmEmail(tx, user)
  }
  const used = await users.updateUser(tx, user.id, { recovery_token: '' })
  return used.email_confirmed_at ? used : users.confirmEmail(tx, used)
}

async function confirmChange(
  auth: Auth,
  tx: Transaction,
  user: users.User,
  hashes: string[],
): Promise<users.User | null> {
  const asksBoth = auth.settings.email.double_confirm_changes && user.email && user.email_change_token_current
  if (asksBoth && user.email_change_confirm_status === 0) {
    const isCurrent = hashes.includes(user.email_change_token_current!)
    const used = isCurrent ? 'email_change_token_current' : 'email_change_token_new'
    await users.updateUser(tx, user.id, { email_change_confirm_status: 1, [used]: '' })
    return null
  }
  return applyEmailChange(tx, user, user.email_change!)
}

/** Makes the new address the account's own. */
export async function applyEmailChange(tx: Transaction, user: users.User, email: string): Promise<users.User> {
  const changed = await users.updateUser(tx, user.id, {
    email,
    is_anonymous: false,
    email_change: '',
    email_change_token_new: '',
    email_change_token_current: '',
    email_change_confirm_status: 0,
  })
  await users.setEmailIdentity(tx, user.id, email, true)
  const confirmed = changed.email_confirmed_at ? changed : await users.confirmEmail(tx, changed)
  return users.refreshProviders(tx, confirmed)
}

const recoverBody = z.object({ email: text, code_challenge: text, code_challenge_method: text })

/** `POST /recover`: an e-mail that lets its reader set a new password. The answer is the same for unknown addresses. */
export const recover: Handler = async (auth, call) => {
  const body = await call.read(recoverBody)
  if (!body.email) throw invalid('Password recovery requires an email')
  const challenge = readChallenge(body.code_challenge, body.code_challenge_method)
  const email = checkEmail(body.email)
  await inTransaction(auth, async (tx) => {
    const user = await users.findByEmail(tx, email, true)
    if (!user) return
    if (challenge) await createFlow(tx, { provider: 'recovery', method: 'recovery', challenge, userId: user.id })
    await sendMail(auth, tx, call, user, 'recovery', challenge !== null)
  })
  return Response.json({})
}

const resendBody = z.object({ type: text, email: text, phone: text, code_challenge: text, code_challenge_method: text })

/** `POST /resend`: the confirmation e-mail once more. */
export const resend: Handler = async (auth, call) => {
  const body = await call.read(resendBody)
  if (body.phone || body.type === 'sms' || body.type === 'phone_change')
    throw phoneDisabled('Phone logins are disabled')
  if (body.type !== 'signup' && body.type !== 'email_change') {
    throw invalid('Missing one of these types: signup, email_change, sms, phone_change')
  }
  if (!body.email) throw invalid('Type provided requires an email address')
  const challenge = readChallenge(body.code_challenge, body.code_challenge_method)
  const email = checkEmail(body.email)
  await inTransaction(auth, async (tx) => {
    const user = await users.findByEmail(tx, email, true)
    if (!user || (body.type === 'signup' ? user.email_confirmed_at : !user.email_change)) return
    await sendAgain(auth, tx, call, user, body.type as 'signup' | 'email_change', challenge)
  })
  return Response.json({})
}

async function sendAgain(
  auth: Auth,
  tx: Transaction,
  call: Call,
  user: users.User,
  type: 'signup' | 'email_change',
  challenge: ReturnType<typeof readChallenge>,
) {
  const method = type === 'signup' ? 'email/signup' : type
  if (challenge) await createFlow(tx, { provider: method, method, challenge, userId: user.id })
  if (type === 'signup') await sendMail(auth, tx, call, user, 'signup', challenge !== null)
  else await sendEmailChange(auth, tx, call, user, user.email_change!, challenge !== null)
}
