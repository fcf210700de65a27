-- character_versions: what a character was for prompts, one row per version. A conversation pins one
-- and does not change under the feet of who talks in it, until they move on. Readable by the owner alone.
create table public.character_versions (
  character_id uuid not null,
  version      integer not null constraint character_versions_count_from_one check (version >= 1),
  owner_id     uuid not null,
  snapshot     jsonb not null,
  created_at   timestamptz not null default now(),
  constraint character_versions_pkey primary key (character_id, version),
  constraint character_versions_owner_is_the_characters foreign key (owner_id, character_id)
    references public.characters (owner_id, id) on delete cascade
);

create index character_versions_by_owner on public.character_versions (owner_id, character_id);
alter table public.character_versions enable row level security;

revoke all on table public.character_versions from public, anon, authenticated, service_role;
grant select on table public.character_versions to authenticated, service_role;
comment on table public.character_versions is
'What a character was in each version; readable by its owner alone. A transaction that changes a character adds one.';
comment on column public.character_versions.snapshot is
'The columns of characters and character_definitions that prompts use; empty once the character was deleted.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('public', 'character_versions', 'owner_id', 'cascade', 'include');

create policy "owners can read the versions of their characters" on public.character_versions
  for select to authenticated
  using (owner_id = (select auth.uid()));

-- Everything of a character that a prompt needs, as it is now.
create function private.character_snapshot(character_id uuid)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return (
    select jsonb_build_object(
      'name', c.name, 'nickname', c.nickname, 'tagline', c.tagline, 'description', c.description,
      'greeting', c.greeting, 'alternate_greetings', c.alternate_greetings, 'age', c.age, 'is_mature', c.is_mature,
      'gender', c.gender, 'occupation', c.occupation, 'hobbies', c.hobbies, 'voice', c.voice, 'language', c.language,
      'appearance', c.appearance,
      'system_instruction', d.system_instruction, 'personality', d.personality, 'scenario', d.scenario,
      'backstory', d.backstory, 'example_dialogue', d.example_dialogue,
      'post_history_instructions', d.post_history_instructions,
      'uses_generated_behaviour', d.uses_generated_behaviour, 'behaviour_preferences', d.behaviour_preferences,
      'custom_descriptions', d.custom_descriptions, 'group_only_greetings', d.group_only_greetings,
      'depth_prompt', d.depth_prompt
    )
    from public.characters as c
    join public.character_definitions as d on d.character_id = c.id
    where c.id = character_snapshot.character_id and c.deleted_at is null
  );
end;
$$;

-- Makes a new version if the character differs from its newest one. The character is locked first, so
-- that two edits at once make two versions, the later one with what both changed.
create function private.settle_character_version(character_id uuid)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  subject public.characters;
  before  jsonb;
  now_is  jsonb;
begin
  select c.* into subject
  from public.characters as c
  where c.id = settle_character_version.character_id
  for no key update;
  now_is := private.character_snapshot(subject.id);
  select v.snapshot into before
  from public.character_versions as v
  where v.character_id = subject.id and v.version = subject.version;
  if now_is is null or now_is = before then
    return;
  end if;

  if before is not null then
    subject.version := subject.version + 1;
    update public.characters as c set version = subject.version where c.id = subject.id;
  end if;
  insert into public.character_versions (character_id, version, owner_id, snapshot)
  values (subject.id, subject.version, subject.owner_id, now_is);
end;
$$;

-- The triggers wait for the end of the transaction, so that whatever it changes is one version.
-- They run as their owner: clients do not write versions.
create function private.tg_characters__version()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform private.settle_character_version(new.id);
  return null;
end;
$$;

create function private.tg_character_definitions__version()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform private.settle_character_version(new.character_id);
  return null;
end;
$$;

create constraint trigger _900_first_version after insert on public.characters
  deferrable initially deferred
  for each row execute function private.tg_characters__version();

create constraint trigger _900_version after update on public.characters
  deferrable initially deferred
  for each row when (old.version = new.version)
  execute function private.tg_characters__version();

create constraint trigger _900_version after update on public.character_definitions
  deferrable initially deferred
  for each row execute function private.tg_character_definitions__version();

revoke all on function
  private.character_snapshot(uuid), private.settle_character_version(uuid), private.tg_characters__version(),
  private.tg_character_definitions__version()
  from public, anon, authenticated, service_role;

-- The version that a conversation begins with. In the transaction that made the character it is
-- still to come, and comes here.
create function private.pinned_version(partner public.characters)
returns integer
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  if not exists (
    select from public.character_versions as v where v.character_id = partner.id and v.version = partner.version
  ) then
    perform private.settle_character_version(partner.id);
  end if;
  return partner.version;
end;
$$;

revoke all on function private.pinned_version(public.characters) from public, anon, authenticated, service_role;
