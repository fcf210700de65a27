-- Asks for another answer beside one that there is, which stays; or for the missing answer to a
-- person's message. Without message_id: to the end of the branch that is shown.
-- Runs as its owner: conversations are written by functions only.
create function private.regenerate_message(conversation_id uuid, message_id uuid, idempotency_key text, run text)
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
  target     public.messages;
  remembered jsonb;
  sent       jsonb;
begin
  perform private.require_run(regenerate_message.run);
  talk := private.hold_to_write(
    coalesce(regenerate_message.conversation_id, private.conversation_of(regenerate_message.message_id, caller)), caller
  );
  if regenerate_message.idempotency_key is not null then
    remembered := private.remember_request(
      caller, 'regenerate_message', regenerate_message.idempotency_key,
      jsonb_build_object('conversation_id', talk.id, 'message_id', regenerate_message.message_id)
    );
    if remembered is not null then
      return private.sent_message((remembered ->> 'answer_id')::uuid);
    end if;
  end if;
  perform private.require_turn(talk, caller);

  -- What is shown last is never deleted.
  target := private.living_message(talk, coalesce(regenerate_message.message_id, talk.active_leaf_id));
  if target.role = 'assistant' then
    select m.* into target from public.messages as m where m.conversation_id = talk.id and m.id = target.parent_id;
  end if;
  if target.role is distinct from 'user' or target.content = '' then
    raise sqlstate 'PT409' using
      message = 'nothing_to_answer',
      detail  = 'There is no message of a person before this answer, or its text is gone.';
  end if;

  sent := private.request_answer(talk, caller, target, regenerate_message.run);
  if regenerate_message.idempotency_key is not null then
    perform private.store_response(
      caller, 'regenerate_message', regenerate_message.idempotency_key,
      jsonb_build_object('answer_id', sent #> '{assistant_message,id}')
    );
  end if;
  return sent;
end;
$$;

create function public.regenerate_message(
  conversation_id uuid default null,
  message_id uuid default null,
  idempotency_key text default null,
  run text default 'inline'
)
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.regenerate_message(
    regenerate_message.conversation_id, regenerate_message.message_id, regenerate_message.idempotency_key,
    regenerate_message.run
  );
$$;

revoke all on function
  private.regenerate_message(uuid, uuid, text, text), public.regenerate_message(uuid, uuid, text, text)
  from public, anon, authenticated, service_role;
grant execute on function
  private.regenerate_message(uuid, uuid, text, text), public.regenerate_message(uuid, uuid, text, text)
  to authenticated;
comment on function public.regenerate_message(uuid, uuid, text, text) is
'Asks for another answer beside message_id, an answer, or to it, a person''s message; without it, at the end of the branch '
'that is shown. One of the two ids is enough. The answers before stay; the new one is shown. Returns what send_message does; '
'the same idempotency key returns the same rows. Raises PT404 conversation_not_found, PT404 message_not_found, '
'PT403 conversation_read_only, PT409 generation_in_progress, PT409 nothing_to_answer, PT409 character_unavailable, '
'PT403 mature_confirmation_required, PT409 idempotency_key_reused, PT422 run_unknown, '
'and what a plan refuses: see private.hold_usage.';
