import postgres from 'postgres'
import type { Engine } from './engine.ts'
import { exitCode, Failure } from './failure.ts'
import type { Secrets } from './keys.ts'
import type { Sql } from './sql.ts'

const helper = 'supabase_local_helper'
const marker = 'supabase_local.marker'

/**
 * Somebody's Postgres 17, named by DATABASE_URL and given over to the stack. Taken only when it is empty or carries our
 * marker, which is set before anything else is changed: an interrupted first start is simply continued by the next.
 */
export async function openExternal(options: {
  url: string
  accepted: boolean
  secrets: Secrets
  say: (text: string) => void
}): Promise<{ engine: Engine; passwords: Secrets['passwords'] }> {
  const address = parseAddress(options.url, options.accepted)
  const { user, password = options.secrets.passwords.supabase_admin, host, port, name } = address
  const passwords = { ...options.secrets.passwords, supabase_admin: password }
  // The URL goes on working, as the ordinary role that its superuser's name belongs to from now on.
  if (user === 'postgres' && address.password) passwords.postgres = address.password
  const login = (as: string) => connectAs(address, as, address.password ?? '')

  const first = await superuser(login, user)
  try {
    await checkSettings(first.sql)
    const [row] = await first.sql`select current_setting(${marker}, true) as value`
    if (!row?.value) {
      await refuseUnlessEmpty(first.sql, name)
      await first.sql.unsafe(`alter database ${quote(name)} set ${marker} = 'given over'`)
      options.say(`taking over the empty database ${name} of ${host}:${port}`)
    }
    await nameSuperuser(first, login, password)
  } finally {
    await first.sql.end({ timeout: 2 })
  }
  return {
    engine: { address: { host, port, name }, start: () => Promise.resolve(), stop: () => Promise.resolve() },
    passwords,
  }
}

interface Address {
  user: string
  password: string | undefined
  host: string
  port: number
  name: string
}

function parseAddress(text: string, accepted: boolean): Address {
  const url = URL.canParse(text) ? new URL(text) : null
  if (!url || !/^postgres(ql)?:$/.test(url.protocol) || !url.hostname) {
    throw new Failure('DATABASE_URL is not a URL like postgresql://user:password@host:5432/postgres.', exitCode.usage)
  }
  const host = url.hostname.replace(/^\[|\]$/g, '')
  if (!/^(localhost|127(\.\d+){3}|::1)$/.test(host) && !accepted) {
    throw new Failure(
      `DATABASE_URL names ${host}, which is not this machine. The stack takes a server over whole.`,
      exitCode.usage,
      'If that is what you want, add --yes-this-server; otherwise unset DATABASE_URL.',
    )
  }
  return {
    user: decodeURIComponent(url.username) || 'postgres',
    password: decodeURIComponent(url.password) || undefined,
    host,
    port: Number(url.port || 5432),
    name: decodeURIComponent(url.pathname.slice(1)) || 'postgres',
  }
}

function connectAs({ host, port, name }: Address, user: string, password: string): Sql {
  return postgres({ host, port, database: name, user, password, max: 1, onnotice: () => {}, connect_timeout: 10 })
}

type Login = (role: string) => Sql
interface Session {
  sql: Sql
  role: string
}

/** Logs in as the URL's user, or as `supabase_admin`, which that superuser was renamed to by an earlier start. */
async function superuser(login: Login, user: string): Promise<Session> {
  let reason = `${user} is not a superuser there`
  for (const role of new Set([user, 'supabase_admin'])) {
    const sql = login(role)
    try {
      const [row] = await sql`select rolsuper from pg_roles where rolname = current_user`
      if (row?.rolsuper) return { sql, role }
    } catch (error) {
      const { code, message } = error as { code?: string; message: string }
      if (role === user) reason = message || String(code)
    }
    await sql.end({ timeout: 1 })
  }
  throw new Failure(
    `The server that DATABASE_URL names cannot be used: ${reason}.`,
    exitCode.engine,
    'It must be the URL of a superuser of a running Postgres 17; unset DATABASE_URL to use the embedded one.',
  )
}

async function checkSettings(sql: Sql): Promise<void> {
  const [row] = await sql`
    select current_setting('server_version_num')::int / 10000 as major, current_setting('wal_level') as wal`
  if (row!.major !== 17)
    throw new Failure(`DATABASE_URL names a Postgres ${row!.major}; the stack needs 17.`, exitCode.engine)
  if (row!.wal !== 'logical') {
    throw new Failure(
      `The server that DATABASE_URL names runs with wal_level=${row!.wal}; Realtime needs wal_level=logical.`,
      exitCode.engine,
      "Run `alter system set wal_level = 'logical'` there and restart it.",
    )
  }
}

/** Somebody's data must never be taken for a playground: anything that initdb or an extension did not make is a reason. */
async function refuseUnlessEmpty(sql: Sql, name: string): Promise<void> {
  const found = await sql`
    select 'database ' || datname as what from pg_database where not datistemplate and datname not in (${name}, 'postgres')
    union all
    select 'role ' || rolname from pg_roles where not rolsuper and rolname !~ '^pg_'
    union all
    select 'schema ' || nspname from pg_namespace n
    where nspname !~ '^pg_' and nspname not in ('public', 'information_schema')
      and not exists (select from pg_depend d where d.classid = 'pg_namespace'::regclass and d.objid = n.oid and d.deptype = 'e')
    union all
    select 'relation ' || oid::regclass from pg_class c
    where relnamespace = 'public'::regnamespace
      and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
    union all
    select 'function ' || oid::regprocedure from pg_proc p
    where pronamespace = 'public'::regnamespace
      and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')
    limit 6`
  if (found.length === 0) return
  const list = found
    .map(({ what }) => what)
    .slice(0, 5)
    .join(', ')
  throw new Failure(
    `The server that DATABASE_URL names is not empty and was not taken over by this stack: ${list}${found.length > 5 ? ', …' : ''}.`,
    exitCode.engine,
    'Name an empty server, or unset DATABASE_URL to use the embedded one. Nothing was changed.',
  )
}

/**
 * The superuser is `supabase_admin` from now on. One that is named `postgres` is renamed, from a second superuser, since
 * nobody can rename himself and the first superuser of a cluster cannot be demoted; the bootstrap then makes the
 * `postgres` that migrations run as. Each step may be the last of a killed start.
 */
async function nameSuperuser({ sql, role }: Session, login: Login, password: string): Promise<void> {
  const secret = password.replaceAll("'", "''")
  if (role === 'postgres') {
    await sql.unsafe(`drop role if exists ${helper}; create role ${helper} superuser login password '${secret}'`)
    const second = login(helper)
    try {
      await second.unsafe('alter role postgres rename to supabase_admin')
      await second.unsafe(`alter role supabase_admin password '${secret}'`)
    } finally {
      await second.end({ timeout: 2 })
    }
  } else if (role !== 'supabase_admin') {
    const [made] = await sql`select from pg_roles where rolname = 'supabase_admin'`
    await sql.unsafe(
      `${made ? 'alter' : 'create'} role supabase_admin superuser login createrole createdb replication bypassrls password '${secret}'`,
    )
  }
  const admin = login('supabase_admin')
  try {
    await admin.unsafe(`drop role if exists ${helper}`)
  } finally {
    await admin.end({ timeout: 2 })
  }
}

const quote = (name: string) => `"${name.replaceAll('"', '""')}"`
