-- What a prompt needs of a character that answers outside of a conversation, if the user may see it: its
-- newest version and its lorebook, and whom it talks to. What was said is with whoever asks.
create function private.character_material(character_id uuid, user_id uuid)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  partner public.characters := private.visible_character(character_material.character_id, character_material.user_id);
  pinned  integer := private.pinned_version(partner);
begin
  return jsonb_build_object(
    'character', (
      select jsonb_build_object('name', partner.name) || coalesce(v.snapshot, '{}')
      from public.character_versions as v
      where v.character_id = partner.id and v.version = pinned
    ),
    'character_version', pinned,
    'user', (select jsonb_build_object('name', p.display_name) from public.profiles as p where p.id = character_material.user_id),
    'lorebooks', private.lore_material(partner.id, null)
  );
end;
$$;

revoke all on function private.character_material(uuid, uuid) from public, anon, authenticated, service_role;
