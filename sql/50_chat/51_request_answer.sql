-- What send_message, edit_message and regenerate_message share: the text, the right to write, the
-- turn, and the answer itself.

-- Refuses what cannot be a message.
create function private.require_message_text(content text)
returns void
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  if content is null or content !~ '\S' then
    raise sqlstate 'PT422' using message = 'message_empty', detail = 'The message has no text.';
  end if;
  if char_length(content) > 32000 then
    raise sqlstate 'PT422' using message = 'message_too_long', detail = 'A message has at most 32,000 characters.';
  end if;
  if not private.is_text(content, 32000) then
    raise sqlstate 'PT422' using
      message = 'message_invalid',
      detail  = 'A message has no control characters but tabs and line ends.';
  end if;
end;
$$;

-- The conversation, held until the transaction ends, if the caller may write in it. Asked before the
-- lock, so that strangers cannot hold other people's conversations, and again after it, because
-- somebody may have been removed while this call waited.
create function private.hold_to_write(conversation_id uuid, caller uuid)
returns public.conversations
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  talk public.conversations;
  caller_role text;
begin
  if private.is_participant(hold_to_write.conversation_id, caller) then
    select c.* into talk
    from public.conversations as c
    where c.id = hold_to_write.conversation_id
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
  return talk;
end;
$$;

-- The conversation of a message that the caller may read.
create function private.conversation_of(message_id uuid, caller uuid)
returns uuid
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  talk_id uuid;
begin
  select m.conversation_id into talk_id from public.messages as m where m.id = conversation_of.message_id;
  if talk_id is null or not private.is_participant(talk_id, caller) then
    raise sqlstate 'PT404' using
      message = 'message_not_found',
      detail  = 'There is no message with this id that you may read.';
  end if;
  return talk_id;
end;
$$;

-- A message of a conversation that the caller holds, unless it was deleted.
create function private.living_message(talk public.conversations, message_id uuid)
returns public.messages
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  living public.messages;
begin
  select m.* into living
  from public.messages as m
  where m.conversation_id = talk.id and m.id = living_message.message_id and m.deleted_at is null;
  if living.id is null then
    raise sqlstate 'PT404' using
      message = 'message_not_found',
      detail  = 'There is no message with this id that you may read, or it was deleted.';
  end if;
  return living;
end;
$$;

-- Refuses where nothing can be added to a conversation now. The partial unique index holds the rule
-- of one open answer; this guard gives its refusal a name.
create function private.require_turn(talk public.conversations, caller uuid)
returns void
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  partner public.characters;
begin
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
  where c.id = talk.character_id and c.deleted_at is null
    and (c.owner_id = caller or (c.hidden_at is null and not private.is_blocked_between(c.owner_id, caller)));
  if partner.id is null then
    raise sqlstate 'PT409' using
      message = 'character_unavailable',
      detail  = 'The character of this conversation was deleted or is hidden from you.';
  end if;
  perform private.require_mature_confirmation(partner, caller);
end;
$$;

-- What these functions answer. Without a generation: a person wrote the answer.
create function private.sent_message(question public.messages, answer public.messages, generation public.generations)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return jsonb_build_object(
    'user_message', to_jsonb(question),
    'assistant_message', to_jsonb(answer),
    'generation',
    case when generation.id is not null then jsonb_build_object('id', generation.id, 'status', generation.status) end,
    'job_id', generation.job_id
  );
end;
$$;

-- The same from the rows as they are now, so that a repeated call sees how far the answer has come.
create function private.sent_message(answer_id uuid)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return (
    select private.sent_message(u, a, g)
    from public.messages as a
    left join public.messages as u on u.conversation_id = a.conversation_id and u.id = a.parent_id
    left join public.generations as g on g.id = a.generation_id
    where a.id = sent_message.answer_id
  );
end;
$$;

-- Tells everybody who has the conversation open that it shows another branch from a message on.
create function private.announce_branch(talk public.conversations, after_id uuid)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  perform private.send_event(
    talk.topic, 'conversation.branch_changed',
    jsonb_build_object('conversation_id', talk.id, 'after_id', after_id, 'active_leaf_id', talk.active_leaf_id)
  );
end;
$$;

-- Shows a new message and tells of it: first that the branch changed, where the message does not
-- simply follow what was shown. Its question and generation are told by whoever has just read them.
create function private.show_message(
  talk public.conversations,
  answer public.messages,
  question public.messages default null,
  generation public.generations default null
)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  follows boolean := answer.parent_id is not distinct from talk.active_leaf_id;
  shown   uuid := talk.active_leaf_id;
  shared  uuid;
  at      timestamptz := clock_timestamp();
  sent    jsonb;
begin
  if not follows then
    shared := (private.choose_message(talk, answer.id)).shared_id;
  end if;
  talk.active_leaf_id := answer.id;
  update public.conversations as c set active_leaf_id = answer.id, last_message_at = at where c.id = talk.id;
  update public.inbox_entries as e set last_message_at = at where e.conversation_id = talk.id;
  if not follows and shared is distinct from shown then
    perform private.announce_branch(talk, shared);
  end if;
  -- Where a branch was chosen, the question may remember it.
  sent := case
    when follows and question.id = answer.parent_id then private.sent_message(question, answer, generation)
    else private.sent_message(answer.id)
  end;
  perform private.send_event(talk.topic, 'message.created', sent - 'job_id');
  return sent;
end;
$$;

-- Asks for an answer to a message: the placeholder, its generation and its job. The caller holds the
-- conversation and has the turn. What the answer may use is held first, and is the last thing that can refuse:
-- counters come after the conversation and before the seats of jobs. A run inline is claimed by the function that called; its job is an
-- alarm clock that rings when the lease would have ended. A question without a place
-- (depth) is not written yet: one statement writes it and its answer.
-- wishes: settings of this answer that differ from the conversation's.
create function private.request_answer(
  talk public.conversations,
  caller uuid,
  question public.messages,
  run text,
  wishes jsonb default null
)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  answer     public.messages;
  generation public.generations;
  model      public.ai_models;
  settings   jsonb := jsonb_build_object(
    'temperature', coalesce(talk.temperature, 0.7), 'max_tokens', coalesce(talk.max_tokens, 1024)
  ) || coalesce(request_answer.wishes, '{}');
  written    public.messages;
begin
  select m.* into model
  from public.ai_models as m
  where m.is_enabled and m.kind = 'chat' and (m.id = talk.model_id or m.is_default)
  order by (m.id = talk.model_id) desc nulls last
  limit 1;
  generation.id := private.uuid_v7();
  perform private.hold_answer(generation.id, caller, question, model, (settings ->> 'max_tokens')::integer);

  answer.id := private.uuid_v7();
  -- The question first: the answer's place follows from it.
  for written in
    insert into public.messages (id, conversation_id, parent_id, role, author_id, content, status, generation_id)
    select question.id, talk.id, question.parent_id, 'user', caller, question.content, 'completed', null
    where question.depth is null
    union all
    select answer.id, talk.id, question.id, 'assistant', null, '', 'pending', generation.id
    returning *
  loop
    if written.id = answer.id then
      answer := written;
    else
      question := written;
    end if;
  end loop;
  generation.job_id := private.enqueue_job(
    'generation', caller, jsonb_build_object('generation_id', generation.id),
    delay => case when request_answer.run = 'inline' then interval '30 seconds' else interval '0' end
  );
  with lease as (
    insert into private.generation_leases (generation_id, available_at) values (generation.id, clock_timestamp())
  )
  insert into public.generations (id, conversation_id, message_id, requested_by, job_id, model_id, settings)
  values (generation.id, talk.id, answer.id, caller, generation.job_id, model.id, settings)
  returning * into generation;
  return private.show_message(talk, answer, question, generation);
end;
$$;

-- Refuses a run that is not known.
create function private.require_run(run text)
returns void
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  if run is null or run not in ('inline', 'queued') then
    raise sqlstate 'PT422' using message = 'run_unknown', detail = 'run is inline or queued.';
  end if;
end;
$$;

revoke all on function
  private.require_message_text(text), private.hold_to_write(uuid, uuid), private.conversation_of(uuid, uuid),
  private.living_message(public.conversations, uuid), private.require_turn(public.conversations, uuid), private.sent_message(uuid),
  private.sent_message(public.messages, public.messages, public.generations),
  private.announce_branch(public.conversations, uuid),
  private.show_message(public.conversations, public.messages, public.messages, public.generations),
  private.request_answer(public.conversations, uuid, public.messages, text, jsonb), private.require_run(text)
  from public, anon, authenticated, service_role;
