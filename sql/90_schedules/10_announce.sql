-- Up to 1.6.7, pg_cron overlooks jobs that are committed together with more changes of the catalogue than its queue holds,
-- as those of the baseline are: it would run none of them, and say nothing. So this is a migration of its own, which
-- changes nothing but makes pg_cron read its jobs again, after its scheduler, which looks each second, has seen the rest.
-- Where pg_cron is not the real one there is nothing to wait for.
select pg_sleep(2) where to_regprocedure('cron.job_cache_invalidate()') is not null;
select cron.alter_job(j.jobid, active => j.active) from cron.job as j;
