-- Removes the conversations that went with a deleted account, for about five seconds; true while some are left. Deleting
-- the user would take all of them in one statement. Definer: runners reach no table.
create function private.purge_conversations_of(user_id uuid)
returns boolean
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  perform private.purge_conversations(interval '5 seconds', purge_conversations_of.user_id);
  return exists (
    select from public.conversations as c where c.owner_id = purge_conversations_of.user_id and c.deleted_at is not null
  );
end;
$$;

create function service.purge_conversations_of(user_id uuid)
returns boolean
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.purge_conversations_of(purge_conversations_of.user_id);
$$;

revoke all on function private.purge_conversations_of(uuid), service.purge_conversations_of(uuid)
  from public, anon, authenticated, service_role;
grant execute on function private.purge_conversations_of(uuid), service.purge_conversations_of(uuid) to service_role;
comment on function service.purge_conversations_of(uuid) is
'Removes conversations that a person deleted, or that went with their account, for about five seconds; true while some are left.';
