-- How many of `slots` each priority gets when all three have work: 8 to 3 to 1. The allotment of a turn
-- is within one of its share, and whatever the number of slots, of any 12 turns in a row one gives low
-- priority a slot that it would not get by rank. A pure function of the turn.
create function private.allot_slots(slots integer, turn bigint)
returns integer[]
language plpgsql
immutable
parallel safe
security invoker
set search_path = ''
as $$
declare
  -- 5 has no divisor in common with 12: turns take all twelve offsets, in a mixed order. Half a step
  -- keeps sums away from the edge between two whole numbers.
  twelfths constant integer := (allot_slots.turn * 5 % 12)::integer;
begin
  return array[
    (2 * (8 * allot_slots.slots + twelfths) + 1) / 24,
    (2 * (11 * allot_slots.slots + twelfths) + 1) / 24 - (2 * (8 * allot_slots.slots + twelfths) + 1) / 24,
    allot_slots.slots - (2 * (11 * allot_slots.slots + twelfths) + 1) / 24
  ];
end;
$$;

create sequence private.claim_turn;
revoke all on sequence private.claim_turn from public, anon, authenticated, service_role;

-- Writes the lease of one claimed message and starts its job, in two plain statements: what lease_jobs
-- does for many by one large plan. Null: nothing to give out, and lease_jobs finds out why.
create function private.lease_job(worker_id uuid, job_id uuid, msg_id bigint)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  alarm   boolean;
  payload jsonb;
  token   uuid;
  kind    text;
  attempt smallint;
begin
  update private.job_work as w
  set worker_id = lease_job.worker_id, lease_token = gen_random_uuid()
  where w.job_id = (
    select f.job_id
    from private.job_work as f
    where f.job_id = lease_job.job_id and f.msg_id = lease_job.msg_id and f.stage = 'queued'
    for update skip locked
  )
  returning w.is_alarm, w.payload, w.lease_token into alarm, payload, token;
  if not alarm then
    update public.jobs as j
    set status = 'active', attempts = j.attempts + 1, started_at = coalesce(j.started_at, clock_timestamp())
    where j.id = lease_job.job_id and j.attempts < j.max_attempts and not j.cancel_requested
    returning j.kind, j.attempts into kind, attempt;
  elsif alarm then
    select j.kind, j.attempts into kind, attempt from public.jobs as j where j.id = lease_job.job_id;
  end if;
  if kind is null then
    return null;
  end if;
  return jsonb_build_array(
    jsonb_build_object(
      'job_id', lease_job.job_id, 'msg_id', lease_job.msg_id, 'kind', kind, 'payload', payload, 'attempt', attempt,
      'lease_token', token
    )
  );
end;
$$;

-- Writes the leases of claimed messages, starts their jobs and returns them. What cannot start is ended
-- or removed here: messages without a job, attempts used up because workers died, cancelled meanwhile.
-- Everybody else locks job_work before the message, so here a locked row is skipped, not waited for.
create function private.lease_jobs(worker_id uuid, job_ids uuid[], msg_ids bigint[], priorities smallint[])
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  given jsonb;
  other record;
begin
  with taken as (
    select w.job_id, w.kind, w.attempts, w.is_alarm
    from unnest(lease_jobs.job_ids, lease_jobs.msg_ids) as m (job_id, msg_id)
    -- Looked up one by one: a plan made while there are few jobs would go through all of them for each message.
    join lateral (
      select f.job_id, f.msg_id, f.is_alarm, j.kind, j.attempts
      from private.job_work as f
      join public.jobs as j on j.id = f.job_id
      where f.job_id = m.job_id and f.msg_id = m.msg_id and f.stage = 'queued'
        and (f.is_alarm or (j.attempts < j.max_attempts and not j.cancel_requested))
      for update of f skip locked
    ) as w on w.msg_id = m.msg_id
  ),
  leased as (
    update private.job_work as w
    set worker_id = lease_jobs.worker_id, lease_token = gen_random_uuid()
    from taken as t
    where w.job_id = t.job_id
    returning w.job_id, w.priority, w.msg_id, w.payload, w.lease_token, t.kind, t.attempts, t.is_alarm
  ),
  started as (
    update public.jobs as j
    set status = 'active', attempts = j.attempts + 1, started_at = coalesce(j.started_at, clock_timestamp())
    from leased as l
    where j.id = l.job_id and not l.is_alarm
  )
  select jsonb_agg(
    jsonb_build_object(
      'job_id', l.job_id, 'msg_id', l.msg_id, 'kind', l.kind, 'payload', l.payload,
      'attempt', case when l.is_alarm then l.attempts else l.attempts + 1 end, 'lease_token', l.lease_token
    ) order by l.priority, l.msg_id
  ) into given
  from leased as l;

  if coalesce(jsonb_array_length(given), 0) < cardinality(lease_jobs.job_ids) then
    for other in
      select m.msg_id, m.priority, w.job_id, j.cancel_requested, j.error
      from unnest(lease_jobs.job_ids, lease_jobs.msg_ids, lease_jobs.priorities) as m (job_id, msg_id, priority)
      left join private.job_work as w
        on w.job_id = m.job_id and w.msg_id = m.msg_id and w.stage = 'queued'
      left join public.jobs as j on j.id = w.job_id
      where w.job_id is null
        or (not w.is_alarm and (j.attempts >= j.max_attempts or j.cancel_requested))
      order by w.job_id
    loop
      if other.job_id is null then
        perform private.queue_delete(other.priority, other.msg_id);
        continue;
      end if;
      perform from private.job_work as w where w.job_id = other.job_id for update skip locked;
      -- Given out just now with its last attempt: not this one's business.
      continue when not found or exists (
        select from jsonb_array_elements(given) as g where (g ->> 'job_id')::uuid = other.job_id
      );
      if other.cancel_requested then
        perform private.end_job(other.job_id, 'cancelled');
      else
        perform private.end_job(
          other.job_id, 'failed',
          error => coalesce(other.error, jsonb_build_object('code', 'attempts_exhausted', 'detail', 'Its workers died.'))
        );
      end if;
    end loop;
  end if;
  return given;
end;
$$;

-- Gives a worker with one free slot its next job, in the least steps: what claim_jobs does for a worker
-- that is not due to beat, finds a message at once, and can start its job. `ended` is the priority and the
-- message of the job that made the slot free: what came long before it is taken. Null: everybody else.
create function private.claim_job(worker_id uuid, ended bigint[] default null)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  kept   bigint[];
  margin constant bigint := 32;
  got    record;
  given  jsonb;
begin
  select w.floors into kept
  from private.workers as w
  where w.id = claim_job.worker_id
    and w.seen_at >= clock_timestamp() - interval '1 second'
    and w.swept_at >= clock_timestamp() - interval '1 minute';
  if not found then
    return null;
  end if;
  got := private.queue_claim_one(
    array_position(private.allot_slots(1, nextval('private.claim_turn')), 1)::smallint, kept, claim_job.ended, margin,
    interval '30 seconds'
  );
  given := private.lease_job(claim_job.worker_id, got.job_id, got.msg_id);
  if given is null then
    return case
      when got.msg_id is not null then
        private.lease_jobs(claim_job.worker_id, array[got.job_id], array[got.msg_id], array[got.priority])
    end;
  end if;
  -- Written down when it pays.
  if got.msg_id > kept[got.priority] + 8 * margin then
    kept[got.priority] := got.msg_id - margin;
    update private.workers as w set floors = kept where w.id = claim_job.worker_id;
  end if;
  return given;
end;
$$;

-- Gives a worker up to `slots` jobs for 30 seconds each; waits up to wait_ms for the first. Slots that a
-- priority leaves empty go to the others, higher ones first. The floors are hints that spare the scan
-- over dead rows: they rise with what the worker has seen, stay a margin below the tail (commits
-- reorder), are lowered once a second for messages that became visible again, and are ignored once a
-- minute, so that a wrong floor delays and never loses. A plan is kept for the session, and one made while
-- the tables were small would read them whole later: hence no scans and hash joins, here and in what it calls. What
-- can only be scanned, as sequences and tables without an index, seems endlessly dear then, and would be compiled.
create function private.claim_jobs(worker_id uuid, slots integer, wait_ms integer default 0)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  wanted     integer := least(greatest(coalesce(claim_jobs.slots, 0), 0), 1000);
  started    timestamptz := clock_timestamp();
  give_up    timestamptz := started + make_interval(secs => least(greatest(claim_jobs.wait_ms, 0), 2000) / 1000.0);
  me         private.workers;
  beat       boolean := true;
  now_floors bigint[] := array[0, 0, 0]::bigint[];
  tails      bigint[];
  visible    boolean[];
  share      integer[];
  limits     integer;
  taken      integer[] := array[0, 0, 0];
  jobs       uuid[] := array[]::uuid[];
  messages   bigint[] := array[]::bigint[];
  priorities smallint[] := array[]::smallint[];
  got        record;
  highest    bigint[] := array[0, 0, 0]::bigint[];
  lowest     bigint[];
  margin     constant bigint := 32;
  given      jsonb;
begin
  select w.* into me from private.workers as w where w.id = claim_jobs.worker_id;
  if not found then
    insert into private.workers (id, seen_at, swept_at)
    values (claim_jobs.worker_id, started, started)
    on conflict (id) do update set seen_at = excluded.seen_at
    returning * into me;
  elsif me.swept_at < started - interval '1 minute' then
    me.swept_at := started;
  elsif me.seen_at < started - interval '1 second' then
    now_floors := me.floors;
    lowest := private.queue_lowest_visible_since(me.seen_at - interval '10 seconds');
    for p in 1..3 loop
      now_floors[p] := least(now_floors[p], lowest[p] - 1);
    end loop;
  else
    now_floors := me.floors;
    beat := false;
  end if;
  if beat then
    perform private.admit_due_jobs();
    -- Before the look at what is visible, so that no message comes between the two and below the floor.
    tails := private.queue_tails();
  end if;
  visible := private.queue_visible(now_floors);
  if wanted > 0 then
    while not (true = any (visible)) and clock_timestamp() < give_up loop
      perform pg_sleep(0.02);
      visible := private.queue_visible(now_floors);
    end loop;
  end if;

  -- Priorities take turns only where more than one has work.
  share := case
    when cardinality(array_remove(visible, false)) > 1 then private.allot_slots(wanted, nextval('private.claim_turn'))
    else array[wanted * visible[1]::integer, wanted * visible[2]::integer, wanted * visible[3]::integer]
  end;
  for round in 1..2 loop
    exit when cardinality(jobs) = wanted;
    for p in 1..3 loop
      continue when not visible[p];
      -- Round one gives each priority its share; round two what is left to those that used theirs up.
      limits := case
        when round = 1 then share[p]
        when taken[p] = share[p] then wanted - cardinality(jobs)
        else 0
      end;
      continue when limits = 0;
      select c.msg_ids, c.job_ids into got
      from private.queue_claim(p, now_floors[p], limits, interval '30 seconds') as c;
      if round = 2 then
        share[p] := share[p] + limits;
      end if;
      if got.job_ids is not null then
        jobs := jobs || got.job_ids;
        messages := messages || got.msg_ids;
        priorities := priorities || array_fill(p::smallint, array[cardinality(got.job_ids)]);
        taken[p] := taken[p] + cardinality(got.job_ids);
        highest[p] := greatest(highest[p], (select max(m) from unnest(got.msg_ids) as m));
      end if;
    end loop;
  end loop;

  if cardinality(jobs) > 0 then
    given := private.lease_jobs(claim_jobs.worker_id, jobs, messages, priorities);
  end if;

  -- Nothing visible is left below what was taken, nor below the old tail when nothing was seen or a share was not
  -- used up. Written down when it pays.
  for p in 1..3 loop
    now_floors[p] := greatest(
      now_floors[p], case when taken[p] < share[p] or not visible[p] then tails[p] else highest[p] end - margin
    );
    beat := beat or now_floors[p] > me.floors[p] + 4 * margin;
  end loop;
  if beat then
    update private.workers as w
    set floors = now_floors, seen_at = clock_timestamp(), swept_at = me.swept_at
    where w.id = claim_jobs.worker_id;
  end if;

  return coalesce(given, '[]'::jsonb);
end;
$$;

create function service.claim_jobs(worker_id uuid, slots integer, wait_ms integer default 0)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  -- A claim that a crash of the server undoes is a job that is given out again: nobody waits for the disk.
  perform set_config('synchronous_commit', 'off', true);
  return coalesce(
    case when claim_jobs.slots = 1 then private.claim_job(claim_jobs.worker_id) end,
    private.claim_jobs(claim_jobs.worker_id, claim_jobs.slots, claim_jobs.wait_ms)
  );
end;
$$;

revoke all on function
  private.lease_job(uuid, uuid, bigint), private.lease_jobs(uuid, uuid[], bigint[], smallint[]),
  private.allot_slots(integer, bigint)
  from public, anon, authenticated, service_role;
revoke all on function
  private.claim_job(uuid, bigint[]), private.claim_jobs(uuid, integer, integer), service.claim_jobs(uuid, integer, integer)
  from public, anon, authenticated, service_role;
grant execute on function
  private.claim_job(uuid, bigint[]), private.claim_jobs(uuid, integer, integer), service.claim_jobs(uuid, integer, integer)
  to service_role;
comment on function private.allot_slots(integer, bigint) is
'Slots for high, normal and low priority (8 : 3 : 1) in a given turn, when all of them have work.';
comment on function service.claim_jobs(uuid, integer, integer) is
'Up to slots jobs for this worker as [{job_id, msg_id, kind, payload, attempt, lease_token}], each for 30 seconds; '
'waits up to wait_ms (at most 2000) for the first. Also the worker''s heartbeat: call it, or extend_jobs, at least every few seconds.';
