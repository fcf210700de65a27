-- Waiting time before attempt number `attempt + 1`: exponential, capped, the upper half random.
-- `random` is an argument, so the schedule is a pure function.
create function private.backoff(
  attempt integer,
  random double precision,
  base interval default '1 second',
  cap interval default '5 minutes'
)
returns interval
language sql
immutable
parallel safe
security invoker
set search_path = ''
as $$
  select least(backoff.cap, backoff.base * power(2, least(greatest(backoff.attempt, 1) - 1, 30)))
    * (0.5 + least(greatest(backoff.random, 0), 1) / 2);
$$;

-- Ends a job: the one place where a job becomes completed, failed or cancelled. The message of a
-- failed job goes to the archive as a dead letter, the others are deleted. False: it had ended.
create function private.end_job(job_id uuid, status text, result jsonb default null, error jsonb default null)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  message bigint;
begin
  select w.msg_id into message
  from private.job_work as w
  where w.job_id = end_job.job_id and w.is_open
  for update;
  if not found then
    return false;
  end if;

  update private.job_work as w
  set is_open = false, lease_token = null, worker_id = null
  where w.job_id = end_job.job_id;
  update public.jobs as j
  set status = end_job.status,
    progress = case when end_job.status = 'completed' then 100 else j.progress end,
    result = end_job.result,
    error = case when end_job.status = 'completed' then null else coalesce(end_job.error, j.error) end,
    finished_at = clock_timestamp()
  where j.id = end_job.job_id;

  if end_job.status = 'failed' then
    perform private.queue_archive(message);
  else
    perform private.queue_delete(message);
  end if;
  return true;
end;
$$;

-- Puts a job back into the queue. Its lease ends, so whoever held it can change nothing more.
create function private.postpone_job(job_id uuid, delay interval, error jsonb default null)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  message bigint;
begin
  update private.job_work as w
  set lease_token = null, worker_id = null
  where w.job_id = postpone_job.job_id and w.is_open
  returning w.msg_id into message;
  if not found then
    return;
  end if;
  update public.jobs as j
  set status = 'waiting', error = coalesce(postpone_job.error, j.error)
  where j.id = postpone_job.job_id and j.status = 'active';
  perform private.queue_hide(message, greatest(postpone_job.delay, interval '0'));
  if postpone_job.delay <= interval '0' then
    perform private.wake_worker();
  end if;
end;
$$;

-- Ends a worker's attempt. outcome: {status: completed | retry | failed, result, error: {code,
-- detail}, retry_after_seconds, random}. Runs as its owner: workers reach no table.
create function private.finish_job(job_id uuid, lease_token uuid, outcome jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  work  private.job_work;
  job   public.jobs;
  alarm boolean;
  delay interval;
begin
  select w.* into work from private.job_work as w where w.job_id = finish_job.job_id for update;
  select j.* into job from public.jobs as j where j.id = finish_job.job_id;
  if job.id is null then
    return jsonb_build_object('status', 'lost_lease');
  elsif not work.is_open then
    return jsonb_build_object('status', job.status);
  elsif work.lease_token is distinct from finish_job.lease_token then
    return jsonb_build_object('status', 'lost_lease');
  end if;

  select k.is_alarm into alarm from private.job_kinds as k where k.kind = job.kind;
  if alarm then
    -- Whoever keeps the truth ends the job; until then the alarm rings again.
    perform private.postpone_job(job.id, interval '30 seconds');
    return jsonb_build_object('status', 'waiting');
  end if;

  case finish_job.outcome ->> 'status'
    when 'completed' then
      perform private.end_job(job.id, 'completed', result => finish_job.outcome -> 'result');
    when 'failed' then
      perform private.end_job(job.id, 'failed', error => finish_job.outcome -> 'error');
    when 'retry' then
      if job.attempts >= job.max_attempts then
        perform private.end_job(job.id, 'failed', error => finish_job.outcome -> 'error');
      else
        delay := coalesce(
          case
            when finish_job.outcome ->> 'retry_after_seconds' is not null then
              make_interval(secs => least((finish_job.outcome ->> 'retry_after_seconds')::double precision, 86400))
          end,
          private.backoff(job.attempts, random())
        );
        perform private.postpone_job(job.id, delay, finish_job.outcome -> 'error');
      end if;
    else
      raise exception 'outcome status % is not completed, retry or failed', finish_job.outcome ->> 'status';
  end case;

  select j.status into job.status from public.jobs as j where j.id = finish_job.job_id;
  return jsonb_build_object('status', job.status);
end;
$$;

-- Renews the worker's heartbeat and the visibility of the jobs it still holds. leases:
-- [{job_id, lease_token, progress?}]; answer: [{job_id, lease_lost}].
create function private.extend_jobs(worker_id uuid, leases jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  lease  record;
  lost   boolean;
  message bigint;
  answer jsonb := '[]'::jsonb;
begin
  update private.workers as w
  set seen_at = clock_timestamp()
  where w.id = extend_jobs.worker_id and w.seen_at < clock_timestamp() - interval '1 second';

  -- In id order, so that two calls cannot deadlock.
  for lease in
    select l.job_id, l.lease_token, l.progress
    from jsonb_to_recordset(extend_jobs.leases) as l (job_id uuid, lease_token uuid, progress smallint)
    order by l.job_id
  loop
    select w.msg_id into message
    from private.job_work as w
    where w.job_id = lease.job_id and w.is_open and w.lease_token = lease.lease_token
    for update;
    lost := not found;
    if not lost then
      perform private.queue_hide(message, interval '30 seconds');
    end if;
    if not lost and lease.progress is not null then
      update public.jobs as j
      set progress = least(greatest(lease.progress, 0), 100)
      where j.id = lease.job_id and j.progress <> lease.progress;
    end if;
    answer := answer || jsonb_build_object('job_id', lease.job_id, 'lease_lost', lost);
  end loop;
  return answer;
end;
$$;

-- Hands back whatever a worker still holds, at once and without costing an attempt, and forgets
-- the worker.
create function private.release_jobs(worker_id uuid)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  held     uuid;
  released integer := 0;
begin
  delete from private.workers as w where w.id = release_jobs.worker_id;
  for held in
    select w.job_id from private.job_work as w where w.worker_id = release_jobs.worker_id order by w.job_id for update
  loop
    update public.jobs as j
    set attempts = j.attempts - 1
    from private.job_kinds as k
    where j.id = held and k.kind = j.kind and not k.is_alarm and j.attempts > 0 and j.status = 'active';
    perform private.postpone_job(held, interval '0');
    released := released + 1;
  end loop;
  return jsonb_build_object('released', released);
end;
$$;

create function service.finish_job(job_id uuid, lease_token uuid, outcome jsonb)
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.finish_job(finish_job.job_id, finish_job.lease_token, finish_job.outcome);
$$;

create function service.extend_jobs(worker_id uuid, leases jsonb)
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.extend_jobs(extend_jobs.worker_id, extend_jobs.leases);
$$;

create function service.release_jobs(worker_id uuid)
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.release_jobs(release_jobs.worker_id);
$$;

revoke all on function
  private.backoff(integer, double precision, interval, interval),
  private.end_job(uuid, text, jsonb, jsonb), private.postpone_job(uuid, interval, jsonb)
  from public, anon, authenticated, service_role;
revoke all on function
  private.finish_job(uuid, uuid, jsonb), service.finish_job(uuid, uuid, jsonb),
  private.extend_jobs(uuid, jsonb), service.extend_jobs(uuid, jsonb),
  private.release_jobs(uuid), service.release_jobs(uuid)
  from public, anon, authenticated, service_role;
grant execute on function
  private.finish_job(uuid, uuid, jsonb), service.finish_job(uuid, uuid, jsonb),
  private.extend_jobs(uuid, jsonb), service.extend_jobs(uuid, jsonb),
  private.release_jobs(uuid), service.release_jobs(uuid)
  to service_role;

comment on function service.finish_job(uuid, uuid, jsonb) is
'Ends an attempt with {status: completed | retry | failed, result?, error?: {code, detail}, retry_after_seconds?}. '
'Answers {status}: the job''s status now, or lost_lease when the token is stale, and then nothing changed. '
'A retry after the last attempt fails the job. A job of kind generation is ended by finish_generation alone.';
comment on function service.extend_jobs(uuid, jsonb) is
'Keeps [{job_id, lease_token, progress?}] for 30 more seconds and the worker alive; answers [{job_id, lease_lost}].';
comment on function service.release_jobs(uuid) is
'Hands back all jobs of a worker that stops, without costing an attempt; answers {released}.';
