-- Appends chunks of all streams of an isolate, extends their leases and brings back what the runner
-- must know. in: [{generation_id, attempt, lease_token, route_id, usage, chunks: [{seq, text}]}], without
-- chunks a heartbeat; out: [{generation_id, lease_lost, cancel_requested, last_seq}]. Chunks that are already
-- there are skipped, those behind a gap are not taken: last_seq tells. A delta over Realtime carries
-- all chunks since the one before; one that is not due yet goes out with a later append or heartbeat.
-- Runs as its owner: runners reach no table.
create function private.append_chunks(batch jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  entry   record;
  lease   private.generation_leases;
  watched uuid[];
  every   interval;
  topics  jsonb := '{}'::jsonb;
  last    integer;
  extends boolean;
  sends   boolean;
  answer  jsonb := '[]'::jsonb;
  at      timestamptz := clock_timestamp();
begin
  select array_agg(x.id) into watched
  from public.generations as x
  where x.id in (select e.generation_id from jsonb_to_recordset(append_chunks.batch) as e (generation_id uuid))
    and exists (
      select from private.watch_leases as w
      where w.conversation_id = x.conversation_id
        and w.until > at
        and w.user_id is distinct from x.requested_by
    );
  if watched is not null then
    -- Topics before any other lock, like everybody who sends events; only of those that are due.
    every := private.broadcast_interval(at);
    topics := private.hold_due_topics(append_chunks.batch, watched, every, at);
  end if;

  for entry in
    select e.generation_id, e.attempt, e.lease_token, coalesce(e.chunks, '[]') as chunks, e.usage, e.route_id
    from jsonb_to_recordset(append_chunks.batch) as e (
      generation_id uuid, attempt integer, lease_token uuid, chunks jsonb, usage jsonb, route_id bigint
    )
    order by e.generation_id
  loop
    -- A heartbeat of a fresh lease writes nothing and takes no lock.
    if jsonb_array_length(entry.chunks) = 0 then
      select l.* into lease from private.generation_leases as l where l.generation_id = entry.generation_id;
    end if;
    sends := topics ? entry.generation_id::text;
    if jsonb_array_length(entry.chunks) > 0
      or lease.lease_until < at + interval '29 seconds'
      or (sends and lease.broadcast_seq < lease.last_seq)
    then
      select l.* into lease
      from private.generation_leases as l
      where l.generation_id = entry.generation_id
      for no key update;
    end if;
    if not found or lease.lease_token is distinct from entry.lease_token or lease.attempt is distinct from entry.attempt then
      answer := answer || jsonb_build_object(
        'generation_id', entry.generation_id, 'lease_lost', true, 'cancel_requested', false
      );
      continue;
    end if;

    if jsonb_array_length(entry.chunks) > 0 then
      with sent as (
        select c.seq, c.text, c.seq - dense_rank() over (order by c.seq) as gap
        from jsonb_to_recordset(entry.chunks) as c (seq integer, text text)
        where c.seq > lease.last_seq and c.text is not null
      ),
      kept as (
        insert into public.generation_chunks as g (generation_id, attempt, seq, text)
        select entry.generation_id, lease.attempt, s.seq, s.text
        from sent as s
        where s.gap = lease.last_seq
        on conflict on constraint generation_chunks_pkey do nothing
        returning g.seq
      )
      select max(k.seq) into last from kept as k;
    else
      last := null;
    end if;
    extends := lease.lease_until < at + interval '29 seconds';
    sends := sends and lease.broadcast_seq < coalesce(last, lease.last_seq);
    if sends then
      perform private.send_event(
        topics ->> entry.generation_id::text, 'generation.delta',
        (
          select jsonb_build_object(
            'generation_id', lease.generation_id, 'attempt', lease.attempt,
            'first_seq', min(c.seq), 'seq', max(c.seq), 'text', string_agg(c.text, '' order by c.seq)
          )
          from public.generation_chunks as c
          where c.generation_id = lease.generation_id and c.attempt = lease.attempt and c.seq > lease.broadcast_seq
        )
      );
    end if;
    if entry.usage is not null and (extends or (lease.usage is null and last is not null)) then
      update private.generation_attempts as a
      set usage = entry.usage, route_id = private.known_route(entry.route_id, a.route_id)
      where a.generation_id = lease.generation_id and a.attempt = lease.attempt and a.call = lease.call;
      update public.generations as g
      set usage = private.usage_of(g.id)
      where g.id = lease.generation_id;
    end if;
    if last is not null or extends or sends then
      update private.generation_leases as l
      set last_seq = coalesce(last, l.last_seq),
        lease_until = at + interval '30 seconds',
        usage = coalesce(entry.usage, l.usage),
        broadcast_seq = case
          when sends or not coalesce(l.generation_id = any (watched), false) then coalesce(last, l.last_seq)
          else l.broadcast_seq
        end,
        -- The first delta of many that begin at once comes at a time of its own.
        broadcast_at = case
          when sends then at
          when l.broadcast_at is null and l.generation_id = any (watched) then at - every * random()
          else l.broadcast_at
        end
      where l.generation_id = entry.generation_id
      returning l.* into lease;
    end if;
    answer := answer || jsonb_build_object(
      'generation_id', entry.generation_id, 'lease_lost', false,
      'cancel_requested', lease.cancel_requested, 'last_seq', lease.last_seq
    );
  end loop;
  return answer;
end;
$$;

create function service.append_chunks(batch jsonb)
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.append_chunks(append_chunks.batch);
$$;

revoke all on function private.append_chunks(jsonb), service.append_chunks(jsonb)
  from public, anon, authenticated, service_role;
grant execute on function private.append_chunks(jsonb), service.append_chunks(jsonb) to service_role;
comment on function service.append_chunks(jsonb) is
'Appends [{generation_id, attempt, lease_token, route_id, usage, chunks: [{seq, text}]}], or beats without chunks, for all '
'streams at once; route_id and usage are what the attempt is charged by when its runner dies. '
'Answers [{generation_id, lease_lost, cancel_requested, last_seq}]. Chunks are numbered from 1 (or next_seq) without gaps.';
