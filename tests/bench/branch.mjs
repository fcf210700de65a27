// Opening a conversation of 100,000 messages with 1,000 forks, and pages of it from anywhere, through conversation_branch as one
// of its people; beside it a conversation of ten messages.
import { randomUUID } from 'node:crypto'
import postgres from 'postgres'
import { databaseUrl, line, median, quantile, startStack } from './support.mjs'

const messages = 100_000
const forks = 1_000
const rounds = 2_000
const warmUp = 100

export default async function run() {
  const stack = await startStack()
  const connect = (role) => postgres(databaseUrl(stack, role), { max: 1, onnotice: () => {} })
  const [platform, asPerson] = [connect('supabase_admin'), connect('postgres')]
  try {
    const person = await signUp(platform)
    const long = await fill(platform, person, messages, forks)
    const short = await fill(platform, person, 10, 0)
    await platform`vacuum (analyze) public.messages`
    const claims = JSON.stringify({ sub: person, role: 'authenticated' })
    await asPerson`select set_config('request.jwt.claims', ${claims}, false), set_config('role', 'authenticated', false)`

    const page = (conversation, before = null) =>
      asPerson.unsafe('select * from public.conversation_branch($1, $2)', [conversation, before], { prepare: true })
    const opened = { long: [], short: [], anywhere: [] }
    for (let round = 0; round < rounds + warmUp; round++) {
      const anywhere = long.path[50 + Math.floor(Math.random() * (long.path.length - 50))]
      for (const [name, read, expected] of [
        ['long', () => page(long.id), 50],
        ['short', () => page(short.id), 10],
        ['anywhere', () => page(long.id, anywhere), 50],
      ]) {
        const started = performance.now()
        const rows = await read()
        if (rows.length !== expected) throw new Error(`${rows.length} rows instead of ${expected}: ${name}`)
        if (round >= warmUp) opened[name].push(performance.now() - started)
      }
    }
    const figures = (samples) => `${median(samples).toFixed(2)} ms, p95 ${quantile(samples, 0.95).toFixed(2)} ms`
    line('the newest 50 of 100,000 messages', figures(opened.long), 'goal: p95 10 ms')
    line('50 of them from anywhere', figures(opened.anywhere))
    line('all of a conversation of ten', figures(opened.short))
  } finally {
    await Promise.all([platform, asPerson].map((sql) => sql.end()))
    await stack.discard()
  }
}

export async function signUp(sql) {
  const id = randomUUID()
  await sql`insert into auth.users (id, aud, role, email) values (${id}, 'authenticated', 'authenticated', ${`${id}@example.com`})`
  return id
}

/** A conversation with one long branch and variants beside some of its messages, past the triggers. */
async function fill(sql, person, length, forks) {
  const id = randomUUID()
  await sql`set session_replication_role = replica`
  await sql`
    insert into public.conversations (id, owner_id, title, topic)
    values (${id}, ${person}, 'Talk', ${`conversation:${id}`})`
  await sql`
    insert into public.conversation_participants (conversation_id, user_id, role, state, joined_at)
    values (${id}, ${person}, 'owner', 'joined', now())`
  await sql`
    insert into public.messages (id, conversation_id, parent_id, depth, role, content)
    select md5(${id} || n)::uuid, ${id}, case when n > 0 then md5(${id} || n - 1)::uuid end, n,
      case n % 2 when 0 then 'assistant' else 'user' end, repeat('What somebody said. ', 20)
    from generate_series(0, ${length - forks - 1}::int) as n`
  if (forks > 0) {
    await sql`
      insert into public.messages (conversation_id, parent_id, depth, role, content)
      select m.conversation_id, m.parent_id, m.depth, m.role, repeat('Or something else. ', 20)
      from public.messages as m
      where m.conversation_id = ${id} and m.depth > 0
      order by random() limit ${forks}`
  }
  const path = await sql`select m.id from public.messages as m where m.id in (
    select md5(${id} || n)::uuid from generate_series(0, ${length - forks - 1}::int) as n) order by m.depth`
  await sql`update public.conversations set active_leaf_id = ${path.at(-1).id} where id = ${id}`
  await sql`set session_replication_role = default`
  return { id, path: path.map((row) => row.id) }
}
