-- A greeting as it is said: the names that it leaves open are filled in. Other macros stay as they are.
create function private.speak_greeting(greeting text, char_name text, user_name text)
returns text
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return regexp_replace(
    regexp_replace(greeting, '\{\{user\}\}|<user>', replace(user_name, '\', '\\'), 'gi'),
    '\{\{char\}\}|<char>|<bot>', replace(char_name, '\', '\\'), 'gi'
  );
end;
$$;

-- Opens a conversation of somebody, whose account the caller holds active, with a character that they may see;
-- the greeting that was chosen, if it has one, is the first message.
create function private.open_conversation(
  opener uuid,
  character_id uuid,
  idempotency_key text,
  greeting_index integer default 0,
  title text default null
)
returns public.conversations
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  partner    public.characters := private.visible_character(open_conversation.character_id, open_conversation.opener);
  started    public.conversations;
  greeting   text;
  opening    uuid;
  remembered jsonb;
  new_id     uuid := private.uuid_v7();
begin
  if open_conversation.idempotency_key is not null then
    remembered := private.remember_request(
      open_conversation.opener, 'start_conversation', open_conversation.idempotency_key,
      jsonb_build_object(
        'character_id', open_conversation.character_id, 'greeting_index', open_conversation.greeting_index,
        'title', open_conversation.title
      )
    );
    if remembered is not null then
      select c.* into started
      from public.conversations as c
      where c.id = (remembered ->> 'id')::uuid and c.deleted_at is null;
      if not found then
        raise sqlstate 'PT404' using
          message = 'conversation_not_found',
          detail  = 'The conversation that this request started is gone.';
      end if;
      return started;
    end if;
  end if;

  -- 0 is the greeting itself, and there is always that, be it empty; the alternates count from 1, as arrays do.
  greeting := case coalesce(open_conversation.greeting_index, 0)
    when 0 then partner.greeting
    else partner.alternate_greetings[open_conversation.greeting_index]
  end;
  if greeting is null then
    raise sqlstate 'PT422' using
      message = 'greeting_unknown',
      detail  = 'The character has no greeting of this number: 0 is its greeting, 1 its first alternate.';
  end if;
  insert into public.conversations (id, owner_id, character_id, character_version, title, topic)
  values (
    new_id, open_conversation.opener, partner.id, private.pinned_version(partner), coalesce(open_conversation.title, partner.name),
    private.new_conversation_topic(new_id)
  );
  insert into public.conversation_participants (conversation_id, user_id, role, state, joined_at)
  values (new_id, open_conversation.opener, 'owner', 'joined', now());

  if greeting <> '' then
    insert into public.messages (conversation_id, role, content, finish_reason)
    select new_id, 'assistant',
      private.speak_greeting(greeting, coalesce(nullif(partner.nickname, ''), partner.name), p.display_name), 'greeting'
    from public.profiles as p
    where p.id = open_conversation.opener
    returning id into opening;
    update public.conversations as c set active_leaf_id = opening where c.id = new_id;
    -- Who starts a conversation is shown how it begins.
    update public.inbox_entries as e set last_read_message_id = opening where e.conversation_id = new_id;
  end if;

  if open_conversation.idempotency_key is not null then
    perform private.store_response(
      open_conversation.opener, 'start_conversation', open_conversation.idempotency_key, jsonb_build_object('id', new_id)
    );
  end if;
  select c.* into strict started from public.conversations as c where c.id = new_id;
  return started;
end;
$$;

-- The same for the caller. Runs as its owner: conversations are written by functions only.
create function private.start_conversation(character_id uuid, idempotency_key text, greeting_index integer, title text)
returns public.conversations
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  return private.open_conversation(
    private.hold_active_user(), start_conversation.character_id, start_conversation.idempotency_key,
    start_conversation.greeting_index, start_conversation.title
  );
end;
$$;

create function public.start_conversation(
  character_id uuid,
  idempotency_key text default null,
  greeting_index integer default 0,
  title text default null
)
returns public.conversations
language sql
volatile
security invoker
set search_path = ''
as $$
  select c.*
  from private.start_conversation(
    start_conversation.character_id, start_conversation.idempotency_key, start_conversation.greeting_index,
    start_conversation.title
  ) as c;
$$;

revoke all on function
  private.speak_greeting(text, text, text), private.open_conversation(uuid, uuid, text, integer, text),
  private.start_conversation(uuid, text, integer, text), public.start_conversation(uuid, text, integer, text)
  from public, anon, authenticated, service_role;
grant execute on function
  private.start_conversation(uuid, text, integer, text), public.start_conversation(uuid, text, integer, text)
  to authenticated;
comment on function public.start_conversation(uuid, text, integer, text) is
'Starts a conversation with a character and returns it; the greeting (greeting_index 0) or one of the alternate ones (from 1) '
'is its first message, with the names filled in; the title is the character''s name unless you give one. '
'With an idempotency key the same call again returns the same conversation. '
'Raises PT404 character_not_found, PT403 mature_confirmation_required, PT422 greeting_unknown, PT409 idempotency_key_reused.';

insert into private.error_codes (code, status, meaning)
values ('greeting_unknown', 422, 'The character has no greeting of that number.');
