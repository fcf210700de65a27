-- Appends chunks of all streams of an isolate, extends their leases and brings back what the runner
-- must know. in: [{generation_id, attempt, lease_token, route_id, usage, chunks: [{seq, text}]}], without
-- chunks a heartbeat; out: [{generation_id, lease_lost, cancel_requested, last_seq}]. Chunks that are already
-- there are skipped, those behind a gap are not taken: last_seq tells. A delta over Realtime carries
-- all chunks since the one before; one that is not due yet goes out with a later append or heartbeat.
-- Leases are looked up by their ids, however many stand open and whatever is known of their number.
-- Runs as its owner: runners reach no table.
create function private.append_chunks(batch jsonb)
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
  at      timestamptz := clock_timestamp();
  watched uuid[];
  every   interval;
  topics  jsonb := '{}'::jsonb;
  held    uuid[];
  told    uuid[];
  sends   jsonb;
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

  -- The leases to write, in the order of their ids. A heartbeat of a fresh lease writes nothing and takes no lock.
  select array_agg(h.generation_id) into held
  from (
    select l.generation_id
    from jsonb_to_recordset(append_chunks.batch) as e (generation_id uuid, attempt integer, lease_token uuid, chunks jsonb)
    join private.generation_leases as l
      on l.generation_id = e.generation_id and l.attempt = e.attempt and l.lease_token = e.lease_token
    where jsonb_array_length(e.chunks) > 0
      or l.lease_until < at + interval '29 seconds'
      or (topics ? l.generation_id::text and l.broadcast_seq < l.last_seq)
    order by l.generation_id
    for no key update of l
  ) as h;

  if held is not null then
    -- A statement of its own, which sees what the one above has waited for.
    with entry as (
      select e.generation_id, e.chunks, e.usage, l.attempt, l.last_seq, l.broadcast_seq,
        l.lease_until < at + interval '29 seconds' as is_old, l.usage is null as is_untold
      from jsonb_to_recordset(append_chunks.batch) as e (
        generation_id uuid, attempt integer, lease_token uuid, chunks jsonb, usage jsonb
      )
      join private.generation_leases as l
        on l.generation_id = e.generation_id and l.attempt = e.attempt and l.lease_token = e.lease_token
      where l.generation_id = any (held)
    ),
    sent as (
      select distinct on (e.generation_id, c.seq) e.generation_id, e.attempt, e.last_seq, c.seq, c.text
      from entry as e
      cross join lateral jsonb_to_recordset(e.chunks) as c (seq integer, text text)
      where c.seq > e.last_seq and c.text is not null
      order by e.generation_id, c.seq
    ),
    counted as (
      select s.*, s.last_seq + row_number() over (partition by s.generation_id order by s.seq) as place
      from sent as s
    ),
    kept as (
      insert into public.generation_chunks as g (generation_id, attempt, seq, text)
      select c.generation_id, c.attempt, c.seq, c.text
      from counted as c
      where c.seq = c.place
      on conflict on constraint generation_chunks_pkey do nothing
      returning g.generation_id, g.seq
    ),
    taken as (
      select e.*, k.last, topics ? e.generation_id::text and e.broadcast_seq < coalesce(k.last, e.last_seq) as sends
      from entry as e
      left join (select n.generation_id, max(n.seq) as last from kept as n group by n.generation_id) as k
        on k.generation_id = e.generation_id
    ),
    written as (
      update private.generation_leases as l
      set last_seq = coalesce(t.last, l.last_seq),
        lease_until = at + interval '30 seconds',
        usage = coalesce(t.usage, l.usage),
        broadcast_seq = case
          when t.sends or not coalesce(l.generation_id = any (watched), false) then coalesce(t.last, l.last_seq)
          else l.broadcast_seq
        end,
        -- The first delta of many that begin at once comes at a time of its own.
        broadcast_at = case
          when t.sends then at
          when l.broadcast_at is null and l.generation_id = any (watched) then at - every * random()
          else l.broadcast_at
        end
      from taken as t
      where l.generation_id = t.generation_id and (t.last is not null or t.is_old or t.sends)
    )
    select
      array_agg(t.generation_id) filter (
        where t.usage is not null and (t.is_old or (t.is_untold and t.last is not null))
      ),
      jsonb_object_agg(t.generation_id, t.broadcast_seq) filter (where t.sends)
    into told, sends
    from taken as t;
  end if;
  if told is not null then
    update private.generation_attempts as a
    set usage = l.usage, route_id = private.known_route(e.route_id, a.route_id)
    from jsonb_to_recordset(append_chunks.batch) as e (generation_id uuid, attempt integer, lease_token uuid, route_id bigint)
    join private.generation_leases as l
      on l.generation_id = e.generation_id and l.attempt = e.attempt and l.lease_token = e.lease_token
    where l.generation_id = any (told)
      and a.generation_id = l.generation_id and a.attempt = l.attempt and a.call = l.call;
    update public.generations as g
    set usage = private.usage_of(g.id)
    where g.id = any (told);
  end if;
  if sends is not null then
    perform private.send_event(
      topics ->> l.generation_id::text, 'generation.delta',
      (
        select jsonb_build_object(
          'generation_id', l.generation_id, 'attempt', l.attempt,
          'first_seq', min(c.seq), 'seq', max(c.seq), 'text', string_agg(c.text, '' order by c.seq)
        )
        from public.generation_chunks as c
        where c.generation_id = l.generation_id and c.attempt = l.attempt
          and c.seq > (sends ->> l.generation_id::text)::integer
      )
    )
    from private.generation_leases as l
    where l.generation_id = any (held) and sends ? l.generation_id::text;
  end if;
  return (
    select coalesce(
      jsonb_agg(
        case
          when l.generation_id is null then
            jsonb_build_object('generation_id', e.generation_id, 'lease_lost', true, 'cancel_requested', false)
          else jsonb_build_object(
            'generation_id', e.generation_id, 'lease_lost', false,
            'cancel_requested', l.cancel_requested, 'last_seq', l.last_seq
          )
        end
        order by e.generation_id
      ),
      '[]'
    )
    from jsonb_to_recordset(append_chunks.batch) as e (generation_id uuid, attempt integer, lease_token uuid)
    left join private.generation_leases as l
      on l.generation_id = e.generation_id and l.attempt = e.attempt and l.lease_token = e.lease_token
  );
end;
$$;

create function service.append_chunks(batch jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  return private.append_chunks(append_chunks.batch);
end;
$$;

revoke all on function private.append_chunks(jsonb), service.append_chunks(jsonb)
  from public, anon, authenticated, service_role;
grant execute on function private.append_chunks(jsonb), service.append_chunks(jsonb) to service_role;
comment on function service.append_chunks(jsonb) is
'Appends [{generation_id, attempt, lease_token, route_id, usage, chunks: [{seq, text}]}], or beats without chunks, for all '
'streams at once; route_id and usage are what the attempt is charged by when its runner dies. '
'Answers [{generation_id, lease_lost, cancel_requested, last_seq}]. Chunks are numbered from 1 (or next_seq) without gaps.';
