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

-- How many messages at the end of a branch somebody has not read: what others said since the message they
-- read last, or since they wrote themselves. Counts to a hundred, so a page of the list stays cheap.
create function private.count_unread(leaf_id uuid, reader uuid, last_read_id uuid)
returns integer
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return (
    with recursive unread as (
      select m.id, m.parent_id, m.deleted_at, m.status, 1 as number
      from public.messages as m
      where m.id = leaf_id and m.author_id is distinct from reader and (last_read_id is null or m.id > last_read_id)
      union all
      select above.id, above.parent_id, above.deleted_at, above.status, u.number + 1
      from unread as u
      -- A lateral join with a limit: one step by the primary key, whatever the planner believes.
      cross join lateral (select m.* from public.messages as m where m.id = u.parent_id limit 1) as above
      where u.number < 100
        and above.author_id is distinct from reader
        and (last_read_id is null or above.id > last_read_id)
    )
    select count(*) from unread as u where u.deleted_at is null and u.status <> 'pending'
  );
end;
$$;

-- One page of the caller's list: pinned ones first, then whatever was written in last. Runs as its owner, so that the right
-- to read is the entry itself and no policy is asked for each row.
create function private.list_conversations(cursor text, page_size integer, archived boolean)
returns setof public.listed_conversation
language plpgsql
stable
security definer
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
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
  with page as (
    select e.*
    from public.inbox_entries as e
    where e.user_id = caller
      and e.is_archived = coalesce(list_conversations.archived, false)
      and (e.is_pinned, e.last_message_at, e.conversation_id)
        < (left(past, 1) = '1', past_at, split_part(past, '.', 3)::uuid)
    order by e.is_pinned desc, e.last_message_at desc, e.conversation_id desc
    limit least(greatest(coalesce(list_conversations.page_size, 30), 1), 100)
  )
  select
    c.id, c.title, c.owner_id, p.role,
    (
      select count(*)::integer from public.conversation_participants as q
      where q.conversation_id = c.id and q.state = 'joined'
    ),
    partner.id, partner.name, partner.avatar_path,
    e.last_message_at,
    case when m.id is not null then
      jsonb_build_object(
        'id', m.id, 'role', m.role, 'author_id', m.author_id, 'status', m.status, 'preview', left(m.content, 200),
        'created_at', m.created_at
      )
    end,
    private.count_unread(c.active_leaf_id, caller, e.last_read_message_id),
    e.is_pinned, e.is_archived, c.created_at,
    format('%s.%s.%s', e.is_pinned::integer, (extract(epoch from e.last_message_at) * 1000000)::bigint, c.id)
  from page as e
  join public.conversations as c on c.id = e.conversation_id
  join public.conversation_participants as p on p.conversation_id = c.id and p.user_id = caller
  left join public.messages as m on m.id = c.active_leaf_id
  left join public.characters as partner
    on partner.id = c.character_id
    and partner.deleted_at is null
    and not private.is_blocked_between(partner.owner_id, caller)
  order by e.is_pinned desc, e.last_message_at desc, c.id desc;
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
  private.count_unread(uuid, uuid, uuid),
  private.list_conversations(text, integer, boolean), public.list_conversations(text, integer, boolean)
  from public, anon, authenticated, service_role;
grant execute on function
  private.list_conversations(text, integer, boolean), public.list_conversations(text, integer, boolean)
  to authenticated;
comment on function public.list_conversations(text, integer, boolean) is
'The conversations that the caller has joined: pinned ones first, then by the last message; archived ones apart. Each with '
'the end of the branch that is shown and how much of it is unread. At most 100 a page; the cursor of the last row gives the '
'next one. Raises PT422 cursor_invalid.';
