-- The child of a message that its branch goes on with: the one chosen last, else the newest that is
-- not gone. What is gone was unchosen.
create function private.shown_child(parent public.messages)
returns uuid
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return coalesce(
    parent.selected_child_id,
    (
      select m.id from public.messages as m
      where m.conversation_id = parent.conversation_id and m.parent_id = parent.id and not m.is_gone
      order by m.id desc
      limit 1
    )
  );
end;
$$;

-- Chooses the branch that goes through a message and, below it, through the children that were chosen
-- last: shared_id is the last message that it has in common with the branch shown, null for none, and
-- leaf_id its own last one, which the caller, who holds the conversation, makes the active leaf. Every
-- message between the two remembers the way, so that coming back later leads here.
-- Costs as much as the fork is far away, not as the conversation is long.
create function private.choose_message(
  talk public.conversations,
  message_id uuid,
  out shared_id uuid,
  out leaf_id uuid
)
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  chosen public.messages;
  shown  public.messages;
  way    uuid[] := '{}'::uuid[];
begin
  select m.* into chosen from public.messages as m where m.conversation_id = talk.id and m.id = choose_message.message_id;
  select m.* into shown from public.messages as m where m.conversation_id = talk.id and m.id = talk.active_leaf_id;
  while chosen.id is distinct from shown.id loop
    if shown.id is null or chosen.depth >= shown.depth then
      way := way || chosen.id;
      select m.* into chosen from public.messages as m where m.conversation_id = talk.id and m.id = chosen.parent_id;
    else
      select m.* into shown from public.messages as m where m.conversation_id = talk.id and m.id = shown.parent_id;
    end if;
  end loop;
  shared_id := chosen.id;
  -- Nothing below the end of the shown branch was chosen before, so what follows there is shown as it is.
  if shared_id is not distinct from talk.active_leaf_id then
    leaf_id := choose_message.message_id;
    return;
  end if;

  update public.messages as p
  set selected_child_id = c.id
  from public.messages as c
  where c.conversation_id = talk.id
    and c.id = any (way)
    and p.conversation_id = talk.id
    and p.id = c.parent_id
    and c.id is distinct from private.shown_child(p);

  with recursive down as (
    select m.id, m.depth, m.selected_child_id
    from public.messages as m
    where m.conversation_id = talk.id and m.id = choose_message.message_id
    union all
    select child.id, child.depth, child.selected_child_id
    from down as d
    cross join lateral (
      select m.id, m.depth, m.selected_child_id
      from public.messages as m
      where m.conversation_id = talk.id
        and m.parent_id = d.id
        and (m.id = d.selected_child_id or (d.selected_child_id is null and not m.is_gone))
      order by m.id desc
      limit 1
    ) as child
  )
  select d.id into leaf_id from down as d order by d.depth desc limit 1;
end;
$$;

revoke all on function private.shown_child(public.messages), private.choose_message(public.conversations, uuid)
  from public, anon, authenticated, service_role;
comment on function private.choose_message(public.conversations, uuid) is
'Chooses the branch through a message, in a conversation that the caller holds; answers where it leaves the one that is '
'shown and where it ends.';
