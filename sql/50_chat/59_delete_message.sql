-- Deleting empties: the rows stay, so that whatever hangs below a deleted message stays where it is, and
-- what an answer cost stays counted. A deleted message is a tombstone while something living hangs below
-- it, and gone after that.

-- Whether somebody may delete a message: whoever wrote it or asked for it, and the conversation's owner.
create function private.may_delete(target public.messages, talk public.conversations, caller uuid)
returns boolean
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return talk.owner_id = caller
    or target.author_id is not distinct from caller
    or (target.role = 'assistant' and exists (
      select from public.generations as g where g.id = target.generation_id and g.requested_by = caller
    ));
end;
$$;

-- A message and what stands below it, without what is gone; or, unless the whole branch is meant, itself.
create function private.branch_below(top public.messages, whole_branch boolean)
returns uuid[]
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  if not whole_branch then
    return array[top.id];
  end if;
  return (
    with recursive below as (
      select top.id
      union all
      select m.id
      from below as b
      join public.messages as m on m.conversation_id = top.conversation_id and m.parent_id = b.id and not m.is_gone
    )
    select array_agg(b.id) from below as b
  );
end;
$$;

-- Takes the text away, also the pieces of answers that are still kept for readers. are_gone: nothing living will
-- hang below any of them, which is marked at once then, since a branch may be long.
create function private.empty_messages(talk public.conversations, message_ids uuid[], are_gone boolean)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  with emptied as (
    update public.messages as m
    set content = '', deleted_at = clock_timestamp(), is_gone = are_gone
    where m.conversation_id = talk.id and m.id = any (message_ids)
    returning m.generation_id
  ),
  dropped as (
    delete from public.generation_chunks as c using emptied as e where c.generation_id = e.generation_id
  )
  update public.generations as g set has_chunks = false from emptied as e where g.id = e.generation_id and g.has_chunks;
end;
$$;

-- Whether anything that is not gone stands below a message.
create function private.has_children(parent public.messages)
returns boolean
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return exists (
    select from public.messages as m
    where m.conversation_id = parent.conversation_id and m.parent_id = parent.id and not m.is_gone
  );
end;
$$;

-- Marks what is gone: those of a branch, which begins at top, that are deleted and have nothing living
-- below; then the tombstones above that lost their last living child with it. What is gone is no longer
-- the chosen child.
create function private.mark_gone(top public.messages, branch uuid[])
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  gone  uuid[];
  above public.messages;
begin
  with recursive living as (
    select m.id, m.parent_id
    from unnest(branch) as b (id)
    join public.messages as m on m.id = b.id
    where m.deleted_at is null
    union
    select p.id, p.parent_id
    from living as l
    join public.messages as p on p.id = l.parent_id
    where l.id <> top.id
  )
  select array_agg(b.id) into gone from unnest(branch) as b (id) where b.id not in (select l.id from living as l);
  update public.messages as m
  set is_gone = true
  where m.conversation_id = top.conversation_id and m.id = any (gone) and not m.is_gone;

  select m.* into above from public.messages as m where m.id = top.id;
  while above.is_gone and above.parent_id is not null loop
    select m.* into above from public.messages as m where m.id = above.parent_id;
    if above.deleted_at is not null and not private.has_children(above) then
      update public.messages as m set is_gone = true where m.id = above.id returning m.* into above;
      gone := gone || above.id;
    end if;
  end loop;

  update public.messages as p
  set selected_child_id = null
  from unnest(gone) as g (id)
  join public.messages as c on c.id = g.id
  where p.id = c.parent_id and p.selected_child_id = c.id;
end;
$$;

-- Shows what is left, where the branch that was shown ended in something that is gone: the variant beside
-- it, else the message above it.
create function private.leave_gone(talk public.conversations)
returns uuid
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  above  public.messages;
  choice record;
begin
  select m.* into above from public.messages as m where m.conversation_id = talk.id and m.id = talk.active_leaf_id;
  if above.is_gone is not true then
    return talk.active_leaf_id;
  end if;
  while above.is_gone loop
    select m.* into above from public.messages as m where m.conversation_id = talk.id and m.id = above.parent_id;
  end loop;
  choice := private.choose_message(
    talk,
    coalesce(
      above.id,
      (
        select m.id from public.messages as m
        where m.conversation_id = talk.id and m.parent_id is null and not m.is_gone
        order by m.id desc
        limit 1
      )
    )
  );
  update public.conversations as c set active_leaf_id = choice.leaf_id where c.id = talk.id returning c.* into talk;
  perform private.announce_branch(talk, choice.shared_id);
  return talk.active_leaf_id;
end;
$$;

-- Runs as its owner: conversations are written by functions only.
create function private.delete_message(message_id uuid, whole_branch boolean)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  caller  uuid := private.hold_active_user();
  talk    public.conversations;
  target  public.messages;
  branch  uuid[];
  doomed  uuid[];
begin
  talk := private.hold_to_write(private.conversation_of(delete_message.message_id, caller), caller);
  select m.* into strict target from public.messages as m where m.id = delete_message.message_id;
  if target.deleted_at is null and not private.may_delete(target, talk, caller) then
    raise sqlstate 'PT403' using
      message = 'message_not_yours',
      detail  = 'A message is deleted by whoever wrote it or asked for it, or by the owner of the conversation.';
  end if;

  branch := private.branch_below(target, coalesce(delete_message.whole_branch, false));
  doomed := array(
    select m.id from public.messages as m
    where m.conversation_id = talk.id
      and m.id = any (branch)
      and m.deleted_at is null
      and (talk.owner_id = caller or private.may_delete(m, talk, caller))
  );
  if exists (
    select
    from public.generations as g
    join public.messages as m on m.id = g.message_id
    where g.conversation_id = talk.id
      and g.status in ('queued', 'running')
      and (m.id = any (doomed) or m.parent_id = any (doomed))
  ) then
    raise sqlstate 'PT409' using
      message = 'generation_in_progress',
      detail  = 'The answer that is on its way, and the message that it answers, cannot be deleted.',
      hint    = 'Wait for its end or call cancel_generation.';
  end if;

  if doomed <> '{}' then
    -- Of an owner's branch nothing stays.
    perform private.empty_messages(talk, doomed, coalesce(delete_message.whole_branch, false) and talk.owner_id = caller);
    if delete_message.whole_branch or not private.has_children(target) then
      perform private.mark_gone(target, branch);
    end if;
    perform private.send_event(
      talk.topic, 'message.deleted',
      jsonb_build_object(
        'conversation_id', talk.id, 'message_id', target.id, 'whole_branch', coalesce(delete_message.whole_branch, false)
      )
    );
  end if;
  return jsonb_build_object(
    'conversation_id', talk.id,
    'deleted', cardinality(doomed),
    'active_leaf_id', private.leave_gone(talk)
  );
end;
$$;

create function public.delete_message(message_id uuid, whole_branch boolean default false)
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.delete_message(delete_message.message_id, delete_message.whole_branch);
$$;

revoke all on function
  private.may_delete(public.messages, public.conversations, uuid), private.branch_below(public.messages, boolean),
  private.empty_messages(public.conversations, uuid[], boolean), private.has_children(public.messages),
  private.mark_gone(public.messages, uuid[]), private.leave_gone(public.conversations),
  private.delete_message(uuid, boolean), public.delete_message(uuid, boolean)
  from public, anon, authenticated, service_role;
grant execute on function private.delete_message(uuid, boolean), public.delete_message(uuid, boolean) to authenticated;
comment on function public.delete_message(uuid, boolean) is
'Deletes the text of a message, or with whole_branch also of everything below it that the caller may delete: what they wrote '
'or asked for, and for the conversation''s owner everything. What others wrote stays, below a tombstone. Deleting twice '
'changes nothing. Answers {conversation_id, deleted: how many, active_leaf_id}. Raises PT404 message_not_found, '
'PT404 conversation_not_found, PT403 conversation_read_only, PT403 message_not_yours, PT409 generation_in_progress.';
