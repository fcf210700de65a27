-- Lets a conversation go on with its character as the character is now. Runs as its owner: the pinned version is
-- written by functions only.
create function private.move_to_newest_version(conversation_id uuid)
returns public.conversations
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  caller  uuid := private.hold_active_user();
  talk    public.conversations := private.lock_conversation(move_to_newest_version.conversation_id, caller);
  partner public.characters;
begin
  if talk.owner_id <> caller then
    raise sqlstate 'PT403' using
      message = 'conversation_owner_required',
      detail  = 'Only the owner of the conversation can move it to another version.';
  end if;
  partner := private.visible_character(talk.character_id, caller);
  update public.conversations as c
  set character_version = private.pinned_version(partner)
  where c.id = talk.id
  returning c.* into talk;
  return talk;
end;
$$;

create function public.move_to_newest_version(conversation_id uuid)
returns public.conversations
language sql
volatile
security invoker
set search_path = ''
as $$
  select c.* from private.move_to_newest_version(move_to_newest_version.conversation_id) as c;
$$;

revoke all on function private.move_to_newest_version(uuid), public.move_to_newest_version(uuid)
  from public, anon, authenticated, service_role;
grant execute on function private.move_to_newest_version(uuid), public.move_to_newest_version(uuid) to authenticated;
comment on function public.move_to_newest_version(uuid) is
'Goes on with the newest version of the character (owner only); the branch stays as it is. Raises PT404 conversation_not_found, '
'PT403 conversation_owner_required, PT404 character_not_found, PT403 mature_confirmation_required.';
