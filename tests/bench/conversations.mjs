// The first page, and pages from anywhere, of the list of somebody with 10,000 conversations, through list_conversations as that
// person; beside it somebody with ten.
import postgres from 'postgres'
import { signUp } from './branch.mjs'
import { databaseUrl, line, median, quantile, startStack } from './support.mjs'

const conversations = 10_000
const rounds = 1_000
const warmUp = 50

export default async function run() {
  const stack = await startStack()
  const connect = (role) => postgres(databaseUrl(stack, role), { max: 1, onnotice: () => {} })
  const [platform, asPerson] = [connect('supabase_admin'), connect('postgres')]
  try {
    const many = await fill(platform, conversations)
    const few = await fill(platform, 10)
    await platform.unsafe(
      'vacuum (analyze) public.messages, public.conversations, public.conversation_participants, public.inbox_entries',
    )
    const become = (person) =>
      asPerson`select set_config('request.jwt.claims', ${JSON.stringify({ sub: person, role: 'authenticated' })}, false),
        set_config('role', 'authenticated', false)`
    const page = (cursor = null) =>
      asPerson.unsafe('select * from public.list_conversations($1)', [cursor], { prepare: true })
    const time = async (expected, cursor) => {
      const samples = []
      for (let round = 0; round < rounds + warmUp; round++) {
        const at = cursor()
        const started = performance.now()
        const rows = await page(at)
        if (rows.length !== expected) throw new Error(`${rows.length} rows instead of ${expected}`)
        if (round >= warmUp) samples.push(performance.now() - started)
      }
      return `${median(samples).toFixed(2)} ms, p95 ${quantile(samples, 0.95).toFixed(2)} ms`
    }

    await become(many)
    const cursors = []
    for (let rows = await page(); rows.length === 30; rows = await page(rows.at(-1).cursor))
      cursors.push(rows.at(-1).cursor)
    cursors.splice(-2)
    line('the first 30 of 10,000 conversations', await time(30, () => null), 'goal: 10 ms')
    line('30 of them from anywhere', await time(30, () => cursors[Math.floor(Math.random() * cursors.length)]))
    await become(few)
    line('all of somebody with ten', await time(10, () => null))
  } finally {
    await Promise.all([platform, asPerson].map((sql) => sql.end()))
    await stack.discard()
  }
}

/** Somebody with so many conversations, each of twenty messages of which up to ten are unread, past the triggers. */
async function fill(sql, count) {
  const person = await signUp(sql)
  await sql`set session_replication_role = replica`
  const [{ id: character }] = await sql`
    insert into public.characters (owner_id, name, age) values (${person}, 'Mira', 30) returning id`
  const id = (n) => sql`md5(${person} || '/' || ${n})::uuid`
  await sql`
    insert into public.conversations (id, owner_id, character_id, title, topic, active_leaf_id, last_message_at)
    select ${id(sql`n`)}, ${person}, ${character}, 'Talk ' || n, ${person} || ':' || n,
      private.uuid_v7(now() - make_interval(mins => n) - interval '1 second'), now() - make_interval(mins => n)
    from generate_series(1, ${count}::int) as n`
  await sql`
    insert into public.conversation_participants (conversation_id, user_id, role, state, joined_at)
    select id, owner_id, 'owner', 'joined', now() from public.conversations where owner_id = ${person}`
  await sql`
    insert into public.messages (id, conversation_id, parent_id, depth, role, content)
    select i.id, i.conversation_id, lag(i.id) over (partition by i.conversation_id order by i.depth), i.depth, 'assistant',
      repeat('What somebody said. ', 20)
    from (
      select c.id as conversation_id, depth,
        case depth when 19 then c.active_leaf_id
          else private.uuid_v7(c.last_message_at - make_interval(secs => 40 - depth)) end as id
      from public.conversations as c, generate_series(0, 19) as depth where c.owner_id = ${person}
    ) as i`
  await sql`
    insert into public.inbox_entries (conversation_id, user_id, last_message_at, is_pinned, last_read_message_id)
    select c.id, c.owner_id, c.last_message_at, random() < 0.001,
      (select m.id from public.messages as m where m.conversation_id = c.id and m.depth = 19 - abs(hashtext(c.id::text)) % 11)
    from public.conversations as c where c.owner_id = ${person}`
  await sql`set session_replication_role = default`
  return person
}
