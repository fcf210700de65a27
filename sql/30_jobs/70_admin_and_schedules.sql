-- Sends a dead letter again, with all its attempts.
create function admin.redrive_job(job_id uuid)
returns public.jobs
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  job    public.jobs;
  work   private.job_work;
begin
  select w.* into work from private.job_work as w where w.job_id = redrive_job.job_id for update;
  select j.* into job from public.jobs as j where j.id = redrive_job.job_id for update;
  if not found then
    raise sqlstate 'PT404' using message = 'job_not_found', detail = 'There is no job with this id.';
  elsif work.stage is distinct from 'dead' then
    raise sqlstate 'PT409' using
      message = 'job_not_failed',
      detail  = 'Only a failed job whose state the queue keeps can be sent again; this one is ' || job.status || '.';
  end if;

  perform private.queue_forget(work.priority, work.msg_id);
  if work.owner_id is null then
    update private.job_work as w
    set stage = 'queued', msg_id = private.queue_send(w.priority, w.job_id, clock_timestamp())
    where w.job_id = job.id;
  else
    update private.job_work as w set stage = 'waiting', msg_id = null where w.job_id = job.id;
  end if;
  update public.jobs as j
  set status = 'waiting', attempts = 0, progress = 0, cancel_requested = false, finished_at = null
  where j.id = job.id
  returning j.* into job;
  if work.owner_id is not null then
    perform private.admit_jobs(work.owner_id);
  end if;
  perform private.wake_worker();
  return job;
end;
$$;

-- Sends all dead letters of a kind again, the oldest first.
create function admin.redrive_jobs(kind text, batch integer default 1000)
returns integer
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  dead   uuid;
  driven integer := 0;
begin
  for dead in
    select w.job_id
    from private.job_work as w
    join public.jobs as j on j.id = w.job_id
    where w.stage = 'dead' and j.kind = redrive_jobs.kind
    order by w.job_id
    limit redrive_jobs.batch
    for update of w skip locked
  loop
    perform admin.redrive_job(dead);
    driven := driven + 1;
  end loop;
  return driven;
end;
$$;

-- Jobs as an operator wants to see them: what waits, runs or died, with the queue's side.
create view admin.open_and_failed_jobs as
select j.id, j.kind, j.owner_id, j.status, (array['high', 'normal', 'low'])[w.priority] as priority, w.stage, w.due_at,
  j.attempts, j.max_attempts, j.error, j.created_at, j.started_at, j.finished_at, w.worker_id, w.msg_id
from public.jobs as j
join private.job_work as w on w.job_id = j.id;

-- Jobs that failed for good, with what they were to do.
create view admin.dead_letters as
select j.id, j.kind, j.owner_id, (array['high', 'normal', 'low'])[w.priority] as priority, w.payload::jsonb as payload, j.error,
  j.attempts, j.created_at, j.finished_at as died_at
from private.job_work as w
join public.jobs as j on j.id = w.job_id
where w.stage = 'dead';

-- The state of the queue by priority and kind. Throughput comes from the index on ended jobs.
create view admin.queue_metrics as
select (array['high', 'normal', 'low'])[o.priority] as priority, coalesce(o.kind, e.kind) as kind,
  coalesce(o.depth, 0) as depth, coalesce(o.not_admitted, 0) as not_admitted, coalesce(o.delayed, 0) as delayed,
  coalesce(o.visible, 0) as visible, coalesce(o.in_flight, 0) as in_flight, coalesce(o.dead, 0) as dead,
  o.oldest_waiting_seconds, coalesce(e.completed, 0) as kind_completed_in_5_minutes,
  coalesce(e.failed, 0) as kind_failed_in_5_minutes
from (
  select w.priority, j.kind,
    count(*) filter (where w.stage <> 'dead') as depth,
    count(*) filter (where w.stage = 'waiting') as not_admitted,
    count(*) filter (where w.stage = 'delayed' or (w.lease_token is null and m.vt > now())) as delayed,
    count(*) filter (where m.vt <= now()) as visible,
    count(*) filter (where w.lease_token is not null and m.vt > now()) as in_flight,
    count(*) filter (where w.stage = 'dead') as dead,
    extract(epoch from now() - min(j.created_at) filter (where w.stage <> 'dead' and w.lease_token is null))::bigint
      as oldest_waiting_seconds
  from private.job_work as w
  join public.jobs as j on j.id = w.job_id
  left join private.queue_messages as m on w.stage = 'queued' and m.priority = w.priority and m.msg_id = w.msg_id
  group by w.priority, j.kind
) as o
full join (
  select j.kind,
    count(*) filter (where j.status = 'completed') as completed,
    count(*) filter (where j.status = 'failed') as failed
  from public.jobs as j
  where j.finished_at > now() - interval '5 minutes'
  group by j.kind
) as e on e.kind = o.kind;

revoke all on table admin.open_and_failed_jobs, admin.dead_letters, admin.queue_metrics
  from public, anon, authenticated, service_role;
comment on view admin.open_and_failed_jobs is 'Jobs that wait, run or died; failed ones can be sent again with admin.redrive_job.';
comment on view admin.dead_letters is 'Jobs that failed for good, with payload and last error; see admin.redrive_job and admin.redrive_jobs.';
comment on view admin.queue_metrics is
'By priority and kind: open jobs (depth), of these not admitted (their owner has two messages in the queue), delayed, '
'visible to workers and in flight; dead ones; age of the oldest that waits; what the kind ended in the last five minutes.';

revoke all on function admin.redrive_job(uuid), admin.redrive_jobs(text, integer)
  from public, anon, authenticated, service_role;
comment on function admin.redrive_job(uuid) is
'Sends a failed job again with a fresh count of attempts. Raises PT404 job_not_found, PT409 job_not_failed.';
comment on function admin.redrive_jobs(text, integer) is
'Sends up to batch failed jobs of a kind again; returns how many.';

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
  perform private.queue_prune(prune_jobs.at - interval '30 days');
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
