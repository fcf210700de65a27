-- Tells everybody who has a conversation open what its owner changed. Runs as its owner: owners write the
-- table themselves, and send no events.
create function private.tg_conversations__updated()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform private.send_event(
    new.topic, 'conversation.updated',
    jsonb_build_object(
      'conversation_id', new.id, 'title', new.title, 'model_id', new.model_id, 'temperature', new.temperature,
      'max_tokens', new.max_tokens, 'character_version', new.character_version
    )
  );
  return null;
end;
$$;

revoke all on function private.tg_conversations__updated() from public, anon, authenticated, service_role;

create trigger _900_updated
  after update of title, model_id, temperature, max_tokens, character_version on public.conversations
  for each row
  when (
    (old.title, old.model_id, old.temperature, old.max_tokens, old.character_version)
    is distinct from (new.title, new.model_id, new.temperature, new.max_tokens, new.character_version)
  )
  execute function private.tg_conversations__updated();
