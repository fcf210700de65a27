-- Gives a worker up to `slots` jobs for 30 seconds each. The floor is a hint that spares the scan
-- over dead rows: it rises with what the worker has seen, stays a margin below the tail (commits
-- reorder), is lowered once a second for messages that became visible again, and is ignored once a
-- minute, so that a wrong floor delays and never loses.
create function private.claim_jobs(worker_id uuid, slots integer)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  wanted  integer := least(greatest(coalesce(claim_jobs.slots, 0), 0), 1000);
  me      private.workers;
  seen_to bigint;
  tail    bigint;
  taken   bigint[];
  given   jsonb;
  started timestamptz := clock_timestamp();
  margin  constant bigint := 128;
begin
  select w.* into me from private.workers as w where w.id = claim_jobs.worker_id;
  if not found then
    insert into private.workers (id, seen_at, swept_at)
    values (claim_jobs.worker_id, started, started)
    on conflict (id) do update set seen_at = excluded.seen_at
    returning * into me;
    seen_to := 0;
  elsif me.swept_at < started - interval '1 minute' then
    seen_to := 0;
    me.swept_at := started;
  elsif me.seen_at < started - interval '1 second' then
    seen_to := least(me.floor, private.queue_lowest_visible_since(me.seen_at - interval '10 seconds') - 1);
  else
    seen_to := me.floor;
  end if;

  tail := private.queue_tail();
  -- An array, so that the next statement has a snapshot that holds the jobs of these messages.
  taken := array(select q from private.queue_claim(seen_to, wanted, interval '30 seconds') as q);

  if cardinality(taken) > 0 then
    given := private.lease_jobs(claim_jobs.worker_id, taken);
  end if;

  -- Nothing visible is left below what was taken, nor below the old tail when slots stayed empty.
  seen_to := greatest(
    seen_to,
    case
      when cardinality(taken) < wanted then tail
      when wanted > 0 then (select max(t) from unnest(taken) as t)
      else 0
    end - margin
  );
  if me.seen_at < started - interval '1 second' or me.swept_at = started or seen_to > me.floor + margin then
    update private.workers as w
    set floor = seen_to, seen_at = started, swept_at = me.swept_at
    where w.id = claim_jobs.worker_id;
  end if;

  return coalesce(given, '[]'::jsonb);
end;
$$;

-- Writes the leases of claimed messages, starts their jobs and returns them. A message without an
-- open job is removed; a job whose attempts are used up, because its workers died, ends here.
-- Everybody else locks job_work before the message, so here a locked row is skipped, not waited for.
create function private.lease_jobs(worker_id uuid, msg_ids bigint[])
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  locked uuid[];
  given  jsonb;
begin
  locked := array(
    select w.job_id
    from private.job_work as w
    where w.msg_id = any (lease_jobs.msg_ids) and w.is_open
    order by w.job_id
    for update skip locked
  );

  perform private.queue_delete(m.msg_id)
  from unnest(lease_jobs.msg_ids) as m (msg_id)
  where not exists (select from private.job_work as w where w.msg_id = m.msg_id and w.is_open);

  perform private.end_job(
    j.id, 'failed',
    error => coalesce(j.error, jsonb_build_object('code', 'attempts_exhausted', 'detail', 'Its workers died.'))
  )
  from public.jobs as j
  join private.job_kinds as k on k.kind = j.kind
  where j.id = any (locked) and j.attempts >= j.max_attempts and not k.is_alarm;

  with leased as (
    update private.job_work as w
    set worker_id = lease_jobs.worker_id, lease_token = gen_random_uuid()
    where w.job_id = any (locked) and w.is_open
    returning w.job_id, w.msg_id, w.payload, w.lease_token
  ),
  started as (
    update public.jobs as j
    set status = 'active', attempts = j.attempts + 1, started_at = coalesce(j.started_at, clock_timestamp())
    from leased as l, private.job_kinds as k
    where j.id = l.job_id and k.kind = j.kind and not k.is_alarm
    returning j.id, j.attempts
  )
  select jsonb_agg(
    jsonb_build_object(
      'job_id', l.job_id, 'msg_id', l.msg_id, 'kind', j.kind, 'payload', l.payload,
      'attempt', coalesce(s.attempts, j.attempts), 'lease_token', l.lease_token
    ) order by l.msg_id
  ) into given
  from leased as l
  join public.jobs as j on j.id = l.job_id
  left join started as s on s.id = l.job_id;
  return given;
end;
$$;

create function service.claim_jobs(worker_id uuid, slots integer)
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.claim_jobs(claim_jobs.worker_id, claim_jobs.slots);
$$;

revoke all on function private.lease_jobs(uuid, bigint[]) from public, anon, authenticated, service_role;
revoke all on function private.claim_jobs(uuid, integer), service.claim_jobs(uuid, integer)
  from public, anon, authenticated, service_role;
grant execute on function private.claim_jobs(uuid, integer), service.claim_jobs(uuid, integer) to service_role;
comment on function service.claim_jobs(uuid, integer) is
'Up to slots jobs for this worker as [{job_id, msg_id, kind, payload, attempt, lease_token}], each for 30 seconds. '
'Also the worker''s heartbeat: call it, or extend_jobs, at least every few seconds.';
