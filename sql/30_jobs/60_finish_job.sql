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
    * ((1 + least(greatest(backoff.random, 0), 1)) / 2);
$$;

-- Takes a job out of the queue for good: the one place where a job becomes completed, failed or
-- cancelled, those apart whose worker completes them (private.complete_job and complete_jobs). The message of a failed job goes to
-- the archive as a dead letter, unless another table keeps its state; the others are deleted. The next
-- job of its owner is admitted. False: it had ended.
create function private.end_job(job_id uuid, status text, result jsonb default null, error jsonb default null)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  work private.job_work;
  dead boolean := false;
begin
  select w.* into work from private.job_work as w where w.job_id = end_job.job_id and w.stage <> 'dead' for update;
  if not found then
    return false;
  end if;
  dead := end_job.status = 'failed' and not work.is_alarm;

  if work.stage = 'queued' and dead then
    perform private.queue_archive(work.priority, work.msg_id);
  elsif work.stage = 'queued' then
    perform private.queue_delete(work.priority, work.msg_id);
  end if;
  if dead then
    update private.job_work as w
    set stage = 'dead', due_at = null, lease_token = null, worker_id = null
    where w.job_id = work.job_id;
  else
    delete from private.job_work as w where w.job_id = work.job_id;
  end if;

  update public.jobs as j
  set status = end_job.status,
    progress = case when end_job.status = 'completed' then 100 else j.progress end,
    result = end_job.result,
    error = case when end_job.status = 'completed' then null else coalesce(end_job.error, j.error) end,
    finished_at = clock_timestamp()
  where j.id = work.job_id;

  if work.owner_id is not null and work.stage = 'queued' then
    perform private.admit_jobs(work.owner_id);
  end if;
  return true;
end;
$$;

-- Puts a job back. Its lease ends, so whoever held it can change nothing more. A person's job that waits
-- gives its seat to their next one; a job whose owner asked to stop it is cancelled instead.
create function private.postpone_job(job_id uuid, delay interval, error jsonb default null)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  work private.job_work;
begin
  select w.* into work from private.job_work as w where w.job_id = postpone_job.job_id and w.stage <> 'dead' for update;
  if not found then
    return;
  elsif exists (select from public.jobs as j where j.id = work.job_id and j.cancel_requested) then
    perform private.end_job(work.job_id, 'cancelled', error => postpone_job.error);
    return;
  end if;

  update public.jobs as j
  set status = 'waiting', error = coalesce(postpone_job.error, j.error)
  where j.id = work.job_id and j.status = 'active';
  if work.stage <> 'queued' then
    -- Not in the queue yet: only the day on which it may stand in line moves.
    update private.job_work as w
    set stage = case when postpone_job.delay > interval '0' then 'delayed' else 'waiting' end,
      due_at = case when postpone_job.delay > interval '0' then clock_timestamp() + postpone_job.delay end
    where w.job_id = work.job_id;
    perform private.admit_jobs(work.owner_id);
  elsif work.owner_id is not null and postpone_job.delay > interval '0' then
    perform private.queue_delete(work.priority, work.msg_id);
    update private.job_work as w
    set stage = 'delayed', due_at = clock_timestamp() + postpone_job.delay, msg_id = null, lease_token = null, worker_id = null
    where w.job_id = work.job_id;
    perform private.admit_jobs(work.owner_id);
  else
    update private.job_work as w set lease_token = null, worker_id = null where w.job_id = work.job_id;
    perform private.queue_hide(work.priority, work.msg_id, greatest(postpone_job.delay, interval '0'));
  end if;
  -- A worker that is woken lingers, and lets in what is due meanwhile.
  if postpone_job.delay < interval '10 seconds' then
    perform private.wake_worker();
  end if;
end;
$$;

-- Completes a job whose token is right: the common end of an attempt, in as few steps as it takes, since
-- each statement and each expression is set up anew in every transaction.
-- Returns the priority and the id of its message. Null: another end, which private.finish_job finds.
create function private.complete_job(job_id uuid, lease_token uuid, result jsonb)
returns bigint[]
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  rank    smallint;
  message bigint;
  owner   uuid;
begin
  delete from private.job_work as w
  where w.job_id = complete_job.job_id and w.lease_token = complete_job.lease_token and not w.is_alarm
  returning w.priority, w.msg_id, w.owner_id into rank, message, owner;
  if not found then
    return null;
  end if;
  perform private.queue_delete(rank, message);
  update public.jobs as j
  set status = 'completed', progress = 100, result = complete_job.result, error = null, finished_at = clock_timestamp()
  where j.id = complete_job.job_id;
  if owner is not null then
    perform private.admit_jobs(owner);
  end if;
  return array[rank, message];
end;
$$;

-- Completes every job of the batch whose token is right, all in three statements, then admits the next
-- jobs of their owners. Jobs are locked in the order of their ids, so that batches cannot deadlock.
-- Returns the ids of those that were completed.
create function private.complete_jobs(batch jsonb)
returns uuid[]
language plpgsql
volatile
security invoker
set search_path = ''
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  ended record;
begin
  with given as (
    select b.job_id, b.lease_token, b.outcome -> 'result' as result
    from jsonb_to_recordset(complete_jobs.batch) as b (job_id uuid, lease_token uuid, outcome jsonb)
    where b.outcome ->> 'status' = 'completed'
  ),
  held as (
    select w.job_id, g.result
    from given as g
    join private.job_work as w on w.job_id = g.job_id and w.lease_token = g.lease_token and not w.is_alarm
    order by w.job_id
    for update of w
  ),
  gone as (
    delete from private.job_work as w
    using held as h
    where w.job_id = h.job_id
    returning w.job_id, w.owner_id, w.priority, w.msg_id, h.result
  ),
  done as (
    update public.jobs as j
    set status = 'completed', progress = 100, result = nullif(g.result, 'null'), error = null, finished_at = clock_timestamp()
    from gone as g
    where j.id = g.job_id
  )
  select array_agg(g.job_id) as jobs,
    array_agg(distinct g.owner_id order by g.owner_id) filter (where g.owner_id is not null) as owners,
    array_agg(g.msg_id) filter (where g.priority = 1) as high,
    array_agg(g.msg_id) filter (where g.priority = 2) as normal,
    array_agg(g.msg_id) filter (where g.priority = 3) as low
  into ended
  from gone as g;

  if ended.high is not null then
    perform private.queue_delete_many(1::smallint, ended.high);
  end if;
  if ended.normal is not null then
    perform private.queue_delete_many(2::smallint, ended.normal);
  end if;
  if ended.low is not null then
    perform private.queue_delete_many(3::smallint, ended.low);
  end if;
  if ended.owners is not null then
    perform private.admit_jobs(o) from unnest(ended.owners) as o;
  end if;
  return coalesce(ended.jobs, '{}');
end;
$$;

-- Ends a worker's attempt. outcome: {status: completed | retry | failed | cancelled, result, error:
-- {code, detail}, retry_after_seconds}. Runs as its owner: workers reach no table.
create function private.finish_job(job_id uuid, lease_token uuid, outcome jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
set enable_seqscan = off
set jit = off
as $$
declare
  said  constant text := finish_job.outcome ->> 'status';
  work  private.job_work;
  job   public.jobs;
  delay interval;
begin
  if said is null or said not in ('completed', 'retry', 'failed', 'cancelled') then
    raise exception 'outcome status % is not completed, retry, failed or cancelled', said;
  end if;
  if said = 'completed' and private.complete_job(
    finish_job.job_id, finish_job.lease_token, nullif(finish_job.outcome -> 'result', 'null')
  ) is not null then
    return jsonb_build_object('status', 'completed');
  end if;

  select w.* into work from private.job_work as w where w.job_id = finish_job.job_id for update;
  select j.* into job from public.jobs as j where j.id = finish_job.job_id;
  if job.id is null then
    return jsonb_build_object('status', 'lost_lease');
  elsif work.job_id is null or work.stage = 'dead' then
    return jsonb_build_object('status', job.status);
  elsif work.lease_token is distinct from finish_job.lease_token then
    return jsonb_build_object('status', 'lost_lease');
  elsif work.is_alarm then
    -- Whoever keeps the truth ends the job; until then the alarm rings again.
    perform private.postpone_job(job.id, interval '30 seconds');
    return jsonb_build_object('status', 'waiting');
  elsif said = 'cancelled' or job.cancel_requested then
    perform private.end_job(job.id, 'cancelled', error => finish_job.outcome -> 'error');
  elsif said = 'failed' or job.attempts >= job.max_attempts then
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

  select j.status into job.status from public.jobs as j where j.id = finish_job.job_id;
  return jsonb_build_object('status', job.status);
end;
$$;

-- Ends many attempts: [{job_id, lease_token, outcome}], each as finish_job would. Runs as its owner:
-- workers reach no table.
create function private.finish_jobs(batch jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  completed uuid[] := private.complete_jobs(finish_jobs.batch);
  entry     record;
  answer    jsonb;
begin
  select jsonb_agg(jsonb_build_object('job_id', c, 'status', 'completed')) into answer from unnest(completed) as c;
  answer := coalesce(answer, '[]');
  if cardinality(completed) < jsonb_array_length(finish_jobs.batch) then
    for entry in
      select b.job_id, b.lease_token, b.outcome
      from jsonb_to_recordset(finish_jobs.batch) as b (job_id uuid, lease_token uuid, outcome jsonb)
      where b.job_id <> all (completed)
      order by b.job_id
    loop
      answer := answer
        || jsonb_set(private.finish_job(entry.job_id, entry.lease_token, entry.outcome), '{job_id}', to_jsonb(entry.job_id));
    end loop;
  end if;
  return answer;
end;
$$;

-- Ends an attempt as finish_job does and, in the same transaction, gives the slot that it frees its next job:
-- what a busy worker does for each job, in one round trip. Runs as its owner: workers reach no table.
create function private.finish_and_claim(job_id uuid, lease_token uuid, outcome jsonb, worker_id uuid)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
set enable_seqscan = off
set jit = off
as $$
declare
  ended  bigint[];
  answer jsonb;
begin
  if finish_and_claim.outcome ->> 'status' = 'completed' then
    ended := private.complete_job(
      finish_and_claim.job_id, finish_and_claim.lease_token, nullif(finish_and_claim.outcome -> 'result', 'null')
    );
  end if;
  if ended is null then
    answer := private.finish_job(finish_and_claim.job_id, finish_and_claim.lease_token, finish_and_claim.outcome);
    return answer || jsonb_build_object('next', coalesce(private.claim_job(finish_and_claim.worker_id), '[]'));
  end if;
  return jsonb_build_object(
    'status', 'completed', 'next', coalesce(private.claim_job(finish_and_claim.worker_id, ended), '[]')
  );
end;
$$;

-- Renews the worker's heartbeat and the visibility of the jobs it still holds. leases:
-- [{job_id, lease_token, progress?}]; answer: [{job_id, lease_lost, cancel_requested}].
create function private.extend_jobs(worker_id uuid, leases jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  lease  record;
  work   private.job_work;
  asked  boolean;
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
    asked := false;
    select w.* into work
    from private.job_work as w
    where w.job_id = lease.job_id and w.stage = 'queued' and w.lease_token = lease.lease_token
    for update;
    if found then
      perform private.queue_hide(work.priority, work.msg_id, interval '30 seconds');
      update public.jobs as j
      set progress = least(greatest(lease.progress, 0), 100)
      where j.id = lease.job_id and j.progress <> lease.progress;
      select j.cancel_requested into asked from public.jobs as j where j.id = lease.job_id;
    end if;
    answer := answer || jsonb_build_object(
      'job_id', lease.job_id, 'lease_lost', work.job_id is null, 'cancel_requested', asked
    );
  end loop;
  return answer;
end;
$$;

-- Hands back whatever a worker still holds, at once and without costing an attempt, and forgets
-- the worker. Reads all open jobs for that, since an index by worker would cost every claim.
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
    from private.job_work as w
    where j.id = held and w.job_id = held and not w.is_alarm and j.attempts > 0 and j.status = 'active';
    perform private.postpone_job(held, interval '0');
    released := released + 1;
  end loop;
  return jsonb_build_object('released', released);
end;
$$;

create function service.finish_job(job_id uuid, lease_token uuid, outcome jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  return private.finish_job(finish_job.job_id, finish_job.lease_token, finish_job.outcome);
end;
$$;

create function service.finish_and_claim(job_id uuid, lease_token uuid, outcome jsonb, worker_id uuid)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  return private.finish_and_claim(
    finish_and_claim.job_id, finish_and_claim.lease_token, finish_and_claim.outcome, finish_and_claim.worker_id
  );
end;
$$;

create function service.finish_jobs(batch jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  return private.finish_jobs(finish_jobs.batch);
end;
$$;

create function service.extend_jobs(worker_id uuid, leases jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  return private.extend_jobs(extend_jobs.worker_id, extend_jobs.leases);
end;
$$;

create function service.release_jobs(worker_id uuid)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  return private.release_jobs(release_jobs.worker_id);
end;
$$;

revoke all on function
  private.backoff(integer, double precision, interval, interval),
  private.end_job(uuid, text, jsonb, jsonb), private.postpone_job(uuid, interval, jsonb),
  private.complete_job(uuid, uuid, jsonb), private.complete_jobs(jsonb)
  from public, anon, authenticated, service_role;
revoke all on function
  private.finish_job(uuid, uuid, jsonb), service.finish_job(uuid, uuid, jsonb),
  private.finish_and_claim(uuid, uuid, jsonb, uuid), service.finish_and_claim(uuid, uuid, jsonb, uuid),
  private.finish_jobs(jsonb), service.finish_jobs(jsonb),
  private.extend_jobs(uuid, jsonb), service.extend_jobs(uuid, jsonb),
  private.release_jobs(uuid), service.release_jobs(uuid)
  from public, anon, authenticated, service_role;
grant execute on function
  private.finish_job(uuid, uuid, jsonb), service.finish_job(uuid, uuid, jsonb),
  private.finish_and_claim(uuid, uuid, jsonb, uuid), service.finish_and_claim(uuid, uuid, jsonb, uuid),
  private.finish_jobs(jsonb), service.finish_jobs(jsonb),
  private.extend_jobs(uuid, jsonb), service.extend_jobs(uuid, jsonb),
  private.release_jobs(uuid), service.release_jobs(uuid)
  to service_role;

comment on function service.finish_job(uuid, uuid, jsonb) is
'Ends an attempt with {status: completed | retry | failed | cancelled, result?, error?: {code, detail}, retry_after_seconds?}. '
'Answers {status}: the job''s status now, or lost_lease when the token is stale, and then nothing changed. '
'A retry after the last attempt fails the job, any outcome but completed cancels one whose owner asked for that. '
'A job of kind generation is ended by finish_generation alone.';
comment on function service.finish_and_claim(uuid, uuid, jsonb, uuid) is
'Ends an attempt as finish_job does, and claims the next job for the slot that it frees; answers {status, next}, next being '
'an array as claim_jobs gives it: one job, or none when claim_jobs has to be asked.';
comment on function service.finish_jobs(jsonb) is
'Ends many attempts at once: [{job_id, lease_token, outcome}], each as finish_job does; answers [{job_id, status}].';
comment on function service.extend_jobs(uuid, jsonb) is
'Keeps [{job_id, lease_token, progress?}] for 30 more seconds and the worker alive; '
'answers [{job_id, lease_lost, cancel_requested}].';
comment on function service.release_jobs(uuid) is
'Hands back all jobs of a worker that stops, without costing an attempt; answers {released}.';
