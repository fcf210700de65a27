-- inbox_entries: what one person's list of conversations is made of; one row for each conversation they
-- have joined. Carries the time of the last message, so that one index serves the list in its order.
create table public.inbox_entries (
  conversation_id      uuid not null,
  user_id              uuid not null references public.profiles (id) on delete cascade,
  last_message_at      timestamptz not null,
  is_pinned            boolean not null default false,
  is_archived          boolean not null default false,
  last_read_message_id uuid,
  last_read_at         timestamptz,
  constraint inbox_entries_pkey primary key (conversation_id, user_id),
  constraint inbox_entries_of_a_participant foreign key (conversation_id, user_id)
    references public.conversation_participants (conversation_id, user_id) on delete cascade,
  constraint inbox_entries_read_in_conversation foreign key (conversation_id, last_read_message_id)
    references public.messages (conversation_id, id) on delete set null (last_read_message_id)
);

create index inbox_entries_in_order
  on public.inbox_entries (user_id, is_archived, is_pinned, last_message_at, conversation_id);
create index inbox_entries_by_read on public.inbox_entries (conversation_id, last_read_message_id);
alter table public.inbox_entries enable row level security;

revoke all on table public.inbox_entries from public, anon, authenticated, service_role;
grant select on table public.inbox_entries to authenticated, service_role;
comment on table public.inbox_entries is
'A person''s own list of conversations: pinned, archived, read up to where. Read it by rpc list_conversations, change it by '
'rpc update_inbox_entry and mark_read.';
comment on column public.inbox_entries.last_message_at is 'When somebody last wrote in the conversation.';
comment on column public.inbox_entries.last_read_message_id is 'The newest message that the person has read; null: none yet.';

create policy "people can read their own inbox" on public.inbox_entries
  for select to authenticated
  using (user_id = (select auth.uid()));

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('public', 'inbox_entries', 'user_id', 'delete', 'include');

-- Whoever joins gets an entry, and whoever leaves has none any more.
create function private.tg_conversation_participants__inbox()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  if new.state = 'joined' then
    insert into public.inbox_entries (conversation_id, user_id, last_message_at)
    select c.id, new.user_id, c.last_message_at from public.conversations as c where c.id = new.conversation_id
    on conflict on constraint inbox_entries_pkey do nothing;
  else
    delete from public.inbox_entries as e where e.conversation_id = new.conversation_id and e.user_id = new.user_id;
  end if;
  return null;
end;
$$;

revoke all on function private.tg_conversation_participants__inbox() from public, anon, authenticated, service_role;

create trigger _500_inbox after insert or update of state on public.conversation_participants
  for each row execute function private.tg_conversation_participants__inbox();
