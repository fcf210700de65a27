// The newest 50 documents of one owner among 1,000,000 of 10,000 owners: under RLS as the owner, and the same query with the
// owner's id written by hand as the table's owner.
import postgres from 'postgres'
import { databaseUrl, line, median, startStack } from './support.mjs'

const owners = 10_000
const documents = 1_000_000
const rounds = 2_000

export default async function run() {
  const stack = await startStack()
  const sql = postgres(databaseUrl(stack, 'supabase_admin'), { max: 1, onnotice: () => {} })
  try {
    const owner = await fill(sql)
    const columns = 'id, collection, data, version, created_at, updated_at'
    const tail = `collection = 'notes' order by id desc limit 50`
    const claims = JSON.stringify({ sub: owner, role: 'authenticated' })
    const underRls = await timed(sql, `select ${columns} from public.documents where ${tail}`, async () => {
      await sql`select set_config('request.jwt.claims', ${claims}, false), set_config('role', 'authenticated', false)`
    })
    const byHand = await timed(
      sql,
      `select ${columns} from public.documents where owner_id = '${owner}' and ${tail}`,
      async () => {
        await sql`select set_config('role', 'postgres', false)`
      },
    )
    line('50 of 1,000,000 documents under RLS, median', `${underRls.toFixed(3)} ms`, `by hand ${byHand.toFixed(3)} ms`)
    line('RLS over by hand', `${(underRls / byHand).toFixed(2)} ×`, 'goal 1.2')
  } finally {
    await sql.end()
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

/** Median execution time inside the server, planning included, from `explain (analyze)`. */
async function timed(sql, query, become) {
  await become()
  const samples = []
  for (let round = 0; round < rounds; round++) {
    const [
      {
        'QUERY PLAN': [plan],
      },
    ] = await sql.unsafe(`explain (analyze, buffers, timing off, format json) ${query}`)
    if (round >= 100) samples.push(plan['Execution Time'] + plan['Planning Time'])
  }
  await sql`reset role`
  return median(samples)
}
