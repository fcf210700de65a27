-- conversations and their participants. The topics are read from the row, never composed: the nonce
-- changes in the transaction that removes somebody, because Realtime keeps a channel's authorisation
-- for as long as the channel lives.
create function private.new_conversation_topic(conversation_id uuid)
returns text
language sql
volatile
security invoker
set search_path = ''
as $$
  select 'conversation:' || new_conversation_topic.conversation_id || ':' || encode(extensions.gen_random_bytes(16), 'hex');
$$;

revoke all on function private.new_conversation_topic(uuid) from public, anon, authenticated, service_role;

create table public.conversations (
  id              uuid primary key default private.uuid_v7(),
  owner_id        uuid not null references public.profiles (id) on delete cascade,
  character_id    uuid references public.characters (id) on delete set null,
  character_version integer,
  title           text not null,
  topic           text not null constraint conversations_topic_unique unique,
  peers_topic     text not null generated always as (topic || ':peers') stored
    constraint conversations_peers_topic_unique unique,
  active_leaf_id  uuid,
  model_id        text references public.ai_models (id) on update cascade on delete set null,
  temperature     numeric(3, 2) constraint conversations_temperature_range check (temperature between 0 and 2),
  max_tokens      integer constraint conversations_max_tokens_range check (max_tokens between 1 and 32000),
  last_message_at timestamptz not null default now(),
  created_at      timestamptz not null default now(),
  deleted_at      timestamptz,
  -- For tables that carry the owner beside the conversation: their keys make the two agree.
  constraint conversations_of_owner unique (owner_id, id),
  constraint conversations_pin_a_version foreign key (character_id, character_version)
    references public.character_versions (character_id, version) on delete set null (character_version)
)
-- Room on each page for the next version of a conversation: each message makes one.
with (fillfactor = 80);

create index conversations_by_character on public.conversations (character_id, character_version);
create index conversations_by_model on public.conversations (model_id);
create index conversations_to_purge on public.conversations (deleted_at) where deleted_at is not null;
-- By ranges of pages: the key finds its one row by id, and a message need not write into each of the other indexes.
create index conversations_by_leaf on public.conversations using brin (id, active_leaf_id);
alter table public.conversations enable row level security;

revoke all on table public.conversations from public, anon, authenticated, service_role;
grant select on table public.conversations to authenticated, service_role;
grant update (title, model_id, temperature, max_tokens) on table public.conversations to authenticated;
comment on table public.conversations is 'Conversations of people with a character; made by rpc start_conversation.';
comment on column public.conversations.character_id is 'Null once the character was deleted: the conversation can be read, not continued.';
comment on column public.conversations.character_version is 'The version of the character that the conversation talks with.';
comment on column public.conversations.topic is
'Private Realtime topic of the server''s events. Read it again after conversation.topic_changed.';
comment on column public.conversations.peers_topic is 'Private Realtime topic for typing and presence among participants.';
comment on column public.conversations.active_leaf_id is 'Last message of the branch that is shown.';
comment on column public.conversations.deleted_at is 'Set by rpc delete_conversation: nobody sees it any more, and its rows go soon.';
comment on column public.conversations.model_id is 'Null: the default model.';
comment on column public.conversations.temperature is 'Null: 0.7.';
comment on column public.conversations.max_tokens is 'Longest answer in tokens; null: 1024.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('public', 'conversations', 'owner_id', 'detach', 'include');

create table public.conversation_participants (
  conversation_id uuid not null references public.conversations (id) on delete cascade,
  user_id         uuid not null references public.profiles (id) on delete cascade,
  role            text not null default 'member' constraint conversation_participants_role_known
    check (role in ('owner', 'member', 'viewer')),
  state           text not null default 'invited' constraint conversation_participants_state_known
    check (state in ('invited', 'joined', 'left', 'removed')),
  invited_by      uuid references public.profiles (id) on delete set null,
  expires_at      timestamptz,
  created_at      timestamptz not null default now(),
  joined_at       timestamptz,
  ended_at        timestamptz,
  constraint conversation_participants_pkey primary key (conversation_id, user_id),
  constraint conversation_participants_owner_is_joined check (role <> 'owner' or state = 'joined'),
  constraint conversation_participants_invitations_expire check (state <> 'invited' or expires_at is not null),
  constraint conversation_participants_joined_at_set check (state <> 'joined' or joined_at is not null),
  constraint conversation_participants_ended_at_set check ((ended_at is not null) = (state in ('left', 'removed')))
);

create unique index conversation_participants_one_owner on public.conversation_participants (conversation_id)
  where role = 'owner';
create index conversation_participants_by_user on public.conversation_participants (user_id, state, conversation_id);
create index conversation_participants_by_inviter on public.conversation_participants (invited_by);
alter table public.conversation_participants enable row level security;

revoke all on table public.conversation_participants from public, anon, authenticated, service_role;
grant select on table public.conversation_participants to authenticated, service_role;
comment on table public.conversation_participants is
'Who takes part in a conversation: invited, joined, left or removed. Changed by rpc only.';
comment on column public.conversation_participants.role is 'owner invites and removes; member writes; viewer reads.';
comment on column public.conversation_participants.expires_at is 'Until when an invitation can be accepted.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export) values
  ('public', 'conversation_participants', 'user_id', 'delete', 'include'),
  ('public', 'conversation_participants', 'invited_by', 'detach', 'exclude');

insert into private.error_codes (code, status, meaning) values
  ('conversation_not_found', 404, 'There is no such conversation, or the caller does not take part in it.'),
  ('conversation_owner_required', 403, 'Only the owner of the conversation may do this.'),
  ('conversation_read_only', 403, 'The caller may read this conversation, not write in it.'),
  ('conversation_full', 409, 'The conversation has as many participants as it can have.'),
  ('participant_not_found', 404, 'That person does not take part in the conversation.'),
  ('invitation_not_found', 404, 'The caller has no open invitation to this conversation.'),
  ('invitation_expired', 410, 'The invitation was not accepted in time; the owner can invite again.'),
  ('participant_role_unknown', 422, 'A participant is made a member or a viewer.'),
  ('invitation_not_possible', 409, 'The person cannot be invited or join, for example because of a block.'),
  ('owner_cannot_leave_alone', 409, 'The last person of a conversation cannot leave it.');

-- A title is a line. In a trigger on the column and not in a check, which every message in the conversation
-- would ask again.
create function private.tg_conversations__title()
returns trigger
language plpgsql
security invoker
set search_path = ''
as $$
begin
  raise check_violation using
    message    = 'new row for relation "conversations" violates check constraint "conversations_title_is_line"',
    schema     = 'public',
    table      = 'conversations',
    column     = 'title',
    constraint = 'conversations_title_is_line';
end;
$$;

revoke all on function private.tg_conversations__title() from public, anon, authenticated, service_role;

create trigger _100_title after insert or update of title on public.conversations
  for each row when (not private.is_line(new.title, 200))
  execute function private.tg_conversations__title();

-- Keeps the states of a participant on their edges, whoever writes.
create function private.tg_conversation_participants__edges()
returns trigger
language plpgsql
security invoker
set search_path = ''
as $$
begin
  if (old.state, new.state) not in (
    ('invited', 'joined'), ('invited', 'left'), ('invited', 'removed'),
    ('joined', 'left'), ('joined', 'removed'), ('left', 'invited'), ('removed', 'invited')
  ) then
    raise sqlstate 'PT409' using
      message = 'status_edge_forbidden',
      detail  = 'A participant cannot go from ' || old.state || ' to ' || new.state || '.';
  end if;
  return new;
end;
$$;

create trigger _200_edges before update of state on public.conversation_participants
  for each row when (old.state is distinct from new.state)
  execute function private.tg_conversation_participants__edges();

revoke all on function private.tg_conversation_participants__edges() from public, anon, authenticated, service_role;

-- The caller's conversations as one array, so that a policy computes it once per statement and an
-- index can serve it. Runs as its owner: participants have row level security of their own.
create function private.my_conversation_ids(include_invitations boolean default false)
returns uuid[]
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  return (
    select coalesce(array_agg(p.conversation_id), '{}')
    from public.conversation_participants as p
    where p.user_id = (select auth.uid())
      and (
        p.state = 'joined'
        or (p.state = 'invited' and my_conversation_ids.include_invitations and p.expires_at > now())
      )
  );
end;
$$;

-- Whether somebody has joined a conversation; for single rows.
create function private.is_participant(conversation_id uuid, user_id uuid)
returns boolean
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  return (
    select exists (
      select from public.conversation_participants as p
      where p.conversation_id = is_participant.conversation_id
        and p.user_id = is_participant.user_id
        and p.state = 'joined'
    )
  );
end;
$$;

revoke all on function private.my_conversation_ids(boolean), private.is_participant(uuid, uuid)
  from public, anon, authenticated, service_role;
grant execute on function private.my_conversation_ids(boolean) to authenticated;
comment on function private.my_conversation_ids(boolean) is
'Ids of the conversations that the caller has joined, and those of open invitations when asked.';

create policy "participants and invited people can read conversations" on public.conversations
  for select to authenticated
  using (id = any ((select private.my_conversation_ids(true))::uuid[]));

create policy "owners can change their conversations" on public.conversations
  for update to authenticated
  using (owner_id = (select auth.uid()) and deleted_at is null and (select private.is_active_user()))
  with check (owner_id = (select auth.uid()));

create policy "participants can read who takes part" on public.conversation_participants
  for select to authenticated
  using (
    user_id = (select auth.uid())
    or conversation_id = any ((select private.my_conversation_ids())::uuid[])
  );

-- Topic of a conversation, held until the transaction ends: whoever wants to change it, because
-- somebody was removed, waits until this transaction's events are out. Everything that sends events
-- takes this lock before any other.
create function private.hold_topic(conversation_id uuid)
returns text
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  return (
    select c.topic from public.conversations as c where c.id = hold_topic.conversation_id for key share
  );
end;
$$;

revoke all on function private.hold_topic(uuid) from public, anon, authenticated, service_role;
