import { createHash, randomInt } from 'node:crypto'
import type { Auth, Call, Transaction } from './context.ts'
import { AuthError } from './errors.ts'
import { redirectTarget } from './redirects.ts'
import { type User, updateUser } from './users.ts'

export type MailKind = 'signup' | 'invite' | 'magiclink' | 'recovery' | 'email_change' | 'reauthentication'

/** Which columns hold the proof that an e-mail of a kind was received, and when it was sent. */
export const columnsOf = {
  signup: ['confirmation_token', 'confirmation_sent_at'],
  invite: ['confirmation_token', 'confirmation_sent_at'],
  magiclink: ['recovery_token', 'recovery_sent_at'],
  recovery: ['recovery_token', 'recovery_sent_at'],
  email_change: ['email_change_token_new', 'email_change_sent_at'],
  reauthentication: ['reauthentication_token', 'reauthentication_sent_at'],
} as const

export interface Proof {
  /** The code that a person types. */
  code: string
  /** What the database keeps and a link carries. `pkce_` marks a link that ends in a code instead of tokens. */
  hash: string
}

export const hashOf = (email: string, code: string) =>
  createHash('sha224')
    .update(email + code)
    .digest('hex')

export function makeProof({ settings }: Auth, email: string, pkce = false): Proof {
  const length = settings.email.otp_length
  const code = String(randomInt(10 ** length)).padStart(length, '0')
  return { code, hash: `${pkce ? 'pkce_' : ''}${hashOf(email, code)}` }
}

export const isFresh = ({ settings }: Auth, sentAt: string | null) =>
  sentAt !== null && Date.now() <= Date.parse(sentAt) + settings.email.otp_expiry * 1000

/** The address that the link of an e-mail opens. */
export function actionLink({ settings }: Auth, kind: string, hash: string, target: string): string {
  const link = new URL(`${settings.issuer}/verify`)
  link.search = new URLSearchParams({ token: hash, type: kind, redirect_to: target }).toString()
  return link.toString()
}

/**
 * Sends the e-mail and remembers its proof. Both or neither: the caller's transaction is undone when the inbox does not
 * take the message, so nobody waits for one that will not come.
 */
export async function sendMail(
  auth: Auth,
  tx: Transaction,
  call: Call,
  user: User,
  kind: Exclude<MailKind, 'email_change'>,
  pkce = false,
): Promise<User> {
  const [token, sentAt] = columnsOf[kind]
  if (kind !== 'invite') checkFrequency(auth, user[sentAt])
  const proof = makeProof(auth, user.email!, pkce)
  await deliver(auth, call, kind, user.email!, proof)
  const now = new Date().toISOString()
  return updateUser(tx, user.id, {
    [token]: proof.hash,
    [sentAt]: now,
    ...(kind === 'invite' ? { invited_at: now } : {}),
  })
}

/** Asks the new address, and with `double_confirm_changes` the present one too, to confirm the change. */
export async function sendEmailChange(
  auth: Auth,
  tx: Transaction,
  call: Call,
  user: User,
  email: string,
  pkce: boolean,
) {
  checkFrequency(auth, user.email_change_sent_at)
  const next = makeProof(auth, email, pkce)
  const asksBoth = auth.settings.email.double_confirm_changes && user.email
  const current = asksBoth ? makeProof(auth, user.email!, pkce) : null
  await deliver(auth, call, 'email_change', email, next)
  if (current) await deliver(auth, call, 'email_change', user.email!, current)
  return updateUser(tx, user.id, {
    email_change: email,
    email_change_token_new: next.hash,
    email_change_token_current: current?.hash ?? '',
    email_change_sent_at: new Date().toISOString(),
    email_change_confirm_status: 0,
  })
}

function checkFrequency({ settings }: Auth, sentAt: string | null) {
  if (!sentAt) return
  const left = Date.parse(sentAt) + settings.email.max_frequency * 1000 - Date.now()
  if (left <= 0) return
  throw new AuthError(
    429,
    'over_email_send_rate_limit',
    `For security purposes, you can only request this after ${Math.ceil(left / 1000)} seconds.`,
  )
}

const TEMPLATES: Record<MailKind, { called: string; subject: string; says: string }> = {
  signup: { called: 'confirmation', subject: 'Confirm Your Signup', says: 'Follow this link to confirm your address' },
  invite: { called: 'invite', subject: 'You have been invited', says: 'Follow this link to accept the invitation' },
  magiclink: { called: 'magic link', subject: 'Your Magic Link', says: 'Follow this link to sign in' },
  recovery: { called: 'recovery', subject: 'Reset Your Password', says: 'Follow this link to reset your password' },
  email_change: {
    called: 'email change',
    subject: 'Confirm Email Change',
    says: 'Follow this link to confirm the change of your address',
  },
  reauthentication: { called: 'reauthentication', subject: 'Confirm Reauthentication', says: 'Enter the code' },
}

async function deliver(auth: Auth, call: Call, kind: MailKind, to: string, { code, hash }: Proof): Promise<void> {
  const { subject, says } = TEMPLATES[kind]
  const link =
    kind === 'reauthentication' ? null : actionLink(auth, kind, hash, redirectTarget(auth.settings, call.request))
  const message = {
    to,
    subject,
    text: `${says}${link ? `:\n\n${link}\n\nor enter the code` : ''}: ${code}\n`,
    html: `<h2>${subject}</h2>${link ? `<p><a href="${escapeHtml(link)}">${says}</a></p>` : ''}<p>Code: <b>${code}</b></p>`,
    kind,
    otp: code,
    token_hash: hash,
  }
  try {
    const response = await fetch(`http://127.0.0.1:${auth.stack.ports.sandbox}/inbox`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(message),
      signal: AbortSignal.timeout(5000),
    })
    await response.body?.cancel()
    if (!response.ok) throw new Error(`the inbox answered ${response.status}`)
  } catch (cause) {
    console.error(`auth: an e-mail of kind ${kind} was not delivered:`, cause)
    throw new AuthError(500, 'unexpected_failure', `Error sending ${TEMPLATES[kind].called} email`)
  }
}

const escapeHtml = (text: string) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`)
