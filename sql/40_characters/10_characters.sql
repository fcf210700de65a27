-- characters: the public face of who people talk to. What only the owner may read stands in
-- character_definitions. Characters are adults; mature ones show only to who confirmed to see them.

-- Tags: at most 16, each one lower-case line of at most 32 characters, none twice.
create function private.is_tag_list(tags text[])
returns boolean
language sql
immutable
parallel safe
security invoker
set search_path = ''
as $$
  select coalesce(array_ndims(tags), 1) = 1
    and cardinality(tags) <= 16
    and not exists (
      select from unnest(tags) as t (tag)
      where t.tag is null or t.tag <> lower(t.tag) or not private.is_line(t.tag, 32)
    )
    and cardinality(tags) = (select count(distinct t.tag) from unnest(tags) as t (tag));
$$;

revoke all on function private.is_tag_list(text[]) from public, anon, authenticated, service_role;
grant execute on function private.is_tag_list(text[]) to anon, authenticated, service_role;
comment on function private.is_tag_list(text[]) is 'True for at most 16 distinct lower-case tags of at most 32 characters.';

create table public.characters (
  id          uuid primary key default private.uuid_v7(),
  owner_id    uuid not null default auth.uid() references public.profiles (id) on delete cascade,
  name        text not null constraint characters_name_is_line check (private.is_line(name, 80)),
  tagline     text not null default ''
    constraint characters_tagline_is_line check (tagline = '' or private.is_line(tagline, 200)),
  description text not null default '' constraint characters_description_is_text check (private.is_text(description, 4000)),
  greeting    text not null default '' constraint characters_greeting_is_text check (private.is_text(greeting, 8000)),
  tags        text[] not null default '{}' constraint characters_tags_are_tags check (private.is_tag_list(tags)),
  visibility  text not null default 'private' constraint characters_visibility_known
    check (visibility in ('private', 'unlisted', 'public')),
  age         smallint not null constraint characters_are_adults check (age between 18 and 30000),
  is_mature   boolean not null default false,
  avatar_path text constraint characters_avatar_is_the_owners check (
    starts_with(avatar_path, owner_id::text || '/')
    and char_length(avatar_path) <= 200
    and avatar_path !~ '(\.\.|[^A-Za-z0-9_./-])'
  ),
  created_at  timestamptz not null default now(),
  updated_at  timestamptz not null default now(),
  deleted_at  timestamptz
);

create index characters_by_owner on public.characters (owner_id, id desc) where deleted_at is null;
create index characters_owner_id on public.characters (owner_id);
create index characters_public on public.characters (id desc) where visibility = 'public' and deleted_at is null;
alter table public.characters enable row level security;

revoke all on table public.characters from public, anon, authenticated, service_role;
grant select on table public.characters to anon, authenticated, service_role;
grant insert (name, tagline, description, greeting, tags, visibility, age, is_mature, avatar_path),
  update (name, tagline, description, greeting, tags, visibility, age, is_mature, avatar_path)
  on table public.characters to authenticated;
comment on table public.characters is
'The public face of characters. An unlisted one is not found in lists: read it by rpc get_character.';
comment on column public.characters.greeting is 'What the character says first; empty: the person begins.';
comment on column public.characters.visibility is
'private: its owner; unlisted: whoever has the id; public: everybody. Blocks hide it both ways.';
comment on column public.characters.is_mature is 'Shown only to people who confirmed to see mature content, and to its owner.';
comment on column public.characters.avatar_path is 'Path in the bucket `avatars`, in the owner''s folder.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('public', 'characters', 'owner_id', 'cascade', 'include');

insert into private.error_codes (code, status, meaning) values
  ('character_not_found', 404, 'There is no such character, or the caller may not see it.'),
  ('mature_confirmation_required', 403, 'The character is mature and the caller has not confirmed to see such content.');

-- Whether the caller confirmed to see mature content. Runs as its owner, since a policy that reads
-- profile_private itself would name another table with row level security.
create function private.sees_mature_content()
returns boolean
language sql
stable
security definer
set search_path = ''
as $$
  select exists (
    select from public.profile_private as s
    where s.id = (select auth.uid()) and s.mature_confirmed_at is not null
  );
$$;

revoke all on function private.sees_mature_content() from public, anon, authenticated, service_role;
grant execute on function private.sees_mature_content() to anon, authenticated;
comment on function private.sees_mature_content() is 'True when the caller confirmed to see mature content.';

create policy "visitors can read public characters" on public.characters
  for select to anon
  using (visibility = 'public' and deleted_at is null and not is_mature);

create policy "people can read their own and public characters" on public.characters
  for select to authenticated
  using (
    deleted_at is null
    and (
      owner_id = (select auth.uid())
      or (
        visibility = 'public'
        and (not is_mature or (select private.sees_mature_content()))
        and owner_id not in (select private.blocked_user_ids())
      )
    )
  );

create policy "active people can create characters" on public.characters
  for insert to authenticated
  with check (owner_id = (select auth.uid()) and (select private.holds_active_account()));

create policy "owners can change their characters" on public.characters
  for update to authenticated
  using (owner_id = (select auth.uid()) and deleted_at is null and (select private.is_active_user()))
  with check (owner_id = (select auth.uid()) and deleted_at is null);

create function private.tg_characters__updated_at()
returns trigger
language plpgsql
security invoker
set search_path = ''
as $$
begin
  new.updated_at := clock_timestamp();
  return new;
end;
$$;

create trigger _100_updated_at before update on public.characters
  for each row execute function private.tg_characters__updated_at();

revoke all on function private.tg_characters__updated_at() from public, anon, authenticated, service_role;
