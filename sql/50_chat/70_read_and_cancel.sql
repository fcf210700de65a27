-- What a reader that attaches needs: state, the chunks after what it has, and once the generation has
-- ended the message. The caller has asked for the right to read.
create function private.generation_state(target public.generations, after_attempt integer, after_seq integer)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return jsonb_build_object(
    'generation_id', target.id,
    'conversation_id', target.conversation_id,
    'message_id', target.message_id,
    'job_id', target.job_id,
    'status', target.status,
    'attempt', target.attempt,
    'error', target.error,
    'usage', target.usage,
    'chunks', (
      select coalesce(jsonb_agg(jsonb_build_object('seq', c.seq, 'text', c.text) order by c.seq), '[]')
      from public.generation_chunks as c
      where c.generation_id = target.id
        and c.attempt = target.attempt
        and c.seq > case when target.attempt = generation_state.after_attempt then generation_state.after_seq else 0 end
    ),
    'last_seq', (
      select coalesce(max(c.seq), 0)
      from public.generation_chunks as c
      where c.generation_id = target.id and c.attempt = target.attempt
    ),
    'message', case
      when target.finished_at is not null then
        (select to_jsonb(m) from public.messages as m where m.id = target.message_id)
    end
  );
end;
$$;

-- The state for a person who reads. Runs as its owner, so that the right to read is asked once and
-- not once per chunk.
create function private.read_generation(generation_id uuid, after_attempt integer, after_seq integer)
returns jsonb
language plpgsql
stable
security definer
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  target public.generations;
begin
  select g.* into target from public.generations as g where g.id = read_generation.generation_id;
  if target.id is null or not private.is_participant(target.conversation_id, (select auth.uid())) then
    raise sqlstate 'PT404' using
      message = 'generation_not_found',
      detail  = 'There is no generation with this id that you may read.';
  end if;
  return private.generation_state(target, read_generation.after_attempt, read_generation.after_seq);
end;
$$;

create function public.read_generation(generation_id uuid, after_attempt integer default 0, after_seq integer default 0)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select private.read_generation(
    read_generation.generation_id, read_generation.after_attempt, read_generation.after_seq
  );
$$;

-- The states of all answers that an isolate follows for its readers, and which of those readers may
-- (still) read: one call for all of them. in: [{generation_id, attempt, seq, readers: [user id]}],
-- without attempt and seq no chunks; out: [{...state, readers: [user id]}]; what does not exist any more
-- is missing. Runs as its owner: the functions reach no table on this path.
-- Asked all the time while somebody reads, hence plpgsql, which keeps plans.
create function private.follow_generations(batch jsonb)
returns jsonb
language plpgsql
stable
security definer
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
set enable_seqscan = off
set jit = off
as $$
begin
  return (
    select coalesce(
      jsonb_agg(
        private.generation_state(g, coalesce(e.attempt, g.attempt), coalesce(e.seq, 2147483647)) || jsonb_build_object(
          'readers', (
            select coalesce(jsonb_agg(r.id), '[]')
            from jsonb_array_elements_text(e.readers) as r (id)
            where private.is_participant(g.conversation_id, r.id::uuid)
          )
        )
      ),
      '[]'
    )
    from jsonb_to_recordset(follow_generations.batch) as e (generation_id uuid, attempt integer, seq integer, readers jsonb)
    join public.generations as g on g.id = e.generation_id
  );
end;
$$;

create function service.follow_generations(batch jsonb)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return private.follow_generations(follow_generations.batch);
end;
$$;

revoke all on function private.follow_generations(jsonb), service.follow_generations(jsonb)
  from public, anon, authenticated, service_role;
grant execute on function private.follow_generations(jsonb), service.follow_generations(jsonb) to service_role;
comment on function service.follow_generations(jsonb) is
'States and new chunks for [{generation_id, attempt, seq, readers: [user id]}], no chunks without attempt and seq; answers '
'the same states as read_generation, each with the readers that take part in the conversation.';

-- Stops an answer for somebody, from anywhere: at once when nobody writes it, else its runner is told with
-- its next append. Whatever came is kept. Runs as its owner: functions reach no table.
create function private.cancel_answer(user_id uuid, generation_id uuid)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  target public.generations;
  topic  text;
  lease  private.generation_leases;
  role   text;
begin
  select g.* into target from public.generations as g where g.id = cancel_answer.generation_id;
  select p.role into role
  from public.conversation_participants as p
  where p.conversation_id = target.conversation_id and p.user_id = cancel_answer.user_id and p.state = 'joined';
  if role is null then
    raise sqlstate 'PT404' using
      message = 'generation_not_found',
      detail  = 'There is no generation with this id that you may read.';
  elsif role = 'viewer' then
    raise sqlstate 'PT403' using
      message = 'conversation_read_only',
      detail  = 'You may read this conversation, not write in it.';
  end if;

  topic := private.hold_topic(target.conversation_id);
  select l.* into lease
  from private.generation_leases as l
  where l.generation_id = target.id
  for update;
  if found then
    if lease.lease_token is null or lease.lease_until < clock_timestamp() then
      perform private.end_generation(target.id, topic, 'cancelled', 'cancelled');
    else
      update private.generation_leases as l set cancel_requested = true where l.generation_id = target.id;
    end if;
  end if;
  return (
    select jsonb_build_object(
      'generation_id', g.id, 'status', g.status, 'cancel_requested', g.status in ('queued', 'running')
    )
    from public.generations as g
    where g.id = target.id
  );
end;
$$;

-- For the caller. Runs as its owner, like the body.
create function private.cancel_generation(generation_id uuid)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  return private.cancel_answer(private.require_active_user(), cancel_generation.generation_id);
end;
$$;

-- For a user whom a function stands for.
create function service.cancel_answer(user_id uuid, generation_id uuid)
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.cancel_answer(cancel_answer.user_id, cancel_answer.generation_id);
$$;

create function public.cancel_generation(generation_id uuid)
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.cancel_generation(cancel_generation.generation_id);
$$;

-- Asks for deltas over Realtime for the next 30 seconds. Runs as its owner: leases are internal.
create function private.watch_conversation(conversation_id uuid)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  caller uuid := private.require_active_user();
  ends   timestamptz := clock_timestamp() + interval '30 seconds';
begin
  if not private.is_participant(watch_conversation.conversation_id, caller) then
    raise sqlstate 'PT404' using
      message = 'conversation_not_found',
      detail  = 'There is no conversation with this id that you take part in.';
  end if;
  insert into private.watch_leases as w (conversation_id, user_id, until)
  values (watch_conversation.conversation_id, caller, ends)
  on conflict on constraint watch_leases_pkey do update set until = excluded.until;
  return (
    select jsonb_build_object('topic', c.topic, 'peers_topic', c.peers_topic, 'until', ends)
    from public.conversations as c
    where c.id = watch_conversation.conversation_id
  );
end;
$$;

create function public.watch_conversation(conversation_id uuid)
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.watch_conversation(watch_conversation.conversation_id);
$$;

revoke all on function
  private.generation_state(public.generations, integer, integer),
  private.read_generation(uuid, integer, integer), public.read_generation(uuid, integer, integer),
  private.cancel_answer(uuid, uuid), service.cancel_answer(uuid, uuid),
  private.cancel_generation(uuid), public.cancel_generation(uuid),
  private.watch_conversation(uuid), public.watch_conversation(uuid)
  from public, anon, authenticated, service_role;
grant execute on function
  private.read_generation(uuid, integer, integer), public.read_generation(uuid, integer, integer),
  private.cancel_generation(uuid), public.cancel_generation(uuid),
  private.watch_conversation(uuid), public.watch_conversation(uuid)
  to authenticated;
grant execute on function private.cancel_answer(uuid, uuid), service.cancel_answer(uuid, uuid) to service_role;
comment on function service.cancel_answer(uuid, uuid) is
'cancel_generation for a user. Raises PT404 generation_not_found, PT403 conversation_read_only.';
comment on function public.read_generation(uuid, integer, integer) is
'State of a generation and its chunks after (after_attempt, after_seq); all chunks of the present attempt when that is '
'a newer one; the message once it has ended. Raises PT404 generation_not_found.';
comment on function public.cancel_generation(uuid) is
'Stops an answer; what came is kept. Answers {generation_id, status, cancel_requested}; an ended generation stays as it is. '
'Raises PT404 generation_not_found, PT403 conversation_read_only.';
comment on function public.watch_conversation(uuid) is
'Sends generation.delta to the conversation''s topic for 30 seconds; call it again while watching. '
'Answers {topic, peers_topic, until}. Raises PT404 conversation_not_found.';
