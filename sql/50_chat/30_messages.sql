-- messages: a tree. A composite key ties parent and child to one conversation.
create table public.messages (
  id              uuid primary key default private.uuid_v7(),
  conversation_id uuid not null references public.conversations (id) on delete cascade,
  parent_id       uuid,
  role            text not null constraint messages_role_known check (role in ('user', 'assistant')),
  author_id       uuid references public.profiles (id) on delete set null,
  content         text not null default '' constraint messages_content_is_bounded check (octet_length(content) <= 1048576),
  status          text not null default 'completed' constraint messages_status_known
    check (status in ('pending', 'completed', 'failed', 'cancelled')),
  finish_reason   text,
  generation_id   uuid,
  created_at      timestamptz not null default now(),
  constraint messages_of_conversation unique (conversation_id, id),
  constraint messages_parent_in_conversation foreign key (conversation_id, parent_id)
    references public.messages (conversation_id, id),
  constraint messages_not_their_own_parent check (parent_id <> id),
  constraint messages_author_is_no_assistant check (role = 'user' or author_id is null),
  constraint messages_generation_is_an_assistants check (generation_id is null or role = 'assistant')
);

create index messages_by_parent on public.messages (conversation_id, parent_id);
create index messages_by_author on public.messages (author_id) where author_id is not null;
create index messages_by_generation on public.messages (generation_id) where generation_id is not null;

alter table public.conversations
  add constraint conversations_leaf_in_conversation foreign key (id, active_leaf_id)
  references public.messages (conversation_id, id) on delete set null (active_leaf_id);

alter table public.messages enable row level security;

revoke all on table public.messages from public, anon, authenticated, service_role;
grant select on table public.messages to authenticated, service_role;
comment on table public.messages is 'Messages of a conversation, a tree by parent_id. Written by rpc and the answering worker only.';
comment on column public.messages.author_id is 'Null for the character, and once the author''s account was deleted.';
comment on column public.messages.status is 'pending: the answer is being written; failed and cancelled keep what had come.';
comment on column public.messages.finish_reason is 'Why the model stopped, for example stop or length.';
comment on column public.messages.generation_id is 'The generation that wrote the message last.';

-- A message ends once: what ended keeps its state, whoever writes.
create function private.tg_messages__edges()
returns trigger
language plpgsql
security invoker
set search_path = ''
as $$
begin
  if old.status <> 'pending' then
    raise sqlstate 'PT409' using
      message = 'status_edge_forbidden',
      detail  = 'A message cannot go from ' || old.status || ' to ' || new.status || '.';
  end if;
  return new;
end;
$$;

revoke all on function private.tg_messages__edges() from public, anon, authenticated, service_role;

create trigger _200_edges before update of status on public.messages
  for each row when (old.status is distinct from new.status)
  execute function private.tg_messages__edges();

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('public', 'messages', 'author_id', 'detach', 'include');

create policy "participants can read messages" on public.messages
  for select to authenticated
  using (conversation_id = any ((select private.my_conversation_ids())::uuid[]));
