-- Ends one generation whose lease ran out, or gives it to the next worker; 0 when somebody else has it
-- in hand or it is not due after all. It waits for nobody: its transaction holds what it locked for the answers
-- before, and whoever it waited for might be waiting for that.
create function private.reap_generation(
  generation_id uuid,
  conversation_id uuid,
  job_id uuid,
  max_attempts smallint,
  at timestamptz
)
returns integer
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  lease private.generation_leases;
  topic text;
begin
  select c.topic into topic
  from public.conversations as c
  where c.id = reap_generation.conversation_id
  for key share skip locked;
  if not found then
    return 0;
  end if;
  select l.* into lease
  from private.generation_leases as l
  where l.generation_id = reap_generation.generation_id
    and (
      l.lease_until < reap_generation.at
      or (l.lease_token is null and l.available_at < reap_generation.at - interval '10 minutes')
    )
  for update skip locked;
  if not found or not private.try_lock_usage(lease.generation_id) then
    return 0;
  end if;

  if lease.cancel_requested then
    perform private.end_generation(lease.generation_id, topic, 'cancelled', 'cancelled');
  elsif lease.lease_token is null then
    perform private.end_generation(
      lease.generation_id, topic, 'failed',
      error => jsonb_build_object('code', 'no_worker', 'detail', 'No worker took the answer.', 'retryable', true)
    );
  elsif lease.attempt >= reap_generation.max_attempts then
    perform private.end_generation(
      lease.generation_id, topic, 'failed',
      error => jsonb_build_object('code', 'attempts_exhausted', 'detail', 'No attempt came to an end.', 'retryable', true)
    );
  else
    update private.generation_attempts as a
    set finished_at = clock_timestamp(), outcome = 'lost', usage = coalesce(lease.usage, a.usage)
    where a.generation_id = lease.generation_id and a.finished_at is null;
    update private.generation_leases as l
    set lease_token = null, lease_until = null, handed_over = false, available_at = clock_timestamp()
    where l.generation_id = lease.generation_id;
    update public.generations as g set status = 'queued' where g.id = lease.generation_id;
    perform private.postpone_job(reap_generation.job_id, interval '0');
  end if;
  return 1;
end;
$$;

-- Every answer ends: takes generations from runners that died and ends those that nobody can finish.
-- `at` is an argument, so that a test need not wait. Returns how many it touched. Run by cron.
create function private.reap_generations(at timestamptz default clock_timestamp())
returns integer
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  due     record;
  touched integer := 0;
begin
  for due in
    select g.id, g.conversation_id, g.job_id, g.max_attempts
    from private.generation_leases as l
    join public.generations as g on g.id = l.generation_id
    where l.lease_until < reap_generations.at
      or (l.lease_token is null and l.available_at < reap_generations.at - interval '10 minutes')
    order by g.conversation_id
  loop
    -- On its own: what goes wrong with one answer must not keep the others from ending.
    begin
      touched := touched + private.reap_generation(due.id, due.conversation_id, due.job_id, due.max_attempts, reap_generations.at);
    exception when others then
      raise warning 'generation % was not reaped: %', due.id, sqlerrm;
    end;
  end loop;
  return touched;
end;
$$;

-- Drops chunks of generations that ended more than an hour before `at`, a batch at a time, and watch
-- leases that ran out. A late reader gets the message.
create function private.prune_chunks(at timestamptz default clock_timestamp(), batch integer default 5000)
returns bigint
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  pruned bigint;
begin
  delete from private.watch_leases as w where w.until < prune_chunks.at - interval '1 minute';
  with old as (
    select g.id
    from public.generations as g
    where g.has_chunks and g.finished_at < prune_chunks.at - interval '1 hour'
    order by g.finished_at
    limit prune_chunks.batch
    for no key update skip locked
  ),
  dropped as (
    delete from public.generation_chunks as c using old as o where c.generation_id = o.id
  )
  update public.generations as g set has_chunks = false from old as o where g.id = o.id;
  get diagnostics pruned = row_count;
  return pruned;
end;
$$;

revoke all on function
  private.reap_generation(uuid, uuid, uuid, smallint, timestamptz), private.reap_generations(timestamptz),
  private.prune_chunks(timestamptz, integer)
  from public, anon, authenticated, service_role;
comment on function private.reap_generations(timestamptz) is
'Gives generations whose lease ran out to the next worker, or ends them when their attempts are used up; '
'ends those that no worker took for ten minutes.';
comment on function private.prune_chunks(timestamptz, integer) is
'Drops the chunks of up to batch generations that ended more than an hour before `at`; returns how many.';

select cron.schedule('reap-generations', '10 seconds', 'select private.reap_generations()');
select cron.schedule('prune-chunks', '* * * * *', 'select private.prune_chunks()');
