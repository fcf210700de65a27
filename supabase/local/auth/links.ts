import { z } from 'zod'
import {
  type Auth,
  type Call,
  checkEmail,
  type Handler,
  inTransaction,
  metadata,
  type Transaction,
  text,
} from './context.ts'
import { AuthError, invalid } from './errors.ts'
import { actionLink, columnsOf, makeProof, type Proof, sendMail } from './mail.ts'
import { checkPassword } from './passwords.ts'
import { redirectTarget } from './redirects.ts'
import { createEmailUser } from './sign_in.ts'
import * as users from './users.ts'

const inviteBody = z.object({ email: text, data: metadata.nullish() })

/** `POST /invite`: an account, and an e-mail to its owner. */
export const invite: Handler = async (auth, call) => {
  const body = await call.read(inviteBody)
  const email = checkEmail(body.email)
  const invited = await inTransaction(auth, async (tx) => {
    const user = await ensureUnconfirmed(auth, tx, call, email, null, body.data ?? {})
    return users.presentUser(tx, await sendMail(auth, tx, call, user, 'invite'))
  })
  return Response.json(invited)
}

async function ensureUnconfirmed(
  auth: Auth,
  tx: Transaction,
  call: Call,
  email: string,
  passwordHash: string | null,
  data: z.infer<typeof metadata>,
): Promise<users.User> {
  const user = await users.findByEmail(tx, email, true)
  if (user?.email_confirmed_at) throw users.emailExists()
  return user ?? createEmailUser(auth, tx, call, email, passwordHash, data, users.emailExists())
}

const linkBody = z.object({
  type: z.enum(['signup', 'invite', 'magiclink', 'recovery', 'email_change_current', 'email_change_new']),
  email: text,
  new_email: text,
  password: text,
  data: metadata.nullish(),
  redirect_to: text,
})

/** `POST /admin/generate_link`: what an e-mail would hold, for those who send it themselves. */
export const generateLink: Handler = async (auth, call) => {
  const body = await call.read(linkBody)
  const email = checkEmail(body.email)
  const target = redirectTarget(auth.settings, call.request, body.redirect_to)
  if (body.type === 'signup' && !body.password) throw invalid('Signup requires a valid password')
  if (body.password) checkPassword(auth.settings, body.password)
  const passwordHash = body.password ? await auth.passwords.hash(body.password) : null

  const answer = await inTransaction(auth, async (tx) => {
    const proof = makeProof(auth, email)
    const now = new Date().toISOString()
    let type: string = body.type
    let user = await users.findByEmail(tx, email, true)
    if (type === 'magiclink' && !user) type = 'signup'
    if (type === 'signup' || type === 'invite') {
      user = await ensureUnconfirmed(auth, tx, call, email, passwordHash, body.data ?? {})
    }
    if (!user) throw new AuthError(404, 'user_not_found', 'User with this email not found')

    let shown = proof
    if (type === 'email_change_current' || type === 'email_change_new') {
      shown = await changeProof(auth, tx, user, type, checkEmail(body.new_email), proof)
    } else {
      const [token, sentAt] = columnsOf[type as keyof typeof columnsOf]
      const invitedAt = type === 'invite' ? { invited_at: now } : {}
      user = await users.updateUser(tx, user.id, { [token]: proof.hash, [sentAt]: now, ...invitedAt })
    }
    const verification = type.startsWith('email_change') ? 'email_change' : type
    return {
      ...(await users.presentUser(tx, (await users.findById(tx, user.id))!)),
      action_link: actionLink(auth, verification, shown.hash, target),
      email_otp: shown.code,
      hashed_token: shown.hash,
      verification_type: type,
      redirect_to: target,
    }
  })
  return Response.json(answer)
}

/** Each of the two addresses of a change has a proof of its own; asking for the second keeps the first. */
async function changeProof(
  auth: Auth,
  tx: Transaction,
  user: users.User,
  type: 'email_change_current' | 'email_change_new',
  newEmail: string,
  proof: Proof,
): Promise<Proof> {
  if (type === 'email_change_current' && !auth.settings.email.double_confirm_changes) {
    throw invalid('Enable secure email change to generate link for current email')
  }
  if (await users.findByEmail(tx, newEmail)) throw users.emailExists()
  const shown = type === 'email_change_new' ? makeProof(auth, newEmail) : proof
  const column = type === 'email_change_new' ? 'email_change_token_new' : 'email_change_token_current'
  await users.updateUser(tx, user.id, {
    email_change: newEmail,
    email_change_sent_at: new Date().toISOString(),
    email_change_confirm_status: 0,
    [column]: shown.hash,
  })
  return shown
}
