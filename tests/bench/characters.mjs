// Search over 200,000 public characters by tag and text, as a signed-in person, and beside it the same question put to the
// table itself, where the policy turns its filters into a reading of every row.
import postgres from 'postgres'
import { databaseUrl, line, quantile, startStack } from './support.mjs'

const characters = 200_000
const owners = 2_000
const rounds = 400

/** Words are as frequent as in language: the k-th about k times rarer than the first. */
const vocabulary = Array.from({ length: 20_000 }, (_, at) => word(at))
const tags = Array.from({ length: 300 }, (_, at) => `tag ${word(at + 7)}`)

export default async function run() {
  const stack = await startStack()
  const connect = (role) => postgres(databaseUrl(stack, role), { max: 1, onnotice: () => {} })
  const [platform, person] = [connect('supabase_admin'), connect('postgres')]
  try {
    const started = performance.now()
    await fill(platform)
    line('filled in', `${((performance.now() - started) / 1000).toFixed(0)} s`)
    const [{ id }] = await platform`select id from auth.users where email = 'bench-7@example.com'`
    const claims = JSON.stringify({ sub: id, role: 'authenticated' })
    await person`select set_config('request.jwt.claims', ${claims}, false), set_config('role', 'authenticated', false)`

    const random = seeded(1)
    const pick = (list) => list[Math.floor(random() ** 3 * list.length)]
    const name = () => `${pick(vocabulary)} ${pick(vocabulary)}`
    await measure(person, 'tag and text', () => [pick(vocabulary), [pick(tags)]], 50)
    await measure(person, 'text', () => [pick(vocabulary), []])
    await measure(person, 'the first letters of a word', () => [pick(vocabulary).slice(0, 2), []])
    await measure(person, 'two words', () => [`${pick(vocabulary)} ${pick(vocabulary)}`, []])
    await measure(person, 'tag', () => ['', [pick(tags)]])
    await measure(person, 'two tags', () => ['', [pick(tags), pick(tags)]])
    await measure(person, 'a name with a wrong letter', () => [name().replace(/.$/, 'q'), []])
    await measure(person, 'tag and text that never meet', () => [vocabulary[0], ['no such tag']])
    await byPolicy(person, pick)
  } finally {
    await Promise.all([platform, person].map((sql) => sql.end()))
    await stack.discard()
  }
}

async function measure(sql, what, ask, goal) {
  const samples = []
  for (let round = 0; round < rounds; round++) {
    const [query, wanted] = ask()
    const started = performance.now()
    await sql`select * from public.search_characters(${query}, ${wanted})`
    samples.push(performance.now() - started)
  }
  const ms = (share) => `${quantile(samples, share).toFixed(1)} ms`
  line(`${what}, p95`, ms(0.95), `median ${ms(0.5)}, longest ${ms(1)}${goal ? `, goal ${goal} ms` : ''}`)
}

/** The table under its policy, a few times: it takes long. */
async function byPolicy(sql, pick) {
  const samples = []
  for (let round = 0; round < 5; round++) {
    const started = performance.now()
    await sql`
      select id, name from public.characters
      where tags @> ${[pick(tags)]} and to_tsvector('simple', name || ' ' || description) @@ plainto_tsquery('simple', ${pick(vocabulary)})
      order by id desc limit 20`
    samples.push(performance.now() - started)
  }
  line('tag and text on the table under its policy', `${quantile(samples, 0.5).toFixed(0)} ms`)
}

/** Fills by few statements, past the triggers; what search looks at comes from the function that the trigger uses. */
export async function fill(sql) {
  await sql`set session_replication_role = replica`
  await sql`
    insert into auth.users (id, aud, role, email)
    select gen_random_uuid(), 'authenticated', 'authenticated', 'bench-' || n || '@example.com'
    from generate_series(1, ${owners}) as n`
  await sql`
    insert into public.profiles (id, username, display_name)
    select id, 'bench_' || substr(email, 7, position('@' in email) - 7), 'Bench' from auth.users where email like 'bench-%'`
  await sql`create temporary table people as select id, row_number() over () - 1 as n from auth.users where email like 'bench-%'`
  const random = seeded(2)
  const pick = (list) => list[Math.floor(random() ** 3 * list.length)]
  const some = (list, count) => [...new Set(Array.from({ length: count }, () => pick(list)))]
  for (let at = 0; at < characters; at += 5_000) {
    const rows = Array.from({ length: 5_000 }, (_, n) => ({
      n: at + n,
      name: `${pick(vocabulary)} ${pick(vocabulary)}`,
      tagline: some(vocabulary, 6).join(' '),
      description: Array.from({ length: 80 }, () => pick(vocabulary)).join(' '),
      tags: some(tags, 5),
      mature: random() < 0.1,
    }))
    await sql`
      insert into public.characters (owner_id, name, tagline, description, tags, is_mature, age, visibility)
      select p.id, r.name, r.tagline, r.description, r.tags, r.mature, 30, 'public'
      from jsonb_to_recordset(${sql.json(rows)}) as r (n integer, name text, tagline text, description text, tags text[], mature boolean)
      join people as p on p.n = r.n % ${owners}`
  }
  const [{ definition }] = await sql`select pg_get_indexdef('private.character_search_matches'::regclass) as definition`
  await sql`drop index private.character_search_matches`
  await sql`
    insert into private.character_search
    select s.* from public.characters as c, private.search_row(c) as s where c.visibility = 'public' order by c.id
    on conflict do nothing`
  await sql`set maintenance_work_mem = '256MB'`
  await sql.unsafe(definition)
  await sql`set session_replication_role = default`
  await sql`vacuum (analyze) public.characters, private.character_search`
}

/** A word of syllables, another one for each number. */
function word(number) {
  const syllables = ['ka', 'ro', 'mi', 'ten', 'lu', 'sa', 'vor', 'ni', 'be', 'dal', 'os', 'ri', 'fe', 'gu', 'hel', 'ya']
  let text = ''
  for (let rest = number + 16; rest > 0; rest = Math.floor(rest / 16)) text += syllables[rest % 16]
  return text
}

/** Numbers between 0 and 1, the same in every run. */
function seeded(seed) {
  let state = seed
  return () => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648
    return state / 2_147_483_648
  }
}
