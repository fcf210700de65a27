import { expect, it } from 'vitest'
import { database, superuser, until } from '../support/local.ts'

it('the real extensions are in use, not their stand-ins', async () => {
  const rows = await superuser()`
    select e.extname as name
      from pg_extension e
     where e.extname in ('vector', 'pg_cron', 'pgtap', 'plpgsql_check')
       -- A stand-in is a bare catalogue row: no object belongs to it.
       and exists (select from pg_depend d where d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid)
     order by 1`

  expect(rows.map(({ name }) => name)).toEqual(['pg_cron', 'pgtap', 'plpgsql_check', 'vector'])
})

it('plpgsql_check finds nothing to say about any function', async () => {
  const findings = await superuser()`
    select p.oid::regprocedure::text as name, c.level, c.message
      from pg_proc p
      join pg_language l on l.oid = p.prolang and l.lanname = 'plpgsql'
      left join pg_trigger t on t.tgfoid = p.oid
     cross join lateral extensions.plpgsql_check_function_tb(p.oid, coalesce(t.tgrelid, 0), fatal_errors => false) c
     where p.pronamespace::regnamespace::text in ('public', 'service', 'private', 'admin')
       and (p.prorettype <> 'trigger'::regtype or t.oid is not null)`

  expect(findings.map(({ name, message }) => `${name}: ${message}`)).toEqual([])
})

it('pg_cron runs every scheduled job without an error', async () => {
  const failed = await until(async () => {
    const runs = await database()`
      select j.jobname, d.status, d.return_message
        from cron.job j
        join cron.job_run_details d using (jobid)
       where d.end_time is not null`
    return runs.length > 0 && runs.filter(({ status }) => status !== 'succeeded')
  }, 70_000)

  expect(failed).toEqual([])
}, 80_000)
