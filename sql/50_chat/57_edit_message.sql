-- Writes a message anew beside the one that there is, which stays. A person's own message is sent
-- again, and answered; an answer is written by the person who edits it, and no model is asked.
-- Runs as its owner: conversations are written by functions only.
create function private.edit_message(message_id uuid, content text, idempotency_key text, run text)
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
  edited     public.messages;
  sent       jsonb;
begin
  perform private.require_run(edit_message.run);
  perform private.require_message_text(edit_message.content);
  talk := private.hold_to_write(private.conversation_of(edit_message.message_id, caller), caller);
  if edit_message.idempotency_key is not null then
    remembered := private.remember_request(
      caller, 'edit_message', edit_message.idempotency_key,
      jsonb_build_object('message_id', edit_message.message_id, 'content', edit_message.content)
    );
    if remembered is not null then
      return private.sent_message((remembered ->> 'answer_id')::uuid);
    end if;
  end if;
  perform private.require_turn(talk, caller);

  target := private.living_message(talk, edit_message.message_id);
  if target.role = 'user' and target.author_id is distinct from caller then
    raise sqlstate 'PT403' using
      message = 'message_not_yours',
      detail  = 'Only whoever wrote a message can edit it.';
  end if;

  insert into public.messages (conversation_id, parent_id, role, author_id, content, finish_reason)
  values (
    talk.id, target.parent_id, target.role, caller, edit_message.content,
    case when target.role = 'assistant' then 'edited' end
  )
  returning * into edited;
  sent := case target.role
    when 'user' then private.request_answer(talk, caller, edited, edit_message.run)
    else private.show_message(talk, edited)
  end;
  if edit_message.idempotency_key is not null then
    perform private.store_response(
      caller, 'edit_message', edit_message.idempotency_key,
      jsonb_build_object('answer_id', sent #> '{assistant_message,id}')
    );
  end if;
  return sent;
end;
$$;

create function public.edit_message(
  message_id uuid,
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
  select private.edit_message(
    edit_message.message_id, edit_message.content, edit_message.idempotency_key, edit_message.run
  );
$$;

revoke all on function private.edit_message(uuid, text, text, text), public.edit_message(uuid, text, text, text)
  from public, anon, authenticated, service_role;
grant execute on function private.edit_message(uuid, text, text, text), public.edit_message(uuid, text, text, text)
  to authenticated;
comment on function public.edit_message(uuid, text, text, text) is
'Writes a message anew beside message_id, which stays, and shows it. A message of one''s own is answered, as by send_message; '
'an answer gets the text given, and generation and job_id are null. Returns what send_message does; the same idempotency key '
'returns the same rows. Raises PT404 message_not_found, PT404 conversation_not_found, PT403 conversation_read_only, '
'PT403 message_not_yours, PT409 generation_in_progress, PT409 character_unavailable, PT403 mature_confirmation_required, '
'PT409 idempotency_key_reused, PT422 message_empty, PT422 message_invalid, PT422 message_too_long, PT422 run_unknown, '
'and what a plan refuses: see private.hold_usage.';
