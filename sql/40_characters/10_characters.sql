-- characters: the public face of who people talk to. What only the owner may read stands in
-- character_definitions. Characters are adults; mature ones show only to who confirmed to see them.

create table public.characters (
  id          uuid primary key default private.uuid_v7(),
  owner_id    uuid not null default auth.uid() references public.profiles (id) on delete cascade,
  name        text not null constraint characters_name_is_line check (private.is_line(name, 80)),
  nickname    text not null default ''
    constraint characters_nickname_is_line check (nickname = '' or private.is_line(nickname, 80)),
  tagline     text not null default ''
    constraint characters_tagline_is_line check (tagline = '' or private.is_line(tagline, 200)),
  description text not null default '' constraint characters_description_is_text check (private.is_text(description, 4000)),
  greeting    text not null default '' constraint characters_greeting_is_text check (private.is_text(greeting, 8000)),
  alternate_greetings text[] not null default '{}'
    constraint characters_greetings_are_texts check (private.is_text_list(alternate_greetings, 32, 8000)),
  tags        text[] not null default '{}' constraint characters_tags_are_tags check (private.is_tag_list(tags)),
  visibility  text not null default 'private' constraint characters_visibility_known
    check (visibility in ('private', 'unlisted', 'public')),
  age         smallint not null constraint characters_are_adults check (age between 18 and 30000),
  is_mature   boolean not null default false,
  gender      text not null default '' constraint characters_gender_is_line check (gender = '' or private.is_line(gender, 60)),
  occupation  text not null default ''
    constraint characters_occupation_is_line check (occupation = '' or private.is_line(occupation, 120)),
  hobbies     text[] not null default '{}' constraint characters_hobbies_are_lines check (private.is_line_list(hobbies, 32, 80)),
  voice       text not null default '' constraint characters_voice_is_line check (voice = '' or private.is_line(voice, 120)),
  language    text not null default '' constraint characters_language_is_bcp47
    check (language = '' or private.is_language_tag(language)),
  appearance  jsonb not null default '{}' constraint characters_appearance_has_shape check (private.is_appearance(appearance)),
  avatar_path text constraint characters_avatar_is_the_owners check (
    starts_with(avatar_path, owner_id::text || '/')
    and char_length(avatar_path) <= 200
    and avatar_path !~ '(\.\.|[^A-Za-z0-9_./-])'
  ),
  creator_notes text not null default ''
    constraint characters_creator_notes_are_text check (private.is_text(creator_notes, 16000)),
  creator     text not null default '' constraint characters_creator_is_line check (creator = '' or private.is_line(creator, 120)),
  card_version text not null default ''
    constraint characters_card_version_is_line check (card_version = '' or private.is_line(card_version, 60)),
  version     integer not null default 1,
  created_at  timestamptz not null default now(),
  updated_at  timestamptz not null default now(),
  hidden_at   timestamptz,
  deleted_at  timestamptz,
  -- For tables that carry the owner beside the character: their keys make the two agree.
  constraint characters_of_owner unique (owner_id, id)
);

create index characters_public on public.characters (id desc) where visibility = 'public' and deleted_at is null;
alter table public.characters enable row level security;

revoke all on table public.characters from public, anon, authenticated, service_role;
grant select on table public.characters to anon, authenticated, service_role;
grant insert (
    name, nickname, tagline, description, greeting, alternate_greetings, tags, visibility, age, is_mature, gender,
    occupation, hobbies, voice, language, appearance, avatar_path, creator_notes, creator, card_version
  ),
  update (
    name, nickname, tagline, description, greeting, alternate_greetings, tags, visibility, age, is_mature, gender,
    occupation, hobbies, voice, language, appearance, avatar_path, creator_notes, creator, card_version
  )
  on table public.characters to authenticated;
comment on table public.characters is
'The public face of characters. An unlisted one is not found in lists: read it by rpc get_character.';
comment on column public.characters.nickname is 'Stands for {{char}} in prompts when it is not empty; else the name does.';
comment on column public.characters.greeting is 'What the character says first; empty: the person begins.';
comment on column public.characters.alternate_greetings is 'Other first messages to choose from, at most 32.';
comment on column public.characters.visibility is
'private: its owner; unlisted: whoever has the id; public: everybody. Blocks hide it both ways.';
comment on column public.characters.is_mature is 'Shown only to people who confirmed to see mature content, and to its owner.';
comment on column public.characters.language is 'BCP 47 tag of the language the character speaks; empty: the person''s.';
comment on column public.characters.appearance is
'{heritage, skin_tone, eye_colour, hair_colour, hair_style, body_type, proportions: text, custom_traits: [text]}, each optional.';
comment on column public.characters.avatar_path is 'Path in the bucket `avatars`, in the owner''s folder.';
comment on column public.characters.creator_notes is 'From who made the character to people who use it; in no prompt.';
comment on column public.characters.creator is 'Who made an imported character, as its card says.';
comment on column public.characters.card_version is 'Version of an imported character, as its card says.';
comment on column public.characters.hidden_at is 'When moderators hid it from everybody but its owner; null: they did not.';
comment on column public.characters.version is 'Number of the newest row in character_versions.';

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
  using (visibility = 'public' and deleted_at is null and hidden_at is null and not is_mature);

create policy "people can read their own and public characters" on public.characters
  for select to authenticated
  using (
    deleted_at is null
    and (
      owner_id = (select auth.uid())
      or (
        visibility = 'public'
        and hidden_at is null
        and (not is_mature or (select private.sees_mature_content()))
        and owner_id not in (select private.blocked_user_ids())
      )
    )
  );

create policy "active people can create characters" on public.characters
  for insert to authenticated
  with check (owner_id = (select auth.uid()) and private.has_room_for_character());

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
