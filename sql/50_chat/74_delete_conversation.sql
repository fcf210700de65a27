-- Takes a conversation that the caller has locked away from everybody, at once; its rows go soon after, in
-- the background, since a long one takes longer than a request may. An answer on its way ends as cancelled
-- first, so that what it cost is settled.
create function private.discard_conversation(talk public.conversations)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  lease private.generation_leases;
begin
  select l.* into lease
  from public.generations as g
  join private.generation_leases as l on l.generation_id = g.id
  where g.conversation_id = talk.id and g.status in ('queued', 'running')
  for update of l;
  if lease.generation_id is not null then
    perform private.end_generation(lease.generation_id, talk.topic, 'cancelled', 'cancelled');
  end if;

  perform private.send_user_event(
    p.user_id, 'conversation.deleted', jsonb_build_object('conversation_id', talk.id)
  )
  from public.conversation_participants as p
  where p.conversation_id = talk.id and p.state in ('invited', 'joined');
  delete from public.lorebooks as b where b.conversation_id = talk.id;
  delete from private.watch_leases as w where w.conversation_id = talk.id;
  delete from public.conversation_participants as p where p.conversation_id = talk.id;
  update public.conversations as c
  set deleted_at = clock_timestamp(), topic = private.new_conversation_topic(c.id)
  where c.id = talk.id;
end;
$$;

-- Removes the deepest messages of a discarded conversation, as many levels as make about `wanted` messages: nothing
-- that stays hangs below them. Returns how many.
create function private.purge_messages(conversation_id uuid, wanted integer)
returns integer
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  floor   integer;
  removed integer;
begin
  select min(d.depth) into floor
  from (
    select m.depth from public.messages as m
    where m.conversation_id = purge_messages.conversation_id
    order by m.depth desc
    limit purge_messages.wanted
  ) as d;
  update public.messages as m set selected_child_id = null
  where m.conversation_id = purge_messages.conversation_id and m.depth = floor - 1 and m.selected_child_id is not null;
  delete from public.messages as m where m.conversation_id = purge_messages.conversation_id and m.depth >= floor;
  get diagnostics removed = row_count;
  return removed;
end;
$$;

-- Removes what was discarded, one conversation after the other and a long one in parts, for at most about so long: what
-- is left is left for the next time. Run by cron, and for one owner when their account is erased.
create function private.purge_conversations(budget interval default interval '20 seconds', owner_id uuid default null)
returns integer
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  ends   constant timestamptz := clock_timestamp() + purge_conversations.budget;
  due    uuid;
  purged integer := 0;
begin
  loop
    select c.id into due
    from public.conversations as c
    where c.deleted_at is not null
      and (purge_conversations.owner_id is null or c.owner_id = purge_conversations.owner_id)
    order by c.deleted_at
    limit 1
    for update skip locked;
    exit when due is null;
    while private.purge_messages(due, 5000) > 0 loop
      if clock_timestamp() > ends then
        return purged;
      end if;
    end loop;
    delete from public.conversations as c where c.id = due;
    purged := purged + 1;
    exit when clock_timestamp() > ends;
  end loop;
  return purged;
end;
$$;

-- Runs as its owner: conversations are written by functions only.
create function private.delete_conversation(conversation_id uuid)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  caller uuid := private.hold_active_user();
  talk   public.conversations := private.lock_conversation(delete_conversation.conversation_id, caller);
begin
  if talk.owner_id <> caller then
    raise sqlstate 'PT403' using
      message = 'conversation_owner_required',
      detail  = 'Only the owner can delete the conversation.',
      hint    = 'To go yourself, call leave_conversation.';
  end if;
  perform private.discard_conversation(talk);
end;
$$;

create function public.delete_conversation(conversation_id uuid)
returns void
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.delete_conversation(delete_conversation.conversation_id);
$$;

revoke all on function
  private.discard_conversation(public.conversations), private.purge_messages(uuid, integer), private.purge_conversations(interval, uuid),
  private.delete_conversation(uuid), public.delete_conversation(uuid)
  from public, anon, authenticated, service_role;
grant execute on function private.delete_conversation(uuid), public.delete_conversation(uuid) to authenticated;
comment on function private.purge_conversations(interval, uuid) is
'Removes the rows of deleted conversations for about the time given; returns how many conversations are gone.';
comment on function public.delete_conversation(uuid) is
'Deletes a conversation for everybody (owner only), with all that was said in it; an answer on its way ends. '
'Raises PT404 conversation_not_found, PT403 conversation_owner_required.';

select cron.schedule('purge-conversations', '* * * * *', 'select private.purge_conversations()');
