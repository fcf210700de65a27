-- lorebooks: what a character or one conversation knows, told to the model when somebody speaks of it.
-- Readable and written by the owner of the character or the conversation; lore is live, not versioned.

create table public.lorebooks (
  id              uuid primary key default private.uuid_v7(),
  owner_id        uuid not null default auth.uid(),
  character_id    uuid constraint lorebooks_one_per_character unique,
  conversation_id uuid constraint lorebooks_one_per_conversation unique,
  name            text not null default '' constraint lorebooks_name_is_line check (name = '' or private.is_line(name, 120)),
  description     text not null default '' constraint lorebooks_description_is_text check (private.is_text(description, 4000)),
  scan_depth      smallint constraint lorebooks_scan_depth_range check (scan_depth between 0 and 1000),
  token_budget    integer constraint lorebooks_token_budget_range check (token_budget between 0 and 100000),
  is_recursive    boolean not null default false,
  extras          jsonb not null default '{}'
    constraint lorebooks_extras_are_small_object check (private.is_json_object(extras, 65536, 64)),
  created_at      timestamptz not null default now(),
  updated_at      timestamptz not null default now(),
  constraint lorebooks_of_owner unique (owner_id, id),
  constraint lorebooks_belong_to_one check (num_nonnulls(character_id, conversation_id) = 1),
  constraint lorebooks_owner_is_the_characters foreign key (owner_id, character_id)
    references public.characters (owner_id, id) on delete cascade,
  -- A conversation may pass on to somebody else, and its book with it.
  constraint lorebooks_owner_is_the_conversations foreign key (owner_id, conversation_id)
    references public.conversations (owner_id, id) on update cascade on delete cascade
);

create index lorebooks_by_owner_and_character on public.lorebooks (owner_id, character_id);
create index lorebooks_by_owner_and_conversation on public.lorebooks (owner_id, conversation_id);
alter table public.lorebooks enable row level security;

revoke all on table public.lorebooks from public, anon, authenticated, service_role;
grant select on table public.lorebooks to authenticated, service_role;
grant insert (character_id, conversation_id, name, description, scan_depth, token_budget, is_recursive, extras),
  update (name, description, scan_depth, token_budget, is_recursive, extras), delete
  on table public.lorebooks to authenticated;
comment on table public.lorebooks is
'Lore of a character or of one conversation, at most one book each; readable by the owner of either alone.';
comment on column public.lorebooks.scan_depth is 'How many of the newest messages are searched for keys; null: as the prompt decides.';
comment on column public.lorebooks.token_budget is 'At most so many tokens of lore in a prompt; null: as the prompt decides.';
comment on column public.lorebooks.is_recursive is 'Whether lore that was told is searched for keys as well.';
comment on column public.lorebooks.extras is 'Whatever an imported book holds for which there is no column.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('public', 'lorebooks', 'owner_id', 'delete', 'include');

-- Runs as its owner: a policy names no other table with row level security.
create function private.is_my_conversation(conversation_id uuid)
returns boolean
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  return exists (
    select from public.conversations as c
    where c.id = is_my_conversation.conversation_id and c.owner_id = (select auth.uid()) and c.deleted_at is null
  );
end;
$$;

revoke all on function private.is_my_conversation(uuid) from public, anon, authenticated, service_role;
grant execute on function private.is_my_conversation(uuid) to authenticated;
comment on function private.is_my_conversation(uuid) is 'True when the caller owns the conversation.';

create policy "owners can read their lorebooks" on public.lorebooks
  for select to authenticated
  using (owner_id = (select auth.uid()));

create policy "active owners can add lorebooks" on public.lorebooks
  for insert to authenticated
  with check (
    owner_id = (select auth.uid())
    and (private.is_my_character(character_id) or private.is_my_conversation(conversation_id))
    and (select private.holds_active_account())
  );

create policy "owners can change their lorebooks" on public.lorebooks
  for update to authenticated
  using (owner_id = (select auth.uid()) and (select private.is_active_user()))
  with check (owner_id = (select auth.uid()));

create policy "owners can delete their lorebooks" on public.lorebooks
  for delete to authenticated
  using (owner_id = (select auth.uid()));

create function private.tg_lorebooks__updated_at()
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

create trigger _100_updated_at before update on public.lorebooks
  for each row execute function private.tg_lorebooks__updated_at();

revoke all on function private.tg_lorebooks__updated_at() from public, anon, authenticated, service_role;
