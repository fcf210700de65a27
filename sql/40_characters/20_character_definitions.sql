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
  updated_at         timestamptz not null default now()
);

create index character_definitions_by_owner on public.character_definitions (owner_id);
alter table public.character_definitions enable row level security;

revoke all on table public.character_definitions from public, anon, authenticated, service_role;
grant select on table public.character_definitions to authenticated, service_role;
grant update (system_instruction, personality, scenario, backstory, example_dialogue)
  on table public.character_definitions to authenticated;
comment on table public.character_definitions is
'How a character acts; readable by its owner alone. The row is made with the character: update it.';

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
