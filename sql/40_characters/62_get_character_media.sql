-- The media of one character for the caller, in order. Runs as its owner, since those of unlisted
-- characters stand in no list that a policy could allow.
create function private.get_character_media(character_id uuid)
returns setof public.character_media
language sql
stable
security definer
set search_path = ''
as $$
  select m.*
  from private.visible_character(get_character_media.character_id, (select auth.uid())) as c
  join public.character_media as m on m.character_id = c.id
  order by m.position, m.id;
$$;

create function public.get_character_media(character_id uuid)
returns setof public.character_media
language sql
stable
security invoker
set search_path = ''
as $$
  select m.* from private.get_character_media(get_character_media.character_id) as m;
$$;

revoke all on function private.get_character_media(uuid), public.get_character_media(uuid)
  from public, anon, authenticated, service_role;
grant execute on function private.get_character_media(uuid), public.get_character_media(uuid) to anon, authenticated;
comment on function public.get_character_media(uuid) is
'Pictures and clips of one character by its id, unlisted ones included, in order. '
'Raises PT404 character_not_found, PT403 mature_confirmation_required.';
