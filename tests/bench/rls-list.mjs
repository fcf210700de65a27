// The newest 50 documents of one owner among 1,000,000 of 10,000 owners: under RLS as the owner, and the same query with the
// owner's id written by hand as the table's owner.
import postgres from 'postgres'
import { databaseUrl, line, median, quantile, startStack } from './support.mjs'

const owners = 10_000
const documents = 1_000_000
const rounds = 3_000
const warmUp = 200

export default async function run() {
  const stack = await startStack()
  const connect = (role) => postgres(databaseUrl(stack, role), { max: 1, onnotice: () => {} })
  const [platform, asOwner, asTableOwner] = [connect('supabase_admin'), connect('postgres'), connect('postgres')]
  try {
    const owner = await fill(platform)
    const claims = JSON.stringify({ sub: owner, role: 'authenticated' })
    await asOwner`select set_config('request.jwt.claims', ${claims}, false), set_config('role', 'authenticated', false)`
    const columns = 'id, collection, data, version, created_at, updated_at'
    const page = `collection = 'notes' order by id desc limit 50`
    const underRls = [asOwner, `select ${columns} from public.documents where ${page}`]
    const byHand = [asTableOwner, `select ${columns} from public.documents where owner_id = '${owner}' and ${page}`]
    const samples = await inTurn(underRls, byHand)
    const [rls, hand] = samples.map(median)
    line('50 of 1,000,000 documents under RLS, median', `${rls.toFixed(3)} ms`, `by hand ${hand.toFixed(3)} ms`)
    line(
      'the same, p95',
      `${quantile(samples[0], 0.95).toFixed(3)} ms`,
      `by hand ${quantile(samples[1], 0.95).toFixed(3)} ms`,
    )
    line('RLS over by hand', `${(rls / hand).toFixed(2)} ×`, 'goal 1.2')
  } finally {
    await Promise.all([platform, asOwner, asTableOwner].map((sql) => sql.end()))
    await stack.discard()
  }
}

/** Fills auth.users and documents by two statements, past the triggers, and returns one of the owners. */
async function fill(sql) {
  await sql`set session_replication_role = replica`
  await sql`
    insert into auth.users (id, aud, role, email)
    select gen_random_uuid(), 'authenticated', 'authenticated', 'bench-' || n || '@example.com'
      from generate_series(1, ${owners}) n`
  await sql`
    insert into public.documents (id, owner_id, collection, data, created_at)
    select gen_random_uuid(), u.id, case n % 2 when 0 then 'notes' else 'drafts' end, jsonb_build_object('n', n, 'text', repeat('x', 100)),
           now() - make_interval(secs => n * 60 + random() * 60)
      from (select id from auth.users where email like 'bench-%') u, generate_series(1, ${documents / owners}) n`
  await sql`set session_replication_role = default`
  await sql`vacuum (analyze) public.documents`
  const [{ id }] = await sql`select id from auth.users where email = 'bench-5000@example.com'`
  return id
}

/** Milliseconds from sending each prepared statement to its 50 rows, one and the other in turn. */
async function inTurn(...queries) {
  const samples = queries.map(() => [])
  for (let round = 0; round < rounds + warmUp; round++) {
    for (const [at, [sql, query]] of queries.entries()) {
      const started = performance.now()
      const rows = await sql.unsafe(query, [], { prepare: true })
      if (rows.length !== 50) throw new Error(`${rows.length} rows instead of 50: ${query}`)
      if (round >= warmUp) samples[at].push(performance.now() - started)
    }
  }
  return samples
}
