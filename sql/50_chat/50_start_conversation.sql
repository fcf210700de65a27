-- Starts a conversation of the caller with a character that they may see; its greeting, if it has
-- one, is the first message. Runs as its owner: conversations are written by functions only.
create function private.start_conversation(character_id uuid, idempotency_key text)
returns public.conversations
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  caller     uuid := private.hold_active_user();
  partner    public.characters := private.visible_character(start_conversation.character_id, caller);
  started    public.conversations;
  opening    uuid;
  remembered jsonb;
  new_id     uuid := private.uuid_v7();
begin
  if start_conversation.idempotency_key is not null then
    remembered := private.remember_request(
      caller, 'start_conversation', start_conversation.idempotency_key,
      jsonb_build_object('character_id', start_conversation.character_id)
    );
    if remembered is not null then
      select c.* into started from public.conversations as c where c.id = (remembered ->> 'id')::uuid;
      if not found then
        raise sqlstate 'PT404' using
          message = 'conversation_not_found',
          detail  = 'The conversation that this request started is gone.';
      end if;
      return started;
    end if;
  end if;

  insert into public.conversations (id, owner_id, character_id, character_version, title, topic)
  values (new_id, caller, partner.id, private.pinned_version(partner), partner.name, private.new_conversation_topic(new_id));
  insert into public.conversation_participants (conversation_id, user_id, role, state, joined_at)
  values (new_id, caller, 'owner', 'joined', now());

  if partner.greeting <> '' then
    insert into public.messages (conversation_id, role, content, finish_reason)
    values (new_id, 'assistant', partner.greeting, 'greeting')
    returning id into opening;
    update public.conversations as c set active_leaf_id = opening where c.id = new_id;
  end if;

  if start_conversation.idempotency_key is not null then
    perform private.store_response(
      caller, 'start_conversation', start_conversation.idempotency_key, jsonb_build_object('id', new_id)
    );
  end if;
  select c.* into strict started from public.conversations as c where c.id = new_id;
  return started;
end;
$$;

create function public.start_conversation(character_id uuid, idempotency_key text default null)
returns public.conversations
language sql
volatile
security invoker
set search_path = ''
as $$
  select c.* from private.start_conversation(start_conversation.character_id, start_conversation.idempotency_key) as c;
$$;

revoke all on function private.start_conversation(uuid, text), public.start_conversation(uuid, text)
  from public, anon, authenticated, service_role;
grant execute on function private.start_conversation(uuid, text), public.start_conversation(uuid, text) to authenticated;
comment on function public.start_conversation(uuid, text) is
'Starts a conversation with a character and returns it; the greeting is its first message. '
'With an idempotency key the same call again returns the same conversation. '
'Raises PT404 character_not_found, PT403 mature_confirmation_required, PT409 idempotency_key_reused.';
