import { createHash } from 'node:crypto'
import { z } from 'zod'
import { isUuid, readBearer } from './account.ts'
import {
  type Auth,
  type Call,
  checkEmail,
  flag,
  type Handler,
  inTransaction,
  isStorable,
  metadata,
  readText,
  type Transaction,
  text,
} from './context.ts'
import { AuthError, invalid } from './errors.ts'
import { checkPassword } from './passwords.ts'
import { endSessions } from './sessions.ts'
import { parseDuration } from './settings.ts'
import * as users from './users.ts'

/** Lets only a secret key of the project through. */
export const forAdmins =
  (handler: Handler): Handler =>
  async (auth, call) => {
    const { role } = await readBearer(auth, call)
    if (role !== 'service_role') throw new AuthError(403, 'not_admin', 'User not allowed')
    return handler(auth, call)
  }

const userBody = z.object({
  id: text,
  role: text,
  email: text,
  phone: text,
  password: z.string().nullish(),
  password_hash: text,
  email_confirm: flag,
  user_metadata: metadata.nullish(),
  app_metadata: metadata.nullish(),
  ban_duration: text,
})
type UserBody = z.infer<typeof userBody>

/** `GET /admin/users?page=&per_page=`: newest first, with the totals in `x-total-count` and `link`. */
export const listUsers: Handler = async ({ sql }, call) => {
  const query = call.url.searchParams
  const page = wholeNumber(query.get('page'), 1)
  const perPage = wholeNumber(query.get('per_page'), 50)
  const filter = query.get('filter') ?? ''
  if (!isStorable(filter)) throw invalid('Bad filter')
  const matching = filter
    ? sql`where strpos(email, ${filter}) > 0 or strpos(lower(raw_user_meta_data ->> 'full_name'), ${filter.toLowerCase()}) > 0`
    : sql``
  const [counted] = await sql`select count(*)::int as total from auth.users ${matching}`
  const rows = await sql<users.User[]>`
    select * from auth.users ${matching} order by created_at desc, id limit ${perPage} offset ${(page - 1) * perPage}`
  const identities = await sql<users.Identity[]>`
    select * from auth.identities where user_id = any (${rows.map(({ id }) => id)}::uuid[]) order by created_at, provider`
  const listed = rows.map((user) =>
    users.present(
      user,
      identities.filter(({ user_id }) => user_id === user.id),
    ),
  )

  const total: number = counted!.total
  const last = Math.ceil(total / perPage)
  const link = (target: number, rel: string) => {
    const params = new URLSearchParams(query)
    params.set('page', String(target))
    return `<${call.url.pathname}?${params}>; rel="${rel}"`
  }
  const links = [...(last > page ? [link(page + 1, 'next')] : []), link(last, 'last')]
  const headers = { 'x-total-count': String(total), link: links.join(', ') }
  return Response.json({ users: listed, aud: 'authenticated' }, { headers })
}

function wholeNumber(text: string | null, otherwise: number): number {
  if (text === null || text === '') return otherwise
  const number = Number(text)
  if (!/^\d{1,9}$/.test(text) || number < 1) throw invalid(`Bad Pagination Parameters: "${text}" is not a page number`)
  return Math.min(number, 1_000_000)
}

/** `POST /admin/users` */
export const createUser: Handler = async (auth, call) => {
  const body = await call.read(userBody)
  if (!body.email && !body.phone) throw invalid('Cannot create a user without either an email or phone')
  if (body.phone) throw invalid('Phone numbers are not available on the local stack')
  if (body.password && body.password_hash) throw invalid('Only a password or a password hash should be provided')
  if (body.id && !isUuid(body.id)) throw invalid('ID must conform to the uuid v4 format')
  const email = checkEmail(body.email)
  const bannedUntil = banOf(body)
  if (body.password) checkPassword(auth.settings, body.password)
  const passwordHash = body.password ? await auth.passwords.hash(body.password) : body.password_hash || null

  const created = await inTransaction(auth, async (tx) => {
    let user = await users.createUser(
      tx,
      {
        id: body.id || undefined,
        email,
        passwordHash,
        data: body.user_metadata ?? {},
        provider: 'email',
        appData: body.app_metadata ?? {},
        role: body.role,
      },
      users.emailExists(),
    )
    await users.addIdentity(tx, user.id, 'email', users.emailIdentity(user.id, email, body.email_confirm))
    if (body.email_confirm) user = await users.confirmEmail(tx, user)
    if (bannedUntil) user = await users.updateUser(tx, user.id, { banned_until: bannedUntil })
    return users.presentUser(tx, user)
  })
  return Response.json(created)
}

/** Undefined leaves a ban as it is, null lifts it. */
function banOf({ ban_duration: text }: UserBody): string | null | undefined {
  if (!text) return undefined
  if (text === 'none') return null
  const milliseconds = parseDuration(text)
  if (milliseconds === null) throw invalid(`invalid format for ban duration: "${text}"`)
  // Go's longest duration, 292 years, is what clients send for good.
  return new Date(Math.min(Date.now() + milliseconds, Date.UTC(9999, 0, 1))).toISOString()
}

async function requireTarget(auth: Auth, call: Call): Promise<users.User> {
  const id = call.params.id!
  if (!isUuid(id)) throw new AuthError(404, 'validation_failed', 'user_id must be an UUID')
  const user = await users.findById(auth.sql, id)
  if (!user) throw userNotFound()
  return user
}

const userNotFound = () => new AuthError(404, 'user_not_found', 'User not found')

export const getUserById: Handler = async (auth, call) =>
  Response.json(await users.presentUser(auth.sql, await requireTarget(auth, call)))

/** `PUT /admin/users/<id>`. A new password ends every session of the person, as on hosted. */
export const updateUserById: Handler = async (auth, call) => {
  const target = await requireTarget(auth, call)
  const body = await call.read(userBody)
  if (body.phone) throw invalid('Phone numbers are not available on the local stack')
  const email = body.email ? checkEmail(body.email) : ''
  const bannedUntil = banOf(body)
  if (typeof body.password === 'string') checkPassword(auth.settings, body.password)
  const passwordHash = body.password ? await auth.passwords.hash(body.password) : null

  const updated = await inTransaction(auth, async (tx) => {
    let user = await users.findById(tx, target.id, true)
    if (!user) throw userNotFound()
    if (email && email !== user.email) {
      user = await users.updateUser(tx, user.id, { email, ...(body.email_confirm ? { is_anonymous: false } : {}) })
      await users.setEmailIdentity(tx, user.id, email, body.email_confirm)
      user = await users.refreshProviders(tx, user)
    }
    if (body.email_confirm) user = await users.confirmEmail(tx, user)
    if (passwordHash) {
      user = await users.updateUser(tx, user.id, { encrypted_password: passwordHash })
      await endSessions(tx, user.id)
    }
    const columns: Partial<users.User> = {}
    if (body.role) columns.role = body.role
    if (bannedUntil !== undefined) columns.banned_until = bannedUntil
    if (body.app_metadata) columns.raw_app_meta_data = users.merge(user.raw_app_meta_data, body.app_metadata)
    if (body.user_metadata) columns.raw_user_meta_data = users.merge(user.raw_user_meta_data, body.user_metadata)
    return users.presentUser(tx, await users.updateUser(tx, user.id, columns))
  })
  return Response.json(updated)
}

/** `DELETE /admin/users/<id>`, for good, or softly: the row stays and nothing in it tells who it was. */
export const deleteUser: Handler = async (auth, call) => {
  const target = await requireTarget(auth, call)
  const soft = await readSoftness(call)
  await inTransaction(auth, async (tx) => {
    if (!soft) {
      try {
        await tx`delete from auth.users where id = ${target.id}`
      } catch (error) {
        throw users.databaseError('Database error deleting user', error)
      }
    } else if (!target.deleted_at) await anonymise(tx, target)
  })
  return Response.json({})
}

async function readSoftness(call: Call): Promise<boolean> {
  const body = await readText(call.request)
  if (!body) return false
  try {
    return JSON.parse(body)?.should_soft_delete === true
  } catch (error) {
    throw new AuthError(400, 'bad_json', `Could not parse request body as JSON: ${(error as Error).message}`)
  }
}

async function anonymise(tx: Transaction, user: users.User) {
  const hide = (value: string) =>
    createHash('sha256')
      .update(user.id + value)
      .digest('base64url')
  await endSessions(tx, user.id)
  for (const { id, provider, provider_id } of await users.findIdentities(tx, user.id)) {
    const hidden = hide(`${provider}:${provider_id}`)
    await tx`update auth.identities set identity_data = '{}', provider_id = ${hidden}, updated_at = now() where id = ${id}`
  }
  await users.updateUser(tx, user.id, {
    email: hide(user.email ?? ''),
    encrypted_password: null,
    email_change: '',
    confirmation_token: '',
    recovery_token: '',
    email_change_token_new: '',
    email_change_token_current: '',
    reauthentication_token: '',
    raw_app_meta_data: {},
    raw_user_meta_data: {},
    deleted_at: new Date().toISOString(),
  })
}
