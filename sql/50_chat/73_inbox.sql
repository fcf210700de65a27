-- What somebody notes about a conversation, for themselves alone. Run as their owner: the inbox is written by
-- functions only, one entry at a time.

-- Tells the person's other screens, on their own topic.
create function private.announce_entry(entry public.inbox_entries)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  perform private.send_user_event(
    entry.user_id, 'inbox.changed', to_jsonb(entry) - 'user_id' - 'last_message_at'
  );
end;
$$;

-- Refuses a conversation that is not in the caller's inbox.
create function private.require_entry(entry public.inbox_entries)
returns void
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  if entry.user_id is null then
    raise sqlstate 'PT404' using
      message = 'conversation_not_found',
      detail  = 'There is no conversation with this id that you take part in.';
  end if;
end;
$$;

-- Notes up to where a conversation was read; never back.
create function private.mark_read(conversation_id uuid, message_id uuid)
returns public.inbox_entries
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  caller uuid := private.hold_active_user();
  entry  public.inbox_entries;
  newest uuid;
begin
  select e.* into entry
  from public.inbox_entries as e
  where e.conversation_id = mark_read.conversation_id and e.user_id = caller
  for no key update;
  perform private.require_entry(entry);

  if mark_read.message_id is null then
    select c.active_leaf_id into newest from public.conversations as c where c.id = mark_read.conversation_id;
  else
    select m.id into newest
    from public.messages as m
    where m.conversation_id = mark_read.conversation_id and m.id = mark_read.message_id;
    if newest is null then
      raise sqlstate 'PT404' using
        message = 'message_not_found',
        detail  = 'There is no message with this id in the conversation.';
    end if;
  end if;
  if newest > entry.last_read_message_id or entry.last_read_message_id is null then
    update public.inbox_entries as e
    set last_read_message_id = newest, last_read_at = clock_timestamp()
    where e.conversation_id = entry.conversation_id and e.user_id = caller
    returning e.* into entry;
    perform private.announce_entry(entry);
  end if;
  return entry;
end;
$$;

-- Pins or archives a conversation for the caller; null leaves it as it is.
create function private.update_inbox_entry(conversation_id uuid, is_pinned boolean, is_archived boolean)
returns public.inbox_entries
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  caller uuid := private.hold_active_user();
  before public.inbox_entries;
  entry  public.inbox_entries;
begin
  select e.* into before
  from public.inbox_entries as e
  where e.conversation_id = update_inbox_entry.conversation_id and e.user_id = caller
  for no key update;
  perform private.require_entry(before);

  update public.inbox_entries as e
  set is_pinned = coalesce(update_inbox_entry.is_pinned, e.is_pinned),
    is_archived = coalesce(update_inbox_entry.is_archived, e.is_archived)
  where e.conversation_id = before.conversation_id and e.user_id = caller
  returning e.* into entry;
  if entry is distinct from before then
    perform private.announce_entry(entry);
  end if;
  return entry;
end;
$$;

create function public.mark_read(conversation_id uuid, message_id uuid default null)
returns public.inbox_entries
language sql
volatile
security invoker
set search_path = ''
as $$
  select e.* from private.mark_read(mark_read.conversation_id, mark_read.message_id) as e;
$$;

create function public.update_inbox_entry(
  conversation_id uuid,
  is_pinned boolean default null,
  is_archived boolean default null
)
returns public.inbox_entries
language sql
volatile
security invoker
set search_path = ''
as $$
  select e.*
  from private.update_inbox_entry(
    update_inbox_entry.conversation_id, update_inbox_entry.is_pinned, update_inbox_entry.is_archived
  ) as e;
$$;

revoke all on function
  private.announce_entry(public.inbox_entries), private.require_entry(public.inbox_entries),
  private.mark_read(uuid, uuid), public.mark_read(uuid, uuid),
  private.update_inbox_entry(uuid, boolean, boolean), public.update_inbox_entry(uuid, boolean, boolean)
  from public, anon, authenticated, service_role;
grant execute on function
  private.mark_read(uuid, uuid), public.mark_read(uuid, uuid),
  private.update_inbox_entry(uuid, boolean, boolean), public.update_inbox_entry(uuid, boolean, boolean)
  to authenticated;
comment on function public.mark_read(uuid, uuid) is
'Notes that the caller has read a conversation up to a message, without one up to the end; an older message changes nothing. '
'Raises PT404 conversation_not_found, PT404 message_not_found.';
comment on function public.update_inbox_entry(uuid, boolean, boolean) is
'Pins or archives a conversation for the caller alone; what is left out stays as it is. Raises PT404 conversation_not_found.';
