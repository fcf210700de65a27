// Fails unless the real pg_cron runs the product's jobs by itself, as the role postgres and without an error. To be asked of
// a stack that nobody has scheduled anything on since its migrations ran: any call of cron.schedule makes pg_cron read all.
//   node scripts/cron-runs.mjs STACK_JSON
import { readFileSync } from 'node:fs'
import postgres from 'postgres'

const expected = ['sweep-jobs', 'reap-generations']
const { database } = JSON.parse(readFileSync(process.argv[2], 'utf8'))
const { host, port, name, passwords } = database
const sql = postgres({ host, port, database: name, user: 'postgres', password: passwords.postgres, max: 1 })

const [server] = await sql`select to_regprocedure('cron.job_cache_invalidate()') is not null as real`
if (!server.real) fail('This server has no pg_cron.')
for (const deadline = Date.now() + 40_000; ; ) {
  const runs = await sql`
    select j.jobname as job, d.status, d.username, d.return_message as said
      from cron.job as j join cron.job_run_details as d using (jobid)
     where d.end_time is not null`
  const wrong = runs.filter(({ status, username }) => status !== 'succeeded' || username !== 'postgres')
  if (wrong.length > 0) fail(wrong.map(({ job, username, said }) => `${job} as ${username}: ${said}`).join('\n'))
  const missing = expected.filter((job) => !runs.some((run) => run.job === job))
  if (missing.length === 0) break
  if (Date.now() > deadline) fail(`pg_cron has not run ${missing.join(' and ')} within 40 s.`)
  await new Promise((resolve) => setTimeout(resolve, 200))
}
await sql.end()

function fail(reason) {
  console.error(reason)
  process.exit(1)
}
