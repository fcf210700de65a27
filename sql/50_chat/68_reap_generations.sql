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
  lease   private.generation_leases;
  topic   text;
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
    topic := private.hold_topic(due.conversation_id);
    select l.* into lease
    from private.generation_leases as l
    where l.generation_id = due.id
      and (
        l.lease_until < reap_generations.at
        or (l.lease_token is null and l.available_at < reap_generations.at - interval '10 minutes')
      )
    for update skip locked;
    continue when not found;

    touched := touched + 1;
    if lease.cancel_requested then
      perform private.end_generation(due.id, topic, 'cancelled', 'cancelled');
    elsif lease.lease_token is null then
      perform private.end_generation(
        due.id, topic, 'failed',
        error => jsonb_build_object('code', 'no_worker', 'detail', 'No worker took the answer.', 'retryable', true)
      );
    elsif lease.attempt >= due.max_attempts then
      perform private.end_generation(
        due.id, topic, 'failed',
        error => jsonb_build_object('code', 'attempts_exhausted', 'detail', 'No attempt came to an end.', 'retryable', true)
      );
    else
      update private.generation_attempts as a
      set finished_at = clock_timestamp(), outcome = 'lost'
      where a.generation_id = due.id and a.finished_at is null;
      update private.generation_leases as l
      set lease_token = null, lease_until = null, handed_over = false, available_at = clock_timestamp()
      where l.generation_id = due.id;
      update public.generations as g set status = 'queued' where g.id = due.id;
      perform private.postpone_job(due.job_id, interval '0');
    end if;
  end loop;
  return touched;
end;
$$;

-- Drops chunks of generations that ended more than an hour before `at`, a batch at a time, and watch
-- leases that ran out. A late reader gets the message.
create function private.prune_chunks(at timestamptz default clock_timestamp(), batch integer default 500)
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
    where g.finished_at < prune_chunks.at - interval '1 hour'
      and exists (select from public.generation_chunks as c where c.generation_id = g.id)
    order by g.finished_at desc
    limit prune_chunks.batch
  )
  delete from public.generation_chunks as c using old as o where c.generation_id = o.id;
  get diagnostics pruned = row_count;
  return pruned;
end;
$$;

revoke all on function private.reap_generations(timestamptz), private.prune_chunks(timestamptz, integer)
  from public, anon, authenticated, service_role;
comment on function private.reap_generations(timestamptz) is
'Gives generations whose lease ran out to the next worker, or ends them when their attempts are used up; '
'ends those that no worker took for ten minutes.';
comment on function private.prune_chunks(timestamptz, integer) is
'Drops the chunks of up to batch generations that ended more than an hour before `at`.';

select cron.schedule('reap-generations', '10 seconds', 'select private.reap_generations()');
select cron.schedule('prune-chunks', '*/5 * * * *', 'select private.prune_chunks()');
