// Runs Supabase's advisors over one database of a running stack, with the schemas that our API exposes, then the rules that
// only hosted Supabase runs (0025 to 0029). Fails on any warning or error.
//   node scripts/advisors.mjs STACK_JSON DATABASE
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import postgres from 'postgres'

const [stackFile, name] = process.argv.slice(2)
const { database } = JSON.parse(readFileSync(stackFile, 'utf8'))
const url = (role) => `postgresql://${role}:${database.passwords[role]}@${database.host}:${database.port}/${name}`

const exposed = ['public', 'service']
const sql = postgres(url('supabase_admin'), { max: 1 })
// The advisors read this parameter; hosted's PostgREST sets it.
await sql.unsafe(`alter database ${name} set pgrst.db_schemas = '${exposed.join(', ')}'`)

const cli = spawnSync(
  'npx',
  ['--no', 'supabase', '--', 'db', 'advisors', `--remote=${url('postgres')}`, '--fail-on=warn'],
  {
    stdio: 'inherit',
  },
)

// https://supabase.com/docs/guides/database/database-advisors: the rules that the CLI does not bundle, in our words.
const findings = await sql`
  select '0025 public bucket can be listed' as rule, b.id as object
    from storage.buckets b
    join pg_policies p on p.schemaname = 'storage' and p.tablename = 'objects'
   where b.public
     and p.permissive = 'PERMISSIVE'
     and p.cmd in ('SELECT', 'ALL')
     and p.roles && array['public', 'anon', 'authenticated']::name[]
     and regexp_replace(p.qual, '[()\\s]|::text', '', 'g') in ('true', 'bucket_id=''' || b.id || '''')
  union all
  select '0026/0027 pg_graphql is installed', extname::text from pg_extension where extname = 'pg_graphql'
  union all
  select case r.role when 'anon' then '0028' else '0029' end || ' ' || r.role || ' may execute a definer function', p.oid::regprocedure::text
    from pg_proc p, unnest(array['anon', 'authenticated']) as r (role)
   where p.pronamespace::regnamespace::text = any (${exposed})
     and p.prosecdef
     and has_function_privilege(r.role, p.oid, 'execute')`
await sql.end()

for (const { rule, object } of findings) console.error(`${rule}: ${object}`)
process.exit(cli.status === 0 && findings.length === 0 ? 0 : 1)
