-- Adds somebody's message to the branch that is shown and asks for the answer; returns only what they may
-- read. The caller holds their account active. wishes: settings of this answer beside the conversation's own.
create function private.say(
  speaker uuid,
  conversation_id uuid,
  content text,
  idempotency_key text,
  run text,
  wishes jsonb default null
)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  talk       public.conversations;
  remembered jsonb;
  question   public.messages;
  sent       jsonb;
begin
  perform private.require_run(say.run);
  perform private.require_message_text(say.content);
  talk := private.hold_to_write(say.conversation_id, say.speaker);
  if say.idempotency_key is not null then
    remembered := private.remember_request(
      say.speaker, 'send_message', say.idempotency_key,
      jsonb_strip_nulls(
        jsonb_build_object('conversation_id', say.conversation_id, 'content', say.content, 'wishes', say.wishes)
      )
    );
    if remembered is not null then
      return private.sent_message((remembered ->> 'answer_id')::uuid);
    end if;
  end if;
  perform private.require_turn(talk, say.speaker);

  -- It will end the branch that is shown, and the answer follows it.
  question.id := private.uuid_v7();
  question.conversation_id := talk.id;
  question.parent_id := talk.active_leaf_id;
  question.content := say.content;
  talk.active_leaf_id := question.id;
  sent := private.request_answer(talk, say.speaker, question, say.run, say.wishes);
  if say.idempotency_key is not null then
    perform private.store_response(
      say.speaker, 'send_message', say.idempotency_key,
      jsonb_build_object('answer_id', sent #> '{assistant_message,id}')
    );
  end if;
  return sent;
end;
$$;

-- The same for the caller. Runs as its owner: conversations are written by functions only.
create function private.send_message(conversation_id uuid, content text, idempotency_key text, run text)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  return private.say(
    private.hold_active_user(), send_message.conversation_id, send_message.content, send_message.idempotency_key,
    send_message.run
  );
end;
$$;

create function public.send_message(
  conversation_id uuid,
  content text,
  idempotency_key text default null,
  run text default 'inline'
)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  return private.send_message(
    send_message.conversation_id, send_message.content, send_message.idempotency_key, send_message.run
  );
end;
$$;

revoke all on function
  private.say(uuid, uuid, text, text, text, jsonb),
  private.send_message(uuid, text, text, text), public.send_message(uuid, text, text, text)
  from public, anon, authenticated, service_role;
grant execute on function private.send_message(uuid, text, text, text), public.send_message(uuid, text, text, text)
  to authenticated;
comment on function public.send_message(uuid, text, text, text) is
'Sends a message and asks for the answer. Returns {user_message, assistant_message, generation: {id, status}, job_id}. '
'The same idempotency key returns the same rows. run: inline (the chat function writes the answer now) or queued (a worker does). '
'Raises PT404 conversation_not_found, PT403 conversation_read_only, PT409 generation_in_progress, '
'PT409 character_unavailable, PT403 mature_confirmation_required, PT409 idempotency_key_reused, PT422 message_empty, PT422 message_invalid, PT422 message_too_long, PT422 run_unknown, '
'and what a plan refuses: see private.hold_usage.';
