-- Conversations that are kept for clients of OpenAI's API: what such a client says goes the way of
-- send_message, and everything that holds there holds here.

-- Says something to a character for a user, in their conversation with it or in a new one, and asks for the
-- answer, which the function that called claims. Runs as its owner: functions reach no table.
create function private.talk_to_character(user_id uuid, request jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  partner constant uuid := (talk_to_character.request ->> 'character_id')::uuid;
  key     constant text := talk_to_character.request ->> 'idempotency_key';
  talk    uuid := (talk_to_character.request ->> 'conversation_id')::uuid;
begin
  perform private.hold_active_account(talk_to_character.user_id);
  -- To a client both are one route: a key that a completion has is not one for a conversation (private.begin_completion).
  if key is not null then
    perform private.remember_request(talk_to_character.user_id, 'completion_or_talk', key, '"talk"');
  end if;
  if talk is null then
    talk := (private.open_conversation(talk_to_character.user_id, partner, key)).id;
  -- Who takes no part in it is told nothing of it, below.
  elsif exists (
    select
    from public.conversations as c
    where c.id = talk
      and c.character_id is distinct from partner
      and private.is_participant(c.id, talk_to_character.user_id)
  ) then
    raise sqlstate 'PT422' using
      message = 'conversation_of_another_character',
      detail  = 'This conversation is with another character than the model names.';
  end if;
  return jsonb_build_object('conversation_id', talk) || private.say(
    talk_to_character.user_id, talk, talk_to_character.request ->> 'content', key, 'inline',
    talk_to_character.request -> 'wishes'
  );
end;
$$;

create function service.talk_to_character(user_id uuid, request jsonb)
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.talk_to_character(talk_to_character.user_id, talk_to_character.request);
$$;

revoke all on function private.talk_to_character(uuid, jsonb), service.talk_to_character(uuid, jsonb)
  from public, anon, authenticated, service_role;
grant execute on function private.talk_to_character(uuid, jsonb), service.talk_to_character(uuid, jsonb) to service_role;
comment on function service.talk_to_character(uuid, jsonb) is
'Sends a message for a user: {character_id, conversation_id (null: a new one), content, idempotency_key, wishes}, where wishes '
'are settings of the answer beside the conversation''s own. Returns what send_message returns, and conversation_id. Raises '
'PT422 conversation_of_another_character, PT403 account_not_active, and what start_conversation and send_message raise.';

insert into private.error_codes (code, status, meaning) values
  ('conversation_of_another_character', 422, 'The conversation that was named is with another character.');
