create type public.listed_conversation as (
  id                    uuid,
  title                 text,
  owner_id              uuid,
  my_role               text,
  participant_count     integer,
  character_id          uuid,
  character_name        text,
  character_avatar_path text,
  last_message_at       timestamptz,
  last_message          jsonb,
  unread_count          integer,
  is_pinned             boolean,
  is_archived           boolean,
  created_at            timestamptz,
  cursor                text
);
comment on type public.listed_conversation is
'A conversation as its list shows it; cursor gives the page after this row. unread_count 100 means 100 or more.';

-- One page of the caller's list: pinned ones first, then whatever was written in last. Unread is what others said at the end
-- of a branch since the message read last, or since the caller wrote: counted for the page as a whole, up the branches step
-- by step, to a hundred each. Runs as its owner, so that the right to read is the entry itself and no policy is asked for
-- each row. Plans expect far more rows than a page has, and would have themselves compiled for it.
create function private.list_conversations(cursor text, page_size integer, archived boolean)
returns setof public.listed_conversation
language plpgsql
stable
security definer
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
set jit = off
as $$
declare
  caller constant uuid := (select auth.uid());
  -- Where the page before ended: pinned, time of the last message in microseconds, id.
  past    constant text := coalesce(list_conversations.cursor, '1.0.ffffffff-ffff-ffff-ffff-ffffffffffff');
  past_at timestamptz;
begin
  if past !~ '^[01]\.[0-9]{1,16}\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
    raise sqlstate 'PT422' using
      message = 'cursor_invalid',
      detail  = 'The cursor is none that a page of this list gave.';
  end if;
  past_at := case
    when list_conversations.cursor is null then 'infinity'
    else 'epoch'::timestamptz + split_part(past, '.', 2)::bigint * interval '1 microsecond'
  end;

  return query
  -- Lateral joins with a limit: each a step by the primary key, however many rows the planner expects of a page.
  with recursive page as materialized (
    select e.*, c.title, c.owner_id, c.character_id, c.active_leaf_id, c.created_at
    from (
      select i.*
      from public.inbox_entries as i
      where i.user_id = caller
        and i.is_archived = coalesce(list_conversations.archived, false)
        and (i.is_pinned, i.last_message_at, i.conversation_id)
          < (left(past, 1) = '1', past_at, split_part(past, '.', 3)::uuid)
      order by i.is_pinned desc, i.last_message_at desc, i.conversation_id desc
      limit least(greatest(coalesce(list_conversations.page_size, 30), 1), 100)
    ) as e
    cross join lateral (select c.* from public.conversations as c where c.id = e.conversation_id limit 1) as c
  ),
  unread as (
    select p.conversation_id, p.last_read_message_id, p.active_leaf_id as next_id, false as counts, 0 as seen from page as p
    union all
    select
      u.conversation_id, u.last_read_message_id, m.parent_id, m.deleted_at is null and m.status <> 'pending', u.seen + 1
    from unread as u
    cross join lateral (select m.* from public.messages as m where m.id = u.next_id limit 1) as m
    where u.seen < 100
      and m.author_id is distinct from caller
      and (u.last_read_message_id is null or m.id > u.last_read_message_id)
  )
  select
    p.conversation_id, p.title, p.owner_id, people.my_role, people.joined, partner.id, partner.name, partner.avatar_path,
    p.last_message_at,
    case when m.id is not null then
      jsonb_build_object(
        'id', m.id, 'role', m.role, 'author_id', m.author_id, 'status', m.status, 'preview', left(m.content, 200),
        'created_at', m.created_at
      )
    end,
    coalesce(n.unread_count, 0),
    p.is_pinned, p.is_archived, p.created_at,
    format(
      '%s.%s.%s', p.is_pinned::integer, (extract(epoch from p.last_message_at) * 1000000)::bigint, p.conversation_id
    )
  from page as p
  cross join lateral (
    select
      count(*) filter (where q.state = 'joined')::integer as joined,
      min(q.role) filter (where q.user_id = caller) as my_role
    from public.conversation_participants as q
    where q.conversation_id = p.conversation_id
  ) as people
  left join lateral (select m.* from public.messages as m where m.id = p.active_leaf_id limit 1) as m on true
  left join (
    select u.conversation_id, count(*)::integer as unread_count from unread as u where u.counts group by u.conversation_id
  ) as n on n.conversation_id = p.conversation_id
  left join lateral (
    select c.*
    from public.characters as c
    where c.id = p.character_id and c.deleted_at is null and not private.is_blocked_between(c.owner_id, caller)
    limit 1
  ) as partner on true
  order by p.is_pinned desc, p.last_message_at desc, p.conversation_id desc;
end;
$$;

create function public.list_conversations(
  cursor text default null,
  page_size integer default 30,
  archived boolean default false
)
returns setof public.listed_conversation
language sql
stable
security invoker
set search_path = ''
as $$
  select l.*
  from private.list_conversations(
    list_conversations.cursor, list_conversations.page_size, list_conversations.archived
  ) as l;
$$;

revoke all on function
  private.list_conversations(text, integer, boolean), public.list_conversations(text, integer, boolean)
  from public, anon, authenticated, service_role;
grant execute on function
  private.list_conversations(text, integer, boolean), public.list_conversations(text, integer, boolean)
  to authenticated;
comment on function public.list_conversations(text, integer, boolean) is
'The conversations that the caller has joined: pinned ones first, then by the last message; archived ones apart. Each with '
'the end of the branch that is shown and how much of it is unread. At most 100 a page; the cursor of the last row gives the '
'next one. Raises PT422 cursor_invalid.';
