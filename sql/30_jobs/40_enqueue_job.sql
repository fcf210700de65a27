-- Makes a job, in the caller's transaction. With a dedupe key at most one open job of the kind has it:
-- the same call again returns that job's id. Call it late in a transaction: from here on the owner's
-- seats are held. Without scans, since a session keeps the plans by which foreign keys are checked, and one made while
-- there were few jobs would read all of them for each new one later.
create function private.enqueue_job(
  kind text,
  owner_id uuid,
  payload jsonb,
  delay interval default '0',
  dedupe_key text default null,
  priority text default null
)
returns uuid
language plpgsql
volatile
security invoker
set search_path = ''
set enable_seqscan = off
set jit = off
as $$
declare
  job      uuid;
  known    private.job_kinds;
  full_key text := enqueue_job.kind || ':' || enqueue_job.dedupe_key;
  rank     smallint;
  stage    text := 'queued';
begin
  select k.* into known from private.job_kinds as k where k.kind = enqueue_job.kind;
  rank := array_position(array['high', 'normal', 'low'], coalesce(enqueue_job.priority, known.priority));
  if known.kind is null then
    raise exception 'job kind % is not in private.job_kinds', enqueue_job.kind;
  elsif rank is null then
    raise exception 'priority % is not high, normal or low', enqueue_job.priority;
  end if;

  if full_key is not null then
    -- Two sessions with one key queue up here, so the second one finds the first one's row.
    perform pg_advisory_xact_lock(hashtextextended('job ' || full_key, 0));
    select w.job_id into job from private.job_work as w where w.dedupe_key = full_key and w.stage <> 'dead';
    if found then
      return job;
    end if;
  end if;

  job := private.uuid_v7();
  if enqueue_job.owner_id is not null then
    if enqueue_job.delay > interval '0' then
      stage := 'delayed';
    elsif not private.hold_seats(enqueue_job.owner_id) or private.free_seats(enqueue_job.owner_id) <= 0 then
      stage := 'waiting';
    end if;
  end if;

  insert into public.jobs (id, owner_id, kind, max_attempts)
  values (job, enqueue_job.owner_id, known.kind, known.max_attempts);
  insert into private.job_work (job_id, owner_id, priority, is_alarm, stage, due_at, msg_id, dedupe_key, payload)
  values (
    job, enqueue_job.owner_id, rank, known.is_alarm, stage,
    case when stage = 'delayed' then clock_timestamp() + enqueue_job.delay end,
    case when stage = 'queued' then private.queue_send(rank, job, clock_timestamp() + enqueue_job.delay) end,
    full_key, enqueue_job.payload
  );

  if enqueue_job.delay <= interval '0' then
    perform private.wake_worker();
  end if;
  return job;
end;
$$;

-- Makes many jobs of one kind and one owner, in the caller's transaction; returns their ids in the order
-- of the payloads.
create function private.enqueue_jobs(
  kind text,
  owner_id uuid,
  payloads jsonb[],
  delay interval default '0',
  priority text default null
)
returns uuid[]
language plpgsql
volatile
security invoker
set search_path = ''
set enable_seqscan = off
set jit = off
as $$
declare
  jobs  uuid[];
  sent  bigint[];
  known private.job_kinds;
  rank  smallint;
begin
  select k.* into known from private.job_kinds as k where k.kind = enqueue_jobs.kind;
  rank := array_position(array['high', 'normal', 'low'], coalesce(enqueue_jobs.priority, known.priority));
  if known.kind is null then
    raise exception 'job kind % is not in private.job_kinds', enqueue_jobs.kind;
  elsif rank is null then
    raise exception 'priority % is not high, normal or low', enqueue_jobs.priority;
  end if;

  jobs := array(select private.uuid_v7() from generate_series(1, cardinality(enqueue_jobs.payloads)));
  insert into public.jobs (id, owner_id, kind, max_attempts)
  select j, enqueue_jobs.owner_id, known.kind, known.max_attempts from unnest(jobs) as j;
  if enqueue_jobs.owner_id is null then
    sent := private.queue_send_many(rank, jobs, clock_timestamp() + enqueue_jobs.delay);
  end if;
  insert into private.job_work (job_id, owner_id, priority, is_alarm, stage, due_at, msg_id, payload)
  select m.job, enqueue_jobs.owner_id, rank, known.is_alarm,
    case
      when enqueue_jobs.owner_id is null then 'queued'
      when enqueue_jobs.delay > interval '0' then 'delayed'
      else 'waiting'
    end,
    case
      when enqueue_jobs.owner_id is not null and enqueue_jobs.delay > interval '0' then clock_timestamp() + enqueue_jobs.delay
    end,
    m.msg_id, m.payload
  from unnest(jobs, sent, enqueue_jobs.payloads) as m (job, msg_id, payload);

  if enqueue_jobs.delay <= interval '0' then
    if enqueue_jobs.owner_id is not null then
      perform private.admit_jobs(enqueue_jobs.owner_id);
    end if;
    perform private.wake_worker();
  end if;
  return jobs;
end;
$$;

revoke all on function
  private.enqueue_job(text, uuid, jsonb, interval, text, text), private.enqueue_jobs(text, uuid, jsonb[], interval, text)
  from public, anon, authenticated, service_role;
comment on function private.enqueue_job(text, uuid, jsonb, interval, text, text) is
'Makes a job (kind, owner''s user id or null, payload) that may start after delay; returns its id. '
'At most one open job of a kind has a given dedupe_key. priority: high, normal or low; by default the kind''s.';
comment on function private.enqueue_jobs(text, uuid, jsonb[], interval, text) is
'Makes one job for each payload, all of one kind and owner; returns their ids in that order.';
