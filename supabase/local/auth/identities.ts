import { type Auth, type Call, checkEmail, isStorable, type Metadata, type Transaction } from './context.ts'
import { AuthError } from './errors.ts'
import type { Flow } from './flows.ts'
import { beforeUserCreated } from './hooks.ts'
import { sendMail } from './mail.ts'
import type { Profile } from './providers.ts'
import * as users from './users.ts'

interface Address {
  email: string
  verified: boolean
}

/**
 * The account that a provider's word stands for: the one that has this identity, else the one that has a verified
 * address of it, else a new one. Only an address that the provider has verified ever joins two accounts. A refusal that
 * must leave its trace (a confirmation e-mail was sent) is returned, not thrown.
 */
export async function signInAs(
  auth: Auth,
  tx: Transaction,
  call: Call,
  flow: Flow,
  profile: Profile,
): Promise<users.User | AuthError> {
  const provider = flow.provider_type
  const address = readAddress(profile)
  const data = describe(profile, address)
  // Callbacks for one person take turns, through whichever providers they come, so that all see the same account.
  for (const name of [`${provider}:${profile.subject}`, `email:${address?.email ?? ''}`]) {
    await tx`select pg_advisory_xact_lock(hashtextextended(${name}, 0))`
  }
  if (flow.linking_target_id) return link(tx, flow.linking_target_id, provider, profile.subject, data)

  const known = await findByIdentity(tx, provider, profile.subject)
  if (known) return refreshed(tx, known, provider, profile.subject, data)
  const emailOptional = auth.settings.external[provider]!.email_optional
  if (!address && !emailOptional) {
    throw new AuthError(500, 'unexpected_failure', 'Error getting user email from external provider')
  }
  const owner = await findByVerified(tx, profile)
  return owner ? join(tx, owner, provider, data) : create(auth, tx, call, provider, data, address)
}

function readAddress({ emails }: Profile): Address | null {
  const chosen = emails.find(({ primary }) => primary) ?? emails.at(-1)
  return chosen ? { email: checkEmail(chosen.email), verified: chosen.verified } : null
}

function describe({ claims }: Profile, address: Address | null): Metadata {
  const texts = Object.entries(claims).filter(([, value]) => typeof value !== 'string' || isStorable(value))
  const data: Metadata = { ...Object.fromEntries(texts), email_verified: address?.verified ?? false }
  return address ? { ...data, email: address.email } : data
}

async function findByIdentity(tx: Transaction, provider: string, subject: string): Promise<users.User | undefined> {
  const [user] = await tx<users.User[]>`
    select u.* from auth.identities i join auth.users u on u.id = i.user_id
    where i.provider = ${provider} and i.provider_id = ${subject} for update of u`
  return user
}

async function findByVerified(tx: Transaction, { emails }: Profile): Promise<users.User | null> {
  const verified = emails.filter((email) => email.verified).map(({ email }) => email.toLowerCase())
  const found = await tx<users.User[]>`
    select * from auth.users where email = any (${verified}) and not is_sso_user order by id for update`
  if (found.length > 1) {
    const message = 'Multiple accounts with the same email address in the same linking domain detected: default'
    throw new AuthError(500, 'unexpected_failure', message)
  }
  return found[0] ?? null
}

async function refreshed(tx: Transaction, user: users.User, provider: string, subject: string, data: Metadata) {
  if (users.isBanned(user)) throw banned()
  await tx`
    update auth.identities set identity_data = ${tx.json(data)}, last_sign_in_at = now(), updated_at = now()
    where provider = ${provider} and provider_id = ${subject}`
  return users.refreshProviders(tx, await users.mergeUserData(tx, user, data))
}

/** Adds the identity to the account that owns its verified address. */
async function join(tx: Transaction, owner: users.User, provider: string, data: Metadata): Promise<users.User> {
  if (users.isBanned(owner)) throw banned()
  let user = owner
  if (!owner.email_confirmed_at) {
    // Whoever made this account never proved the address: their password and identities must not open it.
    await tx`delete from auth.identities where user_id = ${owner.id}`
    await tx`delete from auth.sessions where user_id = ${owner.id}`
    user = await users.updateUser(tx, owner.id, { encrypted_password: null, raw_user_meta_data: {} })
    user = await users.confirmEmail(tx, user)
  }
  await users.addIdentity(tx, user.id, provider, data)
  return users.refreshProviders(tx, await users.mergeUserData(tx, user, data))
}

async function create(
  auth: Auth,
  tx: Transaction,
  call: Call,
  provider: string,
  data: Metadata,
  address: Address | null,
): Promise<users.User | AuthError> {
  if (!auth.settings.enable_signup) {
    throw new AuthError(422, 'signup_disabled', 'Signups not allowed for this instance')
  }
  const email = address?.email ?? null
  if (email && (await users.findByEmail(tx, email)))
    throw unverified(provider, `Verify the email with ${provider} in order to sign in`)
  const appData = { provider, providers: [provider] }
  await beforeUserCreated(auth, tx, call, { email, app_metadata: appData, user_metadata: data, is_anonymous: false })
  const fresh: users.NewUser = { email, passwordHash: null, data, provider }
  const user = await users.createUser(
    tx,
    fresh,
    unverified(provider, `Verify the email with ${provider} in order to sign in`),
  )
  await users.addIdentity(tx, user.id, provider, data)
  if (!email) return user
  if (address!.verified || !auth.settings.email.enable_confirmations) return users.confirmEmail(tx, user)
  await sendMail(auth, tx, call, user, 'signup')
  return unverified(provider, `A confirmation email has been sent to your ${provider} email`)
}

/** Adds a provider to the account of somebody who is signed in. */
async function link(
  tx: Transaction,
  userId: string,
  provider: string,
  subject: string,
  data: Metadata,
): Promise<users.User> {
  const user = await users.findById(tx, userId, true)
  if (!user) throw new AuthError(422, 'user_not_found', 'Linking target user not found')
  if (users.isBanned(user)) throw banned()
  const owner = await findByIdentity(tx, provider, subject)
  if (owner) {
    const message = owner.id === userId ? 'Identity is already linked' : 'Identity is already linked to another user'
    throw new AuthError(422, 'identity_already_exists', message)
  }
  await users.addIdentity(tx, userId, provider, data)
  return users.refreshProviders(tx, await users.mergeUserData(tx, user, data))
}

const banned = () => new AuthError(403, 'user_banned', 'User is banned')

const unverified = (provider: string, remedy: string) =>
  new AuthError(422, 'provider_email_needs_verification', `Unverified email with ${provider}. ${remedy}`)
