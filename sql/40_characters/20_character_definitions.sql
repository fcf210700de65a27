-- character_definitions: what makes a character act; only its owner reads it. Made with the
-- character, so that there is always exactly one.
create table public.character_definitions (
  character_id       uuid primary key references public.characters (id) on delete cascade,
  owner_id           uuid not null references public.profiles (id) on delete cascade,
  system_instruction text not null default ''
    constraint character_definitions_instruction_is_text check (private.is_text(system_instruction, 16000)),
  personality        text not null default ''
    constraint character_definitions_personality_is_text check (private.is_text(personality, 16000)),
  scenario           text not null default ''
    constraint character_definitions_scenario_is_text check (private.is_text(scenario, 16000)),
  backstory          text not null default ''
    constraint character_definitions_backstory_is_text check (private.is_text(backstory, 32000)),
  example_dialogue   text not null default ''
    constraint character_definitions_dialogue_is_text check (private.is_text(example_dialogue, 32000)),
  post_history_instructions text not null default ''
    constraint character_definitions_post_history_is_text check (private.is_text(post_history_instructions, 16000)),
  uses_generated_behaviour boolean not null default false,
  behaviour_preferences jsonb not null default '{}'
    constraint character_definitions_preferences_have_shape check (private.is_text_map(behaviour_preferences, 32, 500)),
  custom_descriptions jsonb not null default '{}'
    constraint character_definitions_descriptions_have_shape check (private.is_text_map(custom_descriptions, 32, 8000)),
  group_only_greetings text[] not null default '{}'
    constraint character_definitions_greetings_are_texts check (private.is_text_list(group_only_greetings, 32, 8000)),
  depth_prompt       jsonb constraint character_definitions_depth_prompt_has_shape
    check (depth_prompt is null or private.is_depth_prompt(depth_prompt)),
  card_extras        jsonb not null default '{}'
    constraint character_definitions_extras_are_small_object check (private.is_json_object(card_extras, 262144, 64)),
  updated_at         timestamptz not null default now()
);

create index character_definitions_by_owner on public.character_definitions (owner_id);
alter table public.character_definitions enable row level security;

revoke all on table public.character_definitions from public, anon, authenticated, service_role;
grant select on table public.character_definitions to authenticated, service_role;
grant update (
    system_instruction, personality, scenario, backstory, example_dialogue, post_history_instructions,
    uses_generated_behaviour, behaviour_preferences, custom_descriptions, group_only_greetings, depth_prompt, card_extras
  )
  on table public.character_definitions to authenticated;
comment on table public.character_definitions is
'How a character acts; readable by its owner alone. The row is made with the character: update it.';
comment on column public.character_definitions.post_history_instructions is 'An instruction that stands after the messages.';
comment on column public.character_definitions.uses_generated_behaviour is
'Whether the model shapes how the character behaves, within behaviour_preferences.';
comment on column public.character_definitions.behaviour_preferences is 'Name to text, at most 32, for example {"humour": "dry"}.';
comment on column public.character_definitions.custom_descriptions is
'Sections of one''s own, title to text, at most 32, for example {"Ship": "An old freighter."}.';
comment on column public.character_definitions.depth_prompt is
'{prompt, depth, role}: a prompt put depth messages before the newest one; role is system, user or assistant.';
comment on column public.character_definitions.card_extras is
'Whatever an imported card holds for which there is no column; goes into its export, never into a prompt.';

create policy "owners can read the definitions of their characters" on public.character_definitions
  for select to authenticated
  using (owner_id = (select auth.uid()));

create policy "owners can change the definitions of their characters" on public.character_definitions
  for update to authenticated
  using (owner_id = (select auth.uid()) and (select private.is_active_user()))
  with check (owner_id = (select auth.uid()));

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('public', 'character_definitions', 'owner_id', 'cascade', 'include');

-- Runs as its owner: clients have no insert on the table.
create function private.tg_characters__definition()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  insert into public.character_definitions (character_id, owner_id) values (new.id, new.owner_id);
  return null;
end;
$$;

create trigger _500_definition after insert on public.characters
  for each row execute function private.tg_characters__definition();

create trigger _100_updated_at before update on public.character_definitions
  for each row execute function private.tg_characters__updated_at();

revoke all on function private.tg_characters__definition() from public, anon, authenticated, service_role;
