-- A conversation is given a model that it can use: one of the list that the writer reads.
create function private.tg_conversations__require_model()
returns trigger
language plpgsql
security invoker
set search_path = ''
as $$
begin
  if not exists (select from public.ai_models as m where m.id = new.model_id and m.kind = 'chat') then
    raise sqlstate 'PT404' using message = 'model_not_found', detail = 'There is no model for chats with this id.';
  end if;
  return new;
end;
$$;

revoke all on function private.tg_conversations__require_model() from public, anon, authenticated, service_role;

create trigger _200_require_model before update of model_id on public.conversations
  for each row when (new.model_id is distinct from old.model_id and new.model_id is not null)
  execute function private.tg_conversations__require_model();
