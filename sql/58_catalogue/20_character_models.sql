-- Characters as models of the OpenAI-compatible routes: one that the user may see, or without an id the
-- newest hundred of their own. Names only. Runs as its owner: functions reach no table.
create function private.character_models(user_id uuid, character_id uuid)
returns jsonb
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  one public.characters;
begin
  perform private.require_active_account(character_models.user_id);
  if character_models.character_id is not null then
    one := private.visible_character(character_models.character_id, character_models.user_id);
    return jsonb_build_array(jsonb_build_object('id', one.id, 'name', one.name, 'created_at', one.created_at));
  end if;
  return (
    select coalesce(
      jsonb_agg(jsonb_build_object('id', c.id, 'name', c.name, 'created_at', c.created_at) order by c.id desc), '[]'
    )
    from (
      select o.id, o.name, o.created_at
      from public.characters as o
      where o.owner_id = character_models.user_id and o.deleted_at is null
      order by o.id desc
      limit 100
    ) as c
  );
end;
$$;

create function service.character_models(user_id uuid, character_id uuid)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select private.character_models(character_models.user_id, character_models.character_id);
$$;

revoke all on function private.character_models(uuid, uuid), service.character_models(uuid, uuid)
  from public, anon, authenticated, service_role;
grant execute on function private.character_models(uuid, uuid), service.character_models(uuid, uuid) to service_role;
comment on function service.character_models(uuid, uuid) is
'A character that the user may see as [{id, name, created_at}], or with a null id the newest hundred of their own. '
'Raises PT403 account_not_active, PT404 character_not_found, PT403 mature_confirmation_required.';
