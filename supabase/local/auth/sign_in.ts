import { z } from 'zod'
import type { Auth, Transaction } from './context.ts'
import { type Call, checkEmail, flag, type Handler, inTransaction, type Metadata, metadata, text } from './context.ts'
import { AuthError, invalid } from './errors.ts'
import { createFlow, exchangeCode, readChallenge } from './flows.ts'
import { beforeUserCreated } from './hooks.ts'
import { sendMail } from './mail.ts'
import { checkPassword } from './passwords.ts'
import { openSession, refresh } from './sessions.ts'
import * as users from './users.ts'

const signUpBody = z.object({
  email: text,
  phone: text,
  password: text,
  data: metadata.nullish(),
  code_challenge: text,
  code_challenge_method: text,
})

/** `POST /signup`: a new account, and at once a session when addresses need no confirmation. */
export const signUp: Handler = async (auth, call) => {
  const { settings } = auth
  if (!settings.enable_signup) throw signUpDisabled()
  const body = await call.read(signUpBody)
  if (!body.email && !body.phone) return signUpAnonymously(auth, call, body.data ?? {})
  if (!body.password) throw invalid('Signup requires a valid password')
  checkPassword(settings, body.password)
  if (body.email && body.phone) throw invalid('Only an email address or phone number should be provided on signup.')
  if (body.phone) throw phoneDisabled('Phone signups are disabled')
  if (!settings.email.enable_signup) throw emailDisabled(400, 'Email signups are disabled')
  const challenge = readChallenge(body.code_challenge, body.code_challenge_method)
  const email = checkEmail(body.email)
  const autoconfirm = !settings.email.enable_confirmations

  // Whether an address has an account is nobody's business: the answer then looks like that to a new one.
  const known = () => {
    if (autoconfirm) throw alreadyRegistered()
    return disguise(email, body.data ?? {})
  }
  if ((await users.findByEmail(auth.sql, email))?.email_confirmed_at) return Response.json(known())
  const passwordHash = await auth.passwords.hash(body.password)

  const answer = await inTransaction(auth, async (tx) => {
    let user = await users.findByEmail(tx, email, true)
    if (user?.email_confirmed_at) return known()
    const isNew = !user
    user ??= await createEmailUser(auth, tx, call, email, passwordHash, body.data ?? {})
    if (autoconfirm) {
      // Whoever made the unconfirmed account has proven nothing either: this password becomes its only one.
      if (!isNew) user = await users.updateUser(tx, user.id, { encrypted_password: passwordHash })
      user = await users.confirmEmail(tx, user)
      return openSession(auth, tx, call, user, 'password')
    }
    if (challenge) await createFlow(tx, { provider: 'email', method: 'email/signup', challenge, userId: user.id })
    return users.presentUser(tx, await sendMail(auth, tx, call, user, 'signup', challenge !== null))
  })
  return Response.json(answer)
}

/** Adds an unconfirmed account with its e-mail identity. */
export async function createEmailUser(
  auth: Auth,
  tx: Transaction,
  call: Call,
  email: string,
  passwordHash: string | null,
  data: Metadata,
  refusal = alreadyRegistered(),
): Promise<users.User> {
  const fresh: users.NewUser = { email, passwordHash, data, provider: 'email' }
  await beforeUserCreated(auth, tx, call, {
    email,
    role: 'authenticated',
    aud: 'authenticated',
    app_metadata: { provider: 'email', providers: ['email'] },
    user_metadata: data,
    is_anonymous: false,
  })
  const user = await users.createUser(tx, fresh, refusal)
  await users.addIdentity(tx, user.id, 'email', { ...data, ...users.emailIdentity(user.id, email) })
  return user
}

async function signUpAnonymously(auth: Auth, call: Call, data: Metadata): Promise<Response> {
  if (!auth.settings.enable_anonymous_sign_ins) {
    throw new AuthError(422, 'anonymous_provider_disabled', 'Anonymous sign-ins are disabled')
  }
  const grant = await inTransaction(auth, async (tx) => {
    await beforeUserCreated(auth, tx, call, { role: 'authenticated', user_metadata: data, is_anonymous: true })
    const fresh = { email: null, passwordHash: null, data, provider: null }
    const user = await users.createUser(tx, fresh, alreadyRegistered())
    return openSession(auth, tx, call, user, 'anonymous')
  })
  return Response.json(grant)
}

function disguise(email: string, data: Metadata) {
  const now = new Date().toISOString()
  return {
    id: crypto.randomUUID(),
    aud: 'authenticated',
    role: '',
    email,
    phone: '',
    confirmation_sent_at: now,
    app_metadata: { provider: 'email', providers: ['email'] },
    user_metadata: data,
    identities: [],
    created_at: now,
    updated_at: now,
    is_anonymous: false,
  }
}

const passwordBody = z.object({ email: text, phone: text, password: text })

const signInWithPassword: Handler = async (auth, call) => {
  const { email, phone, password } = await call.read(passwordBody)
  if (email && phone) throw invalid('Only an email address or phone number should be provided on login.')
  if (phone) throw phoneDisabled('Phone logins are disabled', 422)
  if (!email) throw invalid('missing email or phone')
  if (!auth.settings.email.enable_signup) throw emailDisabled(422, 'Email logins are disabled')
  const wrong = new AuthError(400, 'invalid_credentials', 'Invalid login credentials')

  const user = await users.findByEmail(auth.sql, email.toLowerCase())
  if (!user?.encrypted_password) throw wrong
  if (users.isBanned(user)) throw new AuthError(400, 'user_banned', 'User is banned')
  if (!(await auth.passwords.matches(password, user.encrypted_password))) throw wrong
  if (!user.email_confirmed_at) throw new AuthError(400, 'email_not_confirmed', 'Email not confirmed')

  const grant = await inTransaction(auth, async (tx) => {
    // Comparing took a while: what was compared must still be the password when the session begins.
    const current = await users.findById(tx, user.id, true)
    if (current?.encrypted_password !== user.encrypted_password) throw wrong
    return openSession(auth, tx, call, current, 'password')
  })
  return Response.json(grant)
}

const refreshBody = z.object({ refresh_token: text })

const refreshSession: Handler = async (auth, call) => {
  const { refresh_token: token } = await call.read(refreshBody)
  if (!token) throw invalid('refresh_token required')
  const grant = await inTransaction(auth, (tx) => refresh(auth, tx, call, token))
  if (grant instanceof AuthError) throw grant
  return Response.json(grant)
}

/** `POST /token?grant_type=…` */
export const token: Handler = (auth, call) => {
  const grants: Record<string, Handler> = {
    password: signInWithPassword,
    refresh_token: refreshSession,
    pkce: exchangeCode,
  }
  const grantType = call.url.searchParams.get('grant_type') ?? ''
  if (['id_token', 'web3'].includes(grantType)) {
    throw new AuthError(400, 'provider_disabled', `Sign-in by ${grantType} is not available on the local stack`)
  }
  const handler = Object.hasOwn(grants, grantType) ? grants[grantType]! : null
  if (!handler) throw new AuthError(400, 'invalid_credentials', 'unsupported_grant_type')
  return handler(auth, call)
}

const otpBody = z.object({
  email: text,
  phone: text,
  create_user: flag.default(true),
  data: metadata.nullish(),
  code_challenge: text,
  code_challenge_method: text,
})

/** `POST /otp` and `/magiclink`: an e-mail with a link and a code that sign in; makes the account when there is none. */
export const signInByEmail: Handler = async (auth, call) => {
  const { settings } = auth
  const body = await call.read(otpBody)
  if (body.email && body.phone) throw invalid('Only an email address or phone number should be provided')
  if (body.phone) throw phoneDisabled('Unsupported phone provider')
  if (!body.email) throw invalid('One of email or phone must be set')
  if (!settings.email.enable_signup) throw emailDisabled(422, 'Email logins are disabled')
  const challenge = readChallenge(body.code_challenge, body.code_challenge_method)
  const email = checkEmail(body.email)

  await inTransaction(auth, async (tx) => {
    let user = await users.findByEmail(tx, email, true)
    if (!user) {
      if (!body.create_user) throw new AuthError(422, 'otp_disabled', 'Signups not allowed for otp')
      if (!settings.enable_signup) throw signUpDisabled()
      user = await createEmailUser(auth, tx, call, email, null, body.data ?? {})
    }
    if (!user.email_confirmed_at && !settings.email.enable_confirmations) user = await users.confirmEmail(tx, user)
    const kind = user.email_confirmed_at ? 'magiclink' : 'signup'
    if (challenge) {
      const method = kind === 'signup' ? 'email/signup' : kind
      await createFlow(tx, { provider: kind, method, challenge, userId: user.id })
    }
    await sendMail(auth, tx, call, user, kind, challenge !== null)
  })
  return Response.json({})
}

const alreadyRegistered = () => new AuthError(422, 'user_already_exists', 'User already registered')
const signUpDisabled = () => new AuthError(422, 'signup_disabled', 'Signups not allowed for this instance')
const emailDisabled = (status: number, message: string) => new AuthError(status, 'email_provider_disabled', message)
export const phoneDisabled = (message: string, status = 400) =>
  new AuthError(status, 'phone_provider_disabled', message)
