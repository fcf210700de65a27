import type { Auth, Metadata, Sql, Transaction } from './context.ts'
import { AuthError } from './errors.ts'

/** A row of auth.users; timestamps are ISO text. */
export interface User {
  id: string
  aud: string
  role: string
  email: string | null
  phone: string | null
  encrypted_password: string | null
  email_confirmed_at: string | null
  phone_confirmed_at: string | null
  confirmed_at: string | null
  invited_at: string | null
  confirmation_token: string | null
  confirmation_sent_at: string | null
  recovery_token: string | null
  recovery_sent_at: string | null
  email_change: string | null
  email_change_token_new: string | null
  email_change_token_current: string | null
  email_change_sent_at: string | null
  email_change_confirm_status: number
  reauthentication_token: string | null
  reauthentication_sent_at: string | null
  raw_app_meta_data: Metadata | null
  raw_user_meta_data: Metadata | null
  banned_until: string | null
  deleted_at: string | null
  is_sso_user: boolean
  is_anonymous: boolean
  last_sign_in_at: string | null
  created_at: string
  updated_at: string
}

export interface Identity {
  id: string
  provider: string
  provider_id: string
  user_id: string
  identity_data: Metadata
  email: string | null
  last_sign_in_at: string | null
  created_at: string
  updated_at: string
}

type Columns = Partial<{ [column in keyof User]: User[column] }>

export const isBanned = (user: User) => user.banned_until !== null && Date.parse(user.banned_until) > Date.now()

/** The account of an address, and its row locked when asked: what is read of it then holds until the commit. */
export async function findByEmail(sql: Sql | Transaction, email: string, lock = false): Promise<User | undefined> {
  const [user] = await sql<User[]>`
    select * from auth.users where email = ${email} and not is_sso_user ${lock ? sql`for update` : sql``}`
  return user
}

export async function findById(sql: Sql | Transaction, id: string, lock = false): Promise<User | undefined> {
  const [user] = await sql<User[]>`select * from auth.users where id = ${id} ${lock ? sql`for update` : sql``}`
  return user
}

export const findIdentities = (sql: Sql | Transaction, userId: string): Promise<Identity[]> =>
  sql<Identity[]>`select * from auth.identities where user_id = ${userId} order by created_at, provider`

/** What hosted writes in `instance_id`. */
const NO_INSTANCE = '00000000-0000-0000-0000-000000000000'

export interface NewUser {
  id?: string
  email: string | null
  passwordHash: string | null
  data: Metadata
  /** `email`, or the provider that vouches for the person; null for anonymous people. */
  provider: string | null
  appData?: Metadata
  role?: string
}

/** Adds the row; triggers on auth.users run inside this transaction and may refuse. `taken` is thrown for a used address. */
export async function createUser(tx: Transaction, user: NewUser, taken: AuthError): Promise<User> {
  const appData = user.provider ? { provider: user.provider, providers: [user.provider] } : {}
  try {
    const [row] = await tx<User[]>`
      insert into auth.users
        (instance_id, id, aud, role, email, encrypted_password, raw_app_meta_data, raw_user_meta_data, is_anonymous,
         created_at, updated_at)
      values
        (${NO_INSTANCE}, coalesce(${user.id ?? null}::uuid, gen_random_uuid()), 'authenticated', ${user.role || 'authenticated'}, ${user.email},
         ${user.passwordHash}, ${tx.json({ ...appData, ...user.appData })}, ${tx.json(user.data)}, ${!user.provider}, now(), now())
      returning *`
    // A trigger may have changed the row after it was returned.
    return (await findById(tx, row!.id))!
  } catch (error) {
    throw isUnique(error, 'users_email_partial_key', 'users_pkey')
      ? taken
      : databaseError('Database error saving new user', error)
  }
}

export async function updateUser(tx: Transaction, id: string, columns: Columns): Promise<User> {
  const values: Record<string, unknown> = { ...columns, updated_at: new Date().toISOString() }
  for (const name of ['raw_app_meta_data', 'raw_user_meta_data']) {
    if (values[name]) values[name] = tx.json(values[name] as never)
  }
  try {
    const [row] = await tx<User[]>`update auth.users set ${tx(values as never)} where id = ${id} returning *`
    if (!row) throw new AuthError(404, 'user_not_found', 'User not found')
    return row
  } catch (error) {
    if (error instanceof AuthError) throw error
    throw isUnique(error, 'users_email_partial_key') ? emailExists() : databaseError('Error updating user', error)
  }
}

export const emailExists = () =>
  new AuthError(422, 'email_exists', 'A user with this email address has already been registered')

/** Members of `patch` replace those of `old`; null removes one. As supabase/auth merges metadata. */
export function merge(old: Metadata | null, patch: Metadata): Metadata {
  const merged = Object.entries({ ...old, ...patch }).filter(([, value]) => value !== null)
  return Object.fromEntries(merged)
}

export const mergeUserData = (tx: Transaction, user: User, patch: Metadata): Promise<User> =>
  updateUser(tx, user.id, { raw_user_meta_data: merge(user.raw_user_meta_data, patch) })

/** Marks the address as the person's own. */
export const confirmEmail = (tx: Transaction, user: User): Promise<User> =>
  updateUser(tx, user.id, {
    confirmation_token: '',
    email_confirmed_at: new Date().toISOString(),
    raw_user_meta_data: merge(user.raw_user_meta_data, { email_verified: true }),
  })

export async function addIdentity(
  tx: Transaction,
  userId: string,
  provider: string,
  data: Metadata,
): Promise<Identity> {
  const [identity] = await tx<Identity[]>`
    insert into auth.identities (id, provider, provider_id, user_id, identity_data, last_sign_in_at, created_at, updated_at)
    values (gen_random_uuid(), ${provider}, ${String(data.sub)}, ${userId}, ${tx.json(data)}, now(), now(), now())
    returning *`
  return identity!
}

export const emailIdentity = (userId: string, email: string, verified = false): Metadata => ({
  sub: userId,
  email,
  email_verified: verified,
  phone_verified: false,
})

/** Creates the e-mail identity, or changes its address. */
export async function setEmailIdentity(tx: Transaction, userId: string, email: string, verified: boolean) {
  const updated = await tx`
    update auth.identities
    set identity_data = identity_data || ${tx.json({ email, email_verified: verified })}, updated_at = now()
    where user_id = ${userId} and provider = 'email' returning id`
  if (!updated.length) await addIdentity(tx, userId, 'email', emailIdentity(userId, email, verified))
}

/** Brings `providers` of app_metadata in line with the identities there are. */
export async function refreshProviders(tx: Transaction, user: User): Promise<User> {
  const providers = (await findIdentities(tx, user.id)).map(({ provider }) => provider)
  const unique = [...new Set(providers)]
  const patch: Metadata = unique.length ? { provider: unique[0]!, providers: unique } : { providers: [] }
  return updateUser(tx, user.id, { raw_app_meta_data: merge(user.raw_app_meta_data, patch) })
}

/** The user as clients see it. Members without a value are left out, as Go's omitempty does. */
export function present(user: User, identities: Identity[]) {
  const optional = {
    email_confirmed_at: user.email_confirmed_at,
    invited_at: user.invited_at,
    confirmation_sent_at: user.confirmation_sent_at,
    confirmed_at: user.confirmed_at,
    recovery_sent_at: user.recovery_sent_at,
    new_email: user.email_change,
    email_change_sent_at: user.email_change_sent_at,
    reauthentication_sent_at: user.reauthentication_sent_at,
    last_sign_in_at: user.last_sign_in_at,
    banned_until: user.banned_until,
    deleted_at: user.deleted_at,
  }
  return {
    id: user.id,
    aud: user.aud,
    role: user.role,
    email: user.email ?? '',
    phone: user.phone ?? '',
    ...Object.fromEntries(Object.entries(optional).filter(([, value]) => value)),
    app_metadata: user.raw_app_meta_data ?? {},
    user_metadata: user.raw_user_meta_data ?? {},
    identities: identities.map(({ id, provider_id, ...identity }) => ({
      identity_id: id,
      id: provider_id,
      ...identity,
    })),
    created_at: user.created_at,
    updated_at: user.updated_at,
    is_anonymous: user.is_anonymous,
  }
}

export const presentUser = async (sql: Auth['sql'] | Transaction, user: User) =>
  present(user, await findIdentities(sql, user.id))

export function isUnique(error: unknown, ...constraints: string[]): boolean {
  const { code, constraint_name } = error as { code?: string; constraint_name?: string }
  return code === '23505' && constraints.includes(constraint_name ?? '')
}

/** Hosted tells a client no more about a failed statement than this; the cause goes to the log. */
export function databaseError(message: string, cause: unknown): AuthError {
  console.error(`auth: ${message}:`, cause)
  return new AuthError(500, 'unexpected_failure', message)
}
