-- Refuses a mature character to somebody who has not confirmed to see such content; its owner has.
create function private.require_mature_confirmation(partner public.characters, viewer uuid)
returns void
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  -- Nested, so that most characters cost no query.
  if partner.is_mature and partner.owner_id is distinct from viewer then
    if not exists (select from public.profile_private as s where s.id = viewer and s.mature_confirmed_at is not null) then
      raise sqlstate 'PT403' using
        message = 'mature_confirmation_required',
        detail  = 'This character is mature.',
        hint    = 'Call confirm_mature_content first.';
    end if;
  end if;
end;
$$;

revoke all on function private.require_mature_confirmation(public.characters, uuid)
  from public, anon, authenticated, service_role;

-- The character, if `viewer` may see it by its id; the one place of that rule for single rows.
create function private.visible_character(character_id uuid, viewer uuid)
returns public.characters
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  found_character public.characters;
begin
  select c.* into found_character
  from public.characters as c
  where c.id = visible_character.character_id and c.deleted_at is null;

  if found_character.owner_id = viewer then
    return found_character;
  end if;
  if found_character.id is null
    or found_character.visibility = 'private'
    or found_character.hidden_at is not null
    or private.is_blocked_between(found_character.owner_id, viewer)
  then
    raise sqlstate 'PT404' using
      message = 'character_not_found',
      detail  = 'There is no character with this id that you may see.';
  end if;
  perform private.require_mature_confirmation(found_character, viewer);
  return found_character;
end;
$$;

-- Reads one character for the caller. Runs as its owner, since unlisted characters stand in no list
-- that a policy could allow.
create function private.get_character(character_id uuid)
returns public.characters
language sql
stable
security definer
set search_path = ''
as $$
  select c.* from private.visible_character(get_character.character_id, (select auth.uid())) as c;
$$;

create function public.get_character(character_id uuid)
returns public.characters
language sql
stable
security invoker
set search_path = ''
as $$
  select c.* from private.get_character(get_character.character_id) as c;
$$;

-- Empties what is deleted with a character, its name apart: nobody reads the definition or a version
-- again. Versions stay as empty rows, because conversations point to them, maybe very many.
create function private.empty_character(character_id uuid)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  -- The definition before the character, as all who lock both.
  delete from public.character_definitions as d where d.character_id = empty_character.character_id;
  update public.characters as c
  set deleted_at = clock_timestamp(), nickname = '', tagline = '', description = '', greeting = '',
    alternate_greetings = '{}', tags = '{}', gender = '', occupation = '', hobbies = '{}', voice = '', language = '',
    appearance = '{}', avatar_path = null, creator_notes = '', creator = '', card_version = ''
  where c.id = empty_character.character_id;
  update public.character_versions as v set snapshot = '{}' where v.character_id = empty_character.character_id;
  delete from public.character_media as m where m.character_id = empty_character.character_id;
  delete from public.lorebooks as b where b.character_id = empty_character.character_id;
end;
$$;

revoke all on function private.empty_character(uuid) from public, anon, authenticated, service_role;

-- Deletes a character of the caller's. What made it goes at once, its files soon after; conversations with
-- it stay readable. Runs as its owner, since clients have no delete.
create function private.delete_character(character_id uuid)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  perform private.hold_active_user();
  if not private.is_my_character(delete_character.character_id) then
    raise sqlstate 'PT404' using
      message = 'character_not_found',
      detail  = 'You have no character with this id.';
  end if;
  perform private.erase_files_of(delete_character.character_id);
  perform private.empty_character(delete_character.character_id);
end;
$$;

create function public.delete_character(character_id uuid)
returns void
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.delete_character(delete_character.character_id);
$$;

revoke all on function private.visible_character(uuid, uuid) from public, anon, authenticated, service_role;
revoke all on function private.get_character(uuid), public.get_character(uuid)
  from public, anon, authenticated, service_role;
revoke all on function private.delete_character(uuid), public.delete_character(uuid)
  from public, anon, authenticated, service_role;
grant execute on function private.get_character(uuid), public.get_character(uuid) to anon, authenticated;
grant execute on function private.delete_character(uuid), public.delete_character(uuid) to authenticated;
comment on function public.get_character(uuid) is
'One character by its id, unlisted ones included. '
'Raises PT404 character_not_found, PT403 mature_confirmation_required.';
comment on function public.delete_character(uuid) is
'Deletes a character of one''s own for good, with its files; conversations with it stay readable, but cannot go on. '
'Raises PT404 character_not_found.';
