-- What send_message answers, from the rows as they are now, so that a repeated call sees how far
-- the answer has come.
create function private.sent_message(generation_id uuid)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return (
    select jsonb_build_object(
      'user_message', to_jsonb(u),
      'assistant_message', to_jsonb(a),
      'generation', jsonb_build_object('id', g.id, 'status', g.status),
      'job_id', g.job_id
    )
    from public.generations as g
    join public.messages as a on a.id = g.message_id
    join public.messages as u on u.id = a.parent_id
    where g.id = sent_message.generation_id
  );
end;
$$;

revoke all on function private.sent_message(uuid) from public, anon, authenticated, service_role;

-- Adds the caller's message, the placeholder of the answer, its generation and its job, in one
-- transaction, and returns only what the caller may read. A run inline is claimed by the function
-- that called; its job is an alarm clock that rings when the lease would have ended.
-- Runs as its owner: conversations are written by functions only.
create function private.send_message(conversation_id uuid, content text, idempotency_key text, run text)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  caller     uuid := private.hold_active_user();
  talk       public.conversations;
  partner    public.characters;
  caller_role text;
  remembered jsonb;
  question   uuid := private.uuid_v7();
  answer     uuid := private.uuid_v7();
  generation uuid := private.uuid_v7();
  job        uuid;
  model      text;
  sent       jsonb;
begin
  if send_message.run is null or send_message.run not in ('inline', 'queued') then
    raise sqlstate 'PT422' using message = 'run_unknown', detail = 'run is inline or queued.';
  end if;
  if send_message.content is null or send_message.content !~ '\S' then
    raise sqlstate 'PT422' using message = 'message_empty', detail = 'The message has no text.';
  end if;
  if char_length(send_message.content) > 32000 then
    raise sqlstate 'PT422' using message = 'message_too_long', detail = 'A message has at most 32,000 characters.';
  end if;
  if not private.is_text(send_message.content, 32000) then
    raise sqlstate 'PT422' using
      message = 'message_invalid',
      detail  = 'A message has no control characters but tabs and line ends.';
  end if;

  -- Asked before the lock, so that strangers cannot hold other people's conversations, and again
  -- after it, because somebody may have been removed while this call waited.
  if private.is_participant(send_message.conversation_id, caller) then
    select c.* into talk
    from public.conversations as c
    where c.id = send_message.conversation_id
    for no key update;
    select p.role into caller_role
    from public.conversation_participants as p
    where p.conversation_id = talk.id and p.user_id = caller and p.state = 'joined';
  end if;
  if caller_role is null then
    raise sqlstate 'PT404' using
      message = 'conversation_not_found',
      detail  = 'There is no conversation with this id that you take part in.';
  elsif caller_role = 'viewer' then
    raise sqlstate 'PT403' using
      message = 'conversation_read_only',
      detail  = 'You may read this conversation, not write in it.';
  end if;

  if send_message.idempotency_key is not null then
    remembered := private.remember_request(
      caller, 'send_message', send_message.idempotency_key,
      jsonb_build_object('conversation_id', send_message.conversation_id, 'content', send_message.content)
    );
    if remembered is not null then
      return private.sent_message((remembered ->> 'generation_id')::uuid);
    end if;
  end if;

  -- The partial unique index holds the rule; this guard gives its refusal a name.
  if exists (
    select from public.generations as g where g.conversation_id = talk.id and g.status in ('queued', 'running')
  ) then
    raise sqlstate 'PT409' using
      message = 'generation_in_progress',
      detail  = 'An answer is on its way in this conversation.',
      hint    = 'Wait for its end or call cancel_generation.';
  end if;
  select c.* into partner
  from public.characters as c
  where c.id = talk.character_id and c.deleted_at is null and not private.is_blocked_between(c.owner_id, caller);
  if partner.id is null then
    raise sqlstate 'PT409' using
      message = 'character_unavailable',
      detail  = 'The character of this conversation was deleted or is hidden from you.';
  end if;
  perform private.require_mature_confirmation(partner, caller);

  select m.id into model
  from public.ai_models as m
  where m.is_enabled and m.kind = 'chat' and (m.id = talk.model_id or m.is_default)
  order by (m.id = talk.model_id) desc nulls last
  limit 1;

  insert into public.messages (id, conversation_id, parent_id, role, author_id, content)
  values (question, talk.id, talk.active_leaf_id, 'user', caller, send_message.content);
  insert into public.messages (id, conversation_id, parent_id, role, status, generation_id)
  values (answer, talk.id, question, 'assistant', 'pending', generation);
  update public.conversations as c
  set active_leaf_id = answer, last_message_at = clock_timestamp()
  where c.id = talk.id;

  job := private.enqueue_job(
    'generation', caller, jsonb_build_object('generation_id', generation),
    delay => case when send_message.run = 'inline' then interval '30 seconds' else interval '0' end
  );
  insert into public.generations (id, conversation_id, message_id, requested_by, job_id, model_id, settings)
  values (
    generation, talk.id, answer, caller, job, model,
    jsonb_build_object('temperature', coalesce(talk.temperature, 0.7), 'max_tokens', coalesce(talk.max_tokens, 1024))
  );
  insert into private.generation_leases (generation_id, available_at) values (generation, clock_timestamp());

  if send_message.idempotency_key is not null then
    perform private.store_response(
      caller, 'send_message', send_message.idempotency_key, jsonb_build_object('generation_id', generation)
    );
  end if;
  sent := private.sent_message(generation);
  perform private.send_event(talk.topic, 'message.created', sent - 'job_id');
  return sent;
end;
$$;

create function public.send_message(
  conversation_id uuid,
  content text,
  idempotency_key text default null,
  run text default 'inline'
)
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.send_message(
    send_message.conversation_id, send_message.content, send_message.idempotency_key, send_message.run
  );
$$;

revoke all on function private.send_message(uuid, text, text, text), public.send_message(uuid, text, text, text)
  from public, anon, authenticated, service_role;
grant execute on function private.send_message(uuid, text, text, text), public.send_message(uuid, text, text, text)
  to authenticated;
comment on function public.send_message(uuid, text, text, text) is
'Sends a message and asks for the answer. Returns {user_message, assistant_message, generation: {id, status}, job_id}. '
'The same idempotency key returns the same rows. run: inline (the chat function writes the answer now) or queued (a worker does). '
'Raises PT404 conversation_not_found, PT403 conversation_read_only, PT409 generation_in_progress, '
'PT409 character_unavailable, PT403 mature_confirmation_required, PT409 idempotency_key_reused, PT422 message_empty, PT422 message_invalid, PT422 message_too_long, PT422 run_unknown.';
