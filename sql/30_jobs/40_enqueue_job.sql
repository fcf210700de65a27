-- Makes a job and its message, in the caller's transaction. With a dedupe key at most one open job
-- of the kind has it: the same call again returns that job's id.
create function private.enqueue_job(
  kind text,
  owner_id uuid,
  payload jsonb,
  delay interval default '0',
  dedupe_key text default null
)
returns uuid
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  job  uuid := private.uuid_v7();
  full_key text := enqueue_job.kind || ':' || enqueue_job.dedupe_key;
begin
  if full_key is not null then
    -- Two sessions with one key queue up here, so the second one finds the first one's row.
    perform pg_advisory_xact_lock(hashtextextended('job ' || full_key, 0));
    select w.job_id into job from private.job_work as w where w.dedupe_key = full_key and w.is_open;
    if found then
      return job;
    end if;
    job := private.uuid_v7();
  end if;

  insert into public.jobs (id, owner_id, kind, max_attempts)
  select job, enqueue_job.owner_id, k.kind, k.max_attempts
  from private.job_kinds as k
  where k.kind = enqueue_job.kind;
  if not found then
    raise exception 'job kind % is not in private.job_kinds', enqueue_job.kind;
  end if;

  insert into private.job_work (job_id, payload, dedupe_key, msg_id)
  values (
    job, enqueue_job.payload, full_key,
    private.queue_send(job, clock_timestamp() + enqueue_job.delay)
  );

  if enqueue_job.delay <= interval '0' then
    perform private.wake_worker();
  end if;
  return job;
end;
$$;

revoke all on function private.enqueue_job(text, uuid, jsonb, interval, text)
  from public, anon, authenticated, service_role;
comment on function private.enqueue_job(text, uuid, jsonb, interval, text) is
'Makes a job (kind, owner''s user id or null, payload) that becomes visible to workers after delay; returns its id. '
'At most one open job of a kind has a given dedupe_key.';
