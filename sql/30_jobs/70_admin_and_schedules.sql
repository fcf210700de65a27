-- Sends a dead letter again, with all its attempts.
create function admin.redrive_job(job_id uuid)
returns public.jobs
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  job   public.jobs;
  work  private.job_work;
  alarm boolean;
begin
  select w.* into work from private.job_work as w where w.job_id = redrive_job.job_id for update;
  select j.* into job from public.jobs as j where j.id = redrive_job.job_id for update;
  if not found then
    raise sqlstate 'PT404' using message = 'job_not_found', detail = 'There is no job with this id.';
  end if;
  select k.is_alarm into alarm from private.job_kinds as k where k.kind = job.kind;
  if job.status <> 'failed' or alarm then
    raise sqlstate 'PT409' using
      message = 'job_not_failed',
      detail  = 'Only a failed job whose state the queue keeps can be sent again; this one is ' || job.status || '.';
  end if;

  perform private.queue_forget('infinity', work.msg_id);
  update private.job_work as w
  set is_open = true, msg_id = private.queue_send(job.id, clock_timestamp())
  where w.job_id = job.id;
  update public.jobs as j
  set status = 'waiting', attempts = 0, progress = 0, finished_at = null
  where j.id = job.id
  returning j.* into job;
  perform private.wake_worker();
  return job;
end;
$$;

revoke all on function admin.redrive_job(uuid) from public, anon, authenticated, service_role;
comment on function admin.redrive_job(uuid) is
'Sends a failed job again with a fresh count of attempts. Raises PT404 job_not_found, PT409 job_not_failed.';

-- Jobs as an operator wants to see them: what waits, runs or died, with the queue's side.
create view admin.open_and_failed_jobs as
select j.id, j.kind, j.owner_id, j.status, j.attempts, j.max_attempts, j.error, j.created_at, j.started_at,
  j.finished_at, w.worker_id, w.msg_id
from public.jobs as j
join private.job_work as w on w.job_id = j.id
where j.status in ('waiting', 'active', 'failed');

revoke all on table admin.open_and_failed_jobs from public, anon, authenticated, service_role;
comment on view admin.open_and_failed_jobs is 'Jobs that wait, run or died; failed ones can be sent again with admin.redrive_job.';

-- Drops ended jobs and dead letters after thirty days, a batch at a time.
create function private.prune_jobs(at timestamptz default clock_timestamp(), batch integer default 10000)
returns bigint
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  pruned bigint;
begin
  with old as (
    select j.id
    from public.jobs as j
    where j.finished_at < prune_jobs.at - interval '30 days'
    order by j.finished_at
    limit prune_jobs.batch
    for update skip locked
  )
  delete from public.jobs as j using old as o where j.id = o.id;
  get diagnostics pruned = row_count;
  perform private.queue_forget(prune_jobs.at - interval '30 days');
  return pruned;
end;
$$;

revoke all on function private.prune_jobs(timestamptz, integer) from public, anon, authenticated, service_role;
comment on function private.prune_jobs(timestamptz, integer) is
'Drops jobs and dead letters that ended more than thirty days before `at`; returns how many jobs.';

select cron.schedule('sweep-jobs', '10 seconds', 'select private.sweep_jobs()');
select cron.schedule('prune-jobs', '* * * * *', 'select private.prune_jobs()');
select cron.schedule(
  'prune-cron-runs', '47 3 * * *',
  'delete from cron.job_run_details where end_time < now() - interval ''2 days'''
);
