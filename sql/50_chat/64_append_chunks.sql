-- Appends chunks of all streams of an isolate, extends their leases and brings back what the runner
-- must know. in: [{generation_id, attempt, lease_token, chunks: [{seq, text}]}], without chunks a
-- heartbeat; out: [{generation_id, lease_lost, cancel_requested, last_seq}]. Chunks that are already
-- there are skipped, those behind a gap are not taken: last_seq tells.
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
  topics  jsonb := '{}'::jsonb;
  first   integer;
  last    integer;
  piece   text;
  answer  jsonb := '[]'::jsonb;
  at      timestamptz := clock_timestamp();
begin
  -- Topics first and in id order, like everybody who sends events; only of conversations that
  -- somebody besides the asker watches.
  select coalesce(jsonb_object_agg(g.id, private.hold_topic(g.conversation_id)), '{}') into topics
  from (
    select x.id, x.conversation_id
    from public.generations as x
    where x.id in (
        select e.generation_id
        from jsonb_to_recordset(append_chunks.batch) as e (generation_id uuid, chunks jsonb)
        where jsonb_array_length(e.chunks) > 0
      )
      and exists (
        select from private.watch_leases as w
        where w.conversation_id = x.conversation_id
          and w.until > at
          and w.user_id is distinct from x.requested_by
      )
    order by x.conversation_id
  ) as g;

  for entry in
    select e.generation_id, e.attempt, e.lease_token, coalesce(e.chunks, '[]') as chunks
    from jsonb_to_recordset(append_chunks.batch) as e (
      generation_id uuid, attempt integer, lease_token uuid, chunks jsonb
    )
    order by e.generation_id
  loop
    -- A heartbeat of a fresh lease writes nothing and takes no lock.
    if jsonb_array_length(entry.chunks) = 0 then
      select l.* into lease from private.generation_leases as l where l.generation_id = entry.generation_id;
    end if;
    if jsonb_array_length(entry.chunks) > 0 or lease.lease_until < at + interval '29 seconds' then
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
        select c.seq, c.text, c.seq - row_number() over (order by c.seq) as gap
        from jsonb_to_recordset(entry.chunks) as c (seq integer, text text)
        where c.seq > lease.last_seq and c.text is not null
      ),
      kept as (
        insert into public.generation_chunks as g (generation_id, attempt, seq, text)
        select entry.generation_id, lease.attempt, s.seq, s.text
        from sent as s
        where s.gap = lease.last_seq
        on conflict on constraint generation_chunks_pkey do nothing
        returning g.seq, g.text
      )
      select min(k.seq), max(k.seq), string_agg(k.text, '' order by k.seq) into first, last, piece from kept as k;
    else
      last := null;
    end if;
    if last is not null or lease.lease_until < at + interval '29 seconds' then
      update private.generation_leases as l
      set last_seq = coalesce(last, l.last_seq), lease_until = at + interval '30 seconds'
      where l.generation_id = entry.generation_id
      returning l.* into lease;
    end if;
    if last is not null and topics ? entry.generation_id::text then
      perform private.send_event(
        topics ->> entry.generation_id::text, 'generation.delta',
        jsonb_build_object(
          'generation_id', entry.generation_id, 'attempt', lease.attempt,
          'first_seq', first, 'seq', last, 'text', piece
        )
      );
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
'Appends [{generation_id, attempt, lease_token, chunks: [{seq, text}]}], or beats without chunks, for all streams at once. '
'Answers [{generation_id, lease_lost, cancel_requested, last_seq}]. Chunks are numbered from 1 (or next_seq) without gaps.';
