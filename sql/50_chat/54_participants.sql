-- Inviting, joining, leaving, removing. Each locks the conversation first. Two people between whom
-- there is a block never share a conversation: these functions and the trigger on blocks take the
-- same lock per pair, so that neither can slip past the other.
create function private.lock_pair(a uuid, b uuid)
returns void
language sql
volatile
security invoker
set search_path = ''
as $$
  select pg_advisory_xact_lock(
    hashtextextended('pair:' || least(lock_pair.a, lock_pair.b) || ':' || greatest(lock_pair.a, lock_pair.b), 0)
  );
$$;

-- The conversation, locked against everything that sends to its topic, if the caller has joined it.
create function private.lock_conversation(conversation_id uuid, caller uuid)
returns public.conversations
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  talk public.conversations;
begin
  if private.is_participant(lock_conversation.conversation_id, caller) then
    select c.* into talk from public.conversations as c where c.id = lock_conversation.conversation_id for update;
  end if;
  if talk.id is null or not private.is_participant(talk.id, caller) then
    raise sqlstate 'PT404' using
      message = 'conversation_not_found',
      detail  = 'There is no conversation with this id that you take part in.';
  end if;
  return talk;
end;
$$;

-- Gives a conversation new topics and tells those who stay, each on their own topic: whoever still
-- listens on the old ones hears nothing more. The caller has locked the conversation.
create function private.change_topic(conversation_id uuid)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  talk public.conversations;
begin
  update public.conversations as c
  set topic = private.new_conversation_topic(c.id)
  where c.id = change_topic.conversation_id
  returning c.* into talk;
  delete from private.watch_leases as w
  where w.conversation_id = talk.id and not private.is_participant(talk.id, w.user_id);
  perform private.send_user_event(
    p.user_id, 'conversation.topic_changed',
    jsonb_build_object('conversation_id', talk.id, 'topic', talk.topic, 'peers_topic', talk.peers_topic)
  )
  from public.conversation_participants as p
  where p.conversation_id = talk.id and p.state = 'joined';
end;
$$;

-- Tells the participants on the conversation's topic and the person on their own.
create function private.announce_participant(conversation_id uuid, user_id uuid, event text)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  payload jsonb;
begin
  payload := jsonb_build_object(
    'conversation_id', announce_participant.conversation_id, 'user_id', announce_participant.user_id
  );
  perform private.send_event(c.topic, announce_participant.event, payload)
  from public.conversations as c
  where c.id = announce_participant.conversation_id;
  perform private.send_user_event(announce_participant.user_id, announce_participant.event, payload);
end;
$$;

-- Ends somebody's part in a conversation that is locked: ownership passes to whoever joined first,
-- the topics change. False: nobody is left who could own it; nothing was changed.
create function private.end_participation(conversation_id uuid, user_id uuid, state text)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  part public.conversation_participants;
  heir uuid;
begin
  select p.* into part
  from public.conversation_participants as p
  where p.conversation_id = end_participation.conversation_id and p.user_id = end_participation.user_id
  for update;

  if part.role = 'owner' then
    select p.user_id into heir
    from public.conversation_participants as p
    where p.conversation_id = part.conversation_id and p.state = 'joined' and p.user_id <> part.user_id
    order by (p.role = 'viewer'), p.joined_at, p.user_id
    limit 1;
    if heir is null then
      return false;
    end if;
  end if;

  update public.conversation_participants as p
  set state = end_participation.state, role = 'member', ended_at = clock_timestamp()
  where p.conversation_id = part.conversation_id and p.user_id = part.user_id;
  if heir is not null then
    update public.conversation_participants as p
    set role = 'owner'
    where p.conversation_id = part.conversation_id and p.user_id = heir;
    update public.conversations as c set owner_id = heir where c.id = part.conversation_id;
  end if;
  if part.state = 'joined' then
    perform private.change_topic(part.conversation_id);
  end if;
  perform private.announce_participant(part.conversation_id, part.user_id, 'participant.' || end_participation.state);
  return true;
end;
$$;

-- Refuses a role that nobody can be given: ownership passes on only when the owner leaves.
create function private.require_participant_role(role text)
returns void
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  if role is null or role not in ('member', 'viewer') then
    raise sqlstate 'PT422' using
      message = 'participant_role_unknown',
      detail  = 'A participant is made a member or a viewer.';
  end if;
end;
$$;

-- Invites somebody, for a week; an open invitation to another role is replaced. Runs as its owner:
-- participants are written by functions only.
create function private.invite_participant(conversation_id uuid, user_id uuid, role text)
returns public.conversation_participants
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  caller  uuid := private.hold_active_user();
  talk    public.conversations;
  invited public.conversation_participants;
begin
  perform private.require_participant_role(invite_participant.role);
  perform private.lock_pair(caller, invite_participant.user_id);
  talk := private.lock_conversation(invite_participant.conversation_id, caller);
  if talk.owner_id <> caller then
    raise sqlstate 'PT403' using
      message = 'conversation_owner_required',
      detail  = 'Only the owner of the conversation can invite.';
  end if;
  -- Somebody who blocked the caller looks like somebody who does not exist.
  if not exists (select from public.profiles as p where p.id = invite_participant.user_id and p.status = 'active')
    or private.is_blocked_between(caller, invite_participant.user_id)
  then
    raise sqlstate 'PT404' using message = 'user_not_found', detail = 'There is no such user.';
  end if;
  if (
    select count(*) from public.conversation_participants as p
    where p.conversation_id = talk.id
      and (p.state = 'joined' or (p.state = 'invited' and p.expires_at > clock_timestamp()))
      and p.user_id <> invite_participant.user_id
  ) >= 20 then
    raise sqlstate 'PT409' using
      message = 'conversation_full',
      detail  = 'A conversation has at most 20 participants, open invitations included.';
  end if;

  insert into public.conversation_participants as p (conversation_id, user_id, role, invited_by, expires_at)
  values (
    talk.id, invite_participant.user_id, invite_participant.role, caller, clock_timestamp() + interval '7 days'
  )
  on conflict on constraint conversation_participants_pkey do update
    set state = 'invited', role = excluded.role, invited_by = caller, expires_at = excluded.expires_at,
      joined_at = null, ended_at = null
    where p.state in ('left', 'removed')
      or (p.state = 'invited' and (p.expires_at <= clock_timestamp() or p.role <> excluded.role))
  returning p.* into invited;
  if invited.user_id is null then
    -- Invited like this or joined already: the same call again changes nothing.
    select p.* into strict invited
    from public.conversation_participants as p
    where p.conversation_id = talk.id and p.user_id = invite_participant.user_id;
    return invited;
  end if;
  perform private.announce_participant(talk.id, invited.user_id, 'participant.invited');
  return invited;
end;
$$;

-- Joins a conversation that the caller was invited to.
create function private.accept_invitation(conversation_id uuid)
returns public.conversation_participants
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  caller uuid := private.hold_active_user();
  part   public.conversation_participants;
begin
  if exists (
    select from public.conversation_participants as p
    where p.conversation_id = accept_invitation.conversation_id and p.user_id = caller and p.state in ('invited', 'joined')
  ) then
    perform from public.conversations as c where c.id = accept_invitation.conversation_id for update;
    select p.* into part
    from public.conversation_participants as p
    where p.conversation_id = accept_invitation.conversation_id and p.user_id = caller and p.state in ('invited', 'joined')
    for update;
  end if;
  if part.user_id is null then
    raise sqlstate 'PT404' using
      message = 'invitation_not_found',
      detail  = 'You have no open invitation to this conversation.';
  end if;
  if part.state = 'joined' then
    return part;
  end if;
  if part.expires_at <= clock_timestamp() then
    raise sqlstate 'PT410' using
      message = 'invitation_expired',
      detail  = 'This invitation was not accepted in time.',
      hint    = 'Ask the owner of the conversation to invite you again.';
  end if;
  if exists (
    select from public.conversation_participants as p
    where p.conversation_id = part.conversation_id
      and p.state = 'joined'
      and private.is_blocked_between(p.user_id, caller)
  ) then
    raise sqlstate 'PT409' using
      message = 'invitation_not_possible',
      detail  = 'You cannot join this conversation.';
  end if;

  perform private.require_mature_confirmation(c, caller)
  from public.conversations as v
  join public.characters as c on c.id = v.character_id
  where v.id = part.conversation_id;

  update public.conversation_participants as p
  set state = 'joined', joined_at = clock_timestamp(), expires_at = null
  where p.conversation_id = part.conversation_id and p.user_id = caller
  returning p.* into part;
  perform private.announce_participant(part.conversation_id, caller, 'participant.joined');
  return part;
end;
$$;

-- Leaves a conversation, or declines an invitation.
create function private.leave_conversation(conversation_id uuid)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  caller uuid := private.hold_active_user();
begin
  if exists (
    select from public.conversation_participants as p
    where p.conversation_id = leave_conversation.conversation_id and p.user_id = caller and p.state in ('invited', 'joined')
  ) then
    perform from public.conversations as c where c.id = leave_conversation.conversation_id for update;
  end if;
  if not exists (
    select from public.conversation_participants as p
    where p.conversation_id = leave_conversation.conversation_id and p.user_id = caller and p.state in ('invited', 'joined')
  ) then
    raise sqlstate 'PT404' using
      message = 'conversation_not_found',
      detail  = 'There is no conversation with this id that you take part in.';
  end if;
  if not private.end_participation(leave_conversation.conversation_id, caller, 'left') then
    raise sqlstate 'PT409' using
      message = 'owner_cannot_leave_alone',
      detail  = 'You are the last person of this conversation.';
  end if;
end;
$$;

-- Removes somebody, or withdraws their invitation.
create function private.remove_participant(conversation_id uuid, user_id uuid)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  caller uuid := private.hold_active_user();
  talk   public.conversations := private.lock_conversation(remove_participant.conversation_id, caller);
begin
  if talk.owner_id <> caller then
    raise sqlstate 'PT403' using
      message = 'conversation_owner_required',
      detail  = 'Only the owner of the conversation can remove somebody.';
  end if;
  if remove_participant.user_id = caller or not exists (
    select from public.conversation_participants as p
    where p.conversation_id = talk.id
      and p.user_id = remove_participant.user_id
      and p.state in ('invited', 'joined')
  ) then
    raise sqlstate 'PT404' using
      message = 'participant_not_found',
      detail  = 'That person does not take part in the conversation.',
      hint    = 'To go yourself, call leave_conversation.';
  end if;
  perform private.end_participation(talk.id, remove_participant.user_id, 'removed');
end;
$$;

-- Makes a participant, or somebody who is invited, a member or a viewer.
create function private.set_participant_role(conversation_id uuid, user_id uuid, role text)
returns public.conversation_participants
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  caller uuid := private.hold_active_user();
  talk   public.conversations;
  part   public.conversation_participants;
begin
  perform private.require_participant_role(set_participant_role.role);
  talk := private.lock_conversation(set_participant_role.conversation_id, caller);
  if talk.owner_id <> caller then
    raise sqlstate 'PT403' using
      message = 'conversation_owner_required',
      detail  = 'Only the owner of the conversation can say who writes in it.';
  end if;
  select p.* into part
  from public.conversation_participants as p
  where p.conversation_id = talk.id
    and p.user_id = set_participant_role.user_id
    and p.state in ('invited', 'joined')
    and p.role <> 'owner';
  if part.user_id is null then
    raise sqlstate 'PT404' using
      message = 'participant_not_found',
      detail  = 'That person does not take part in the conversation, or owns it.';
  end if;
  if part.role <> set_participant_role.role then
    update public.conversation_participants as p
    set role = set_participant_role.role
    where p.conversation_id = part.conversation_id and p.user_id = part.user_id
    returning p.* into part;
    perform private.announce_participant(talk.id, part.user_id, 'participant.changed');
  end if;
  return part;
end;
$$;

-- A block parts the two in every conversation that they share: from the blocker's own the other is
-- removed, from all others the blocker leaves. Runs as its owner, on behalf of the blocker.
create function private.tg_blocks__part()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
declare
  shared uuid;
  part   record;
begin
  perform private.lock_pair(new.blocker_id, new.blocked_id);
  for shared in
    select p.conversation_id
    from public.conversation_participants as p
    join public.conversation_participants as q on q.conversation_id = p.conversation_id
    where p.user_id = new.blocker_id and p.state in ('invited', 'joined')
      and q.user_id = new.blocked_id and q.state in ('invited', 'joined')
    order by p.conversation_id
  loop
    perform from public.conversations as c where c.id = shared for update;
    -- Read again: who accepted or left meanwhile did so before the lock was had.
    select case when p.role = 'owner' or q.state = 'invited' then q.user_id else p.user_id end as user_id,
      case when p.role = 'owner' or q.state = 'invited' then 'removed' else 'left' end as state
    into part
    from public.conversation_participants as p
    join public.conversation_participants as q on q.conversation_id = p.conversation_id
    where p.conversation_id = shared
      and p.user_id = new.blocker_id and p.state in ('invited', 'joined')
      and q.user_id = new.blocked_id and q.state in ('invited', 'joined');
    if found then
      perform private.end_participation(shared, part.user_id, part.state);
    end if;
  end loop;
  return null;
end;
$$;

create trigger _500_part after insert on public.blocks
  for each row execute function private.tg_blocks__part();

create function public.invite_participant(conversation_id uuid, user_id uuid, role text default 'member')
returns public.conversation_participants
language sql
volatile
security invoker
set search_path = ''
as $$
  select p.*
  from private.invite_participant(
    invite_participant.conversation_id, invite_participant.user_id, invite_participant.role
  ) as p;
$$;

create function public.set_participant_role(conversation_id uuid, user_id uuid, role text)
returns public.conversation_participants
language sql
volatile
security invoker
set search_path = ''
as $$
  select p.*
  from private.set_participant_role(
    set_participant_role.conversation_id, set_participant_role.user_id, set_participant_role.role
  ) as p;
$$;

create function public.accept_invitation(conversation_id uuid)
returns public.conversation_participants
language sql
volatile
security invoker
set search_path = ''
as $$
  select p.* from private.accept_invitation(accept_invitation.conversation_id) as p;
$$;

create function public.leave_conversation(conversation_id uuid)
returns void
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.leave_conversation(leave_conversation.conversation_id);
$$;

create function public.remove_participant(conversation_id uuid, user_id uuid)
returns void
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.remove_participant(remove_participant.conversation_id, remove_participant.user_id);
$$;

revoke all on function
  private.lock_pair(uuid, uuid), private.lock_conversation(uuid, uuid), private.change_topic(uuid),
  private.announce_participant(uuid, uuid, text), private.end_participation(uuid, uuid, text), private.tg_blocks__part(),
  private.require_participant_role(text)
  from public, anon, authenticated, service_role;
revoke all on function
  private.invite_participant(uuid, uuid, text), public.invite_participant(uuid, uuid, text),
  private.set_participant_role(uuid, uuid, text), public.set_participant_role(uuid, uuid, text),
  private.accept_invitation(uuid), public.accept_invitation(uuid),
  private.leave_conversation(uuid), public.leave_conversation(uuid),
  private.remove_participant(uuid, uuid), public.remove_participant(uuid, uuid)
  from public, anon, authenticated, service_role;
grant execute on function
  private.invite_participant(uuid, uuid, text), public.invite_participant(uuid, uuid, text),
  private.set_participant_role(uuid, uuid, text), public.set_participant_role(uuid, uuid, text),
  private.accept_invitation(uuid), public.accept_invitation(uuid),
  private.leave_conversation(uuid), public.leave_conversation(uuid),
  private.remove_participant(uuid, uuid), public.remove_participant(uuid, uuid)
  to authenticated;

comment on function public.invite_participant(uuid, uuid, text) is
'Invites a person as member or viewer (owner only), for seven days; another role replaces an open invitation, the same again '
'changes nothing, and who has joined keeps their role. '
'Raises PT404 conversation_not_found, PT404 user_not_found, PT403 conversation_owner_required, PT409 conversation_full, '
'PT422 participant_role_unknown.';
comment on function public.set_participant_role(uuid, uuid, text) is
'Makes a participant a member, who writes, or a viewer, who reads (owner only). Raises PT404 conversation_not_found, '
'PT403 conversation_owner_required, PT404 participant_not_found, PT422 participant_role_unknown.';
comment on function public.accept_invitation(uuid) is
'Joins a conversation by an open invitation; joining twice changes nothing. '
'Raises PT404 invitation_not_found, PT410 invitation_expired, PT409 invitation_not_possible, PT403 mature_confirmation_required.';
comment on function public.leave_conversation(uuid) is
'Leaves a conversation or declines an invitation; ownership passes to whoever joined first. '
'Raises PT404 conversation_not_found, PT409 owner_cannot_leave_alone.';
comment on function public.remove_participant(uuid, uuid) is
'Removes a person or withdraws an invitation (owner only); the conversation''s topics change at once. '
'Raises PT404 conversation_not_found, PT403 conversation_owner_required, PT404 participant_not_found.';
