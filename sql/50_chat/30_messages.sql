-- messages: a tree. Composite keys tie parent and child to one conversation, and the chosen child to
-- its parent; no message ever moves, so there is no cycle. No row goes but with its conversation:
-- deleting a message empties it, so what hangs below it stays where it is.
create table public.messages (
  id              uuid primary key default private.uuid_v7(),
  conversation_id uuid not null references public.conversations (id) on delete cascade,
  parent_id       uuid,
  depth           integer not null,
  selected_child_id uuid,
  role            text not null constraint messages_role_known check (role in ('user', 'assistant')),
  author_id       uuid references public.profiles (id) on delete set null,
  content         text not null default '' constraint messages_content_is_bounded check (octet_length(content) <= 1048576),
  status          text not null default 'completed' constraint messages_status_known
    check (status in ('pending', 'completed', 'failed', 'cancelled')),
  finish_reason   text,
  generation_id   uuid,
  created_at      timestamptz not null default now(),
  deleted_at      timestamptz,
  is_gone         boolean not null default false,
  constraint messages_of_conversation unique (conversation_id, id),
  constraint messages_of_parent unique (conversation_id, parent_id, id),
  constraint messages_parent_in_conversation foreign key (conversation_id, parent_id)
    references public.messages (conversation_id, id),
  constraint messages_selected_child_is_a_child foreign key (conversation_id, id, selected_child_id)
    references public.messages (conversation_id, parent_id, id),
  constraint messages_not_their_own_parent check (parent_id <> id),
  constraint messages_depth_counts_from_zero check ((depth = 0) = (parent_id is null)),
  constraint messages_author_wrote_it check (
    role = 'user' or author_id is null or coalesce(finish_reason in ('edited', 'content_refused'), false)
  ),
  constraint messages_deleted_are_empty check (deleted_at is null or content = ''),
  constraint messages_gone_are_deleted check (deleted_at is not null or not is_gone),
  constraint messages_generation_is_an_assistants check (generation_id is null or role = 'assistant')
);

create index messages_by_selected_child on public.messages (conversation_id, id, selected_child_id)
  where selected_child_id is not null;
create index messages_by_author on public.messages (author_id) where author_id is not null;
create index messages_by_generation on public.messages (generation_id) where generation_id is not null;

alter table public.conversations
  add constraint conversations_leaf_in_conversation foreign key (id, active_leaf_id)
  references public.messages (conversation_id, id) on delete set null (active_leaf_id);

alter table public.messages enable row level security;

revoke all on table public.messages from public, anon, authenticated, service_role;
grant select on table public.messages to authenticated, service_role;
comment on table public.messages is 'Messages of a conversation, a tree by parent_id. Written by rpc and the answering worker only.';
comment on column public.messages.depth is 'How many messages stand above this one.';
comment on column public.messages.selected_child_id is
'The child that was shown last; null: the newest. The branch that is shown now is named by conversations.active_leaf_id.';
comment on column public.messages.author_id is
'The person who wrote the text, also of an answer that somebody edited. Null for what the model wrote, and once the '
'author''s account was deleted.';
comment on column public.messages.status is 'pending: the answer is being written; failed and cancelled keep what had come.';
comment on column public.messages.finish_reason is
'Why the model stopped, for example stop or length; greeting, edited: written by a person; content_refused: emptied by moderation.';
comment on column public.messages.generation_id is 'The generation that wrote the message last.';
comment on column public.messages.deleted_at is 'Set: the text was deleted. A tombstone is shown while living messages hang below it.';
comment on column public.messages.is_gone is 'Deleted, with nothing living below: no branch shows it any more.';

-- A message's depth follows from its parent; that there is one, the foreign key demands.
create function private.tg_messages__place()
returns trigger
language plpgsql
security invoker
set search_path = ''
as $$
begin
  new.depth := 0;
  if new.parent_id is not null then
    new.depth := 1 + coalesce(
      (select m.depth from public.messages as m where m.conversation_id = new.conversation_id and m.id = new.parent_id), 0
    );
  end if;
  return new;
end;
$$;

-- Nothing moves a message within the tree, nor out of it.
create function private.tg_messages__stay()
returns trigger
language plpgsql
security invoker
set search_path = ''
as $$
begin
  raise sqlstate 'PT409' using
    message = 'message_cannot_move',
    detail  = 'A message stays where it was written.';
end;
$$;

revoke all on function private.tg_messages__place(), private.tg_messages__stay()
  from public, anon, authenticated, service_role;

create trigger _100_place before insert on public.messages
  for each row execute function private.tg_messages__place();

create trigger _100_stay before update of id, conversation_id, parent_id, depth on public.messages
  for each row
  when ((old.id, old.conversation_id, old.parent_id, old.depth)
    is distinct from (new.id, new.conversation_id, new.parent_id, new.depth))
  execute function private.tg_messages__stay();

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

insert into private.error_codes (code, status, meaning) values
  ('message_cannot_move', 409, 'A message keeps its place in the tree, whoever writes.'),
  ('message_not_found', 404, 'There is no such message, it was deleted, or the caller does not take part in its conversation.'),
  ('message_not_yours', 403, 'Only whoever wrote the message may do this.'),
  ('nothing_to_answer', 409, 'No message of a person, with its text, stands before the answer that is asked for.');

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('public', 'messages', 'author_id', 'detach', 'include');

create policy "participants can read messages" on public.messages
  for select to authenticated
  using (conversation_id = any ((select private.my_conversation_ids())::uuid[]));
