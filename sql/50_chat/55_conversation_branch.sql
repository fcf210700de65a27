-- One page of the branch that is shown, oldest first: the newest messages, or those before one that the
-- caller has. Walks up by primary key from where the page ends, so it reads as many messages as the page
-- has, however long the conversation is. Runs as its owner, so that the right to read is asked once and
-- not once per message.
create function private.conversation_branch(conversation_id uuid, before uuid, page_size integer)
returns table (
  id uuid, parent_id uuid, depth integer, role text, author_id uuid, content text, status text, finish_reason text,
  generation_id uuid, created_at timestamptz, deleted_at timestamptz,
  variant_index integer, variant_count integer, previous_variant_id uuid, next_variant_id uuid, my_rating smallint
)
language plpgsql
stable
security definer
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  caller uuid := (select auth.uid());
  wanted integer := least(greatest(coalesce(conversation_branch.page_size, 50), 1), 200);
  last   uuid;
begin
  if not private.is_participant(conversation_branch.conversation_id, caller) then
    raise sqlstate 'PT404' using
      message = 'conversation_not_found',
      detail  = 'There is no conversation with this id that you take part in.';
  end if;
  if conversation_branch.before is null then
    select c.active_leaf_id into last from public.conversations as c where c.id = conversation_branch.conversation_id;
  else
    select m.parent_id into last
    from public.messages as m
    where m.conversation_id = conversation_branch.conversation_id and m.id = conversation_branch.before;
    if not found then
      raise sqlstate 'PT404' using
        message = 'message_not_found',
        detail  = 'There is no message with this id in the conversation.';
    end if;
  end if;

  return query
  with recursive page as (
    select last as id, 1 as number
    union all
    -- A lateral join with a limit: one step by the primary key, whatever the planner believes.
    select above.parent_id, p.number + 1
    from page as p
    cross join lateral (select m.parent_id from public.messages as m where m.id = p.id limit 1) as above
    where p.number < wanted and above.parent_id is not null
  )
  select
    m.id, m.parent_id, m.depth, m.role, m.author_id, m.content, m.status, m.finish_reason,
    m.generation_id, m.created_at, m.deleted_at,
    v.variant_index, v.variant_count, v.previous_variant_id, v.next_variant_id, f.rating
  from page as p
  cross join lateral (select m.* from public.messages as m where m.id = p.id limit 1) as m
  cross join lateral (
    select
      (count(*) filter (where s.id <= m.id))::integer as variant_index,
      count(*)::integer as variant_count,
      (array_agg(s.id order by s.id desc) filter (where s.id < m.id))[1] as previous_variant_id,
      (array_agg(s.id order by s.id) filter (where s.id > m.id))[1] as next_variant_id
    from (
      select b.id from public.messages as b
      where b.conversation_id = m.conversation_id and b.parent_id = m.parent_id and not b.is_gone
      union all
      select b.id from public.messages as b
      where m.parent_id is null and b.conversation_id = m.conversation_id and b.parent_id is null and not b.is_gone
    ) as s
  ) as v
  left join public.message_feedback as f on f.message_id = m.id and f.user_id = caller
  order by m.depth;
end;
$$;

create function public.conversation_branch(conversation_id uuid, before uuid default null, page_size integer default 50)
returns table (
  id uuid, parent_id uuid, depth integer, role text, author_id uuid, content text, status text, finish_reason text,
  generation_id uuid, created_at timestamptz, deleted_at timestamptz,
  variant_index integer, variant_count integer, previous_variant_id uuid, next_variant_id uuid, my_rating smallint
)
language sql
stable
security invoker
set search_path = ''
as $$
  select b.*
  from private.conversation_branch(
    conversation_branch.conversation_id, conversation_branch.before, conversation_branch.page_size
  ) as b;
$$;

revoke all on function
  private.conversation_branch(uuid, uuid, integer), public.conversation_branch(uuid, uuid, integer)
  from public, anon, authenticated, service_role;
grant execute on function
  private.conversation_branch(uuid, uuid, integer), public.conversation_branch(uuid, uuid, integer)
  to authenticated;
comment on function public.conversation_branch(uuid, uuid, integer) is
'A page of the branch that is shown, oldest first: its newest messages, or those above `before`. page_size is 1 to 200. '
'Each with its place among its variants, the messages beside it (select_variant shows another one), and the caller''s rating. '
'A deleted message has deleted_at and no text. The page that begins with depth 0 is the last. '
'Raises PT404 conversation_not_found, PT404 message_not_found.';
