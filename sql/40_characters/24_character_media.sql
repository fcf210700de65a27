-- character_media: pictures and clips of a character, shown beside it. The files lie in the bucket
-- `character-media`, in the owner's folder.
create table public.character_media (
  id           uuid primary key default private.uuid_v7(),
  character_id uuid not null,
  owner_id     uuid not null default auth.uid(),
  kind         text not null default 'image' constraint character_media_kind_known check (kind in ('image', 'video')),
  path         text not null constraint character_media_one_row_per_file unique,
  position     smallint not null default 0 constraint character_media_position_range check (position between 0 and 999),
  caption      text not null default ''
    constraint character_media_caption_is_line check (caption = '' or private.is_line(caption, 200)),
  created_at   timestamptz not null default now(),
  constraint character_media_owner_is_the_characters foreign key (owner_id, character_id)
    references public.characters (owner_id, id) on delete cascade,
  constraint character_media_path_is_the_owners check (
    starts_with(path, owner_id::text || '/')
    and char_length(path) <= 200
    and path !~ '(\.\.|[^A-Za-z0-9_./-])'
  )
);

create index character_media_by_owner on public.character_media (owner_id, character_id);
create index character_media_by_character on public.character_media (character_id, position, id);
alter table public.character_media enable row level security;

revoke all on table public.character_media from public, anon, authenticated, service_role;
grant select on table public.character_media to anon, authenticated, service_role;
grant insert (character_id, kind, path, position, caption), update (position, caption), delete
  on table public.character_media to authenticated;
comment on table public.character_media is
'Pictures and clips of characters, in the order of position and id; shown to whoever finds the character.';
comment on column public.character_media.path is 'Path in the bucket `character-media`, in the owner''s folder.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('public', 'character_media', 'owner_id', 'delete', 'include');

-- Whether the caller finds a character: the rule of the policies on characters, for single rows.
-- Runs as its owner, since a policy names no other table with row level security.
create function private.finds_character(character_id uuid)
returns boolean
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  caller uuid := (select auth.uid());
begin
  return exists (
    select from public.characters as c
    where c.id = finds_character.character_id
      and c.deleted_at is null
      and (
        c.owner_id = caller
        or (
          c.visibility = 'public'
          and c.hidden_at is null
          and (not c.is_mature or private.sees_mature_content())
          and not private.is_blocked_between(c.owner_id, caller)
        )
      )
  );
end;
$$;

-- Whether a character is the caller's own and not deleted.
create function private.is_my_character(character_id uuid)
returns boolean
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  return exists (
    select from public.characters as c
    where c.id = is_my_character.character_id and c.owner_id = (select auth.uid()) and c.deleted_at is null
  );
end;
$$;

revoke all on function private.finds_character(uuid), private.is_my_character(uuid)
  from public, anon, authenticated, service_role;
grant execute on function private.finds_character(uuid) to anon, authenticated;
grant execute on function private.is_my_character(uuid) to authenticated;
comment on function private.finds_character(uuid) is 'True when the character stands in a list that the caller reads.';
comment on function private.is_my_character(uuid) is 'True when the character is the caller''s own and not deleted.';

create policy "whoever finds a character can read its media" on public.character_media
  for select to anon, authenticated
  using (owner_id = (select auth.uid()) or private.finds_character(character_id));

create policy "active owners can add media to their characters" on public.character_media
  for insert to authenticated
  with check (
    owner_id = (select auth.uid())
    and private.is_my_character(character_id)
    and (select private.holds_active_account())
  );

create policy "owners can change the media of their characters" on public.character_media
  for update to authenticated
  using (owner_id = (select auth.uid()) and (select private.is_active_user()))
  with check (owner_id = (select auth.uid()));

create policy "owners can remove the media of their characters" on public.character_media
  for delete to authenticated
  using (owner_id = (select auth.uid()));
