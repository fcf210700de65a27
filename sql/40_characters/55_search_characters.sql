-- Finding public characters. Runs as its owner with the rules of visibility written by hand: under a
-- policy, filters that are not leakproof read the whole table.

insert into private.error_codes (code, status, meaning) values
  ('search_invalid', 422, 'A search has at most 200 characters and 16 tags.'),
  ('cursor_invalid', 422, 'The cursor is none that a page of this list gave.');

-- Who looks: what the caller may find, asked once per search.
create type private.viewer as (
  id          uuid,
  sees_mature boolean,
  hidden      uuid[]
);

-- Characters of one rank, newest first: 4 the name is what was asked for, 3 it holds all the words, 2 it
-- is like it, 1 the words stand elsewhere, 0 nothing was asked for. What is common is among the newest
-- thousand, where reading in order finds a page of it; what is not is rare enough to be taken from
-- the index as a whole. Built from constants, so that a question without tags has no condition on tags:
-- the index would be read from end to end for an empty one.
create function private.characters_of_rank(
  rank integer,
  asked text,
  whole tsquery,
  begun tsquery,
  tags text[],
  past_id uuid,
  room integer,
  viewer private.viewer
)
returns uuid[]
language plpgsql
stable
security invoker
set search_path = ''
set enable_seqscan = off
set jit = off
as $$
declare
  -- Names are like what is long enough to be like anything.
  alike     constant text := case when char_length(asked) >= 3 then '$1 operator(extensions.<%) s.name' else 'false' end;
  condition constant text := case rank
    when 4 then 's.name = $1'
    when 3 then 's.words @@ $2 and s.name <> $1'
    when 2 then alike || ' and not s.words @@ $2 and s.name <> $1'
    when 1 then 's.document @@ $3 and not s.words @@ $2 and not ' || alike || ' and s.name <> $1'
    else 'true'
  end
    || case when tags <> '{}' then ' and s.tags @> $4' else '' end
    || ' and (not s.is_mature or $7.sees_mature or s.owner_id = $7.id) and s.owner_id <> all ($7.hidden)';
  found_ids uuid[] := '{}'::uuid[];
begin
  if rank in (0, 1, 3) then
    execute format(
      'select array(
        select s.character_id
        from (
          select r.* from private.character_search as r
          where r.character_id < $5 order by r.character_id desc %s
        ) as s
        where %s
        order by s.character_id desc
        limit $6
      )',
      case when rank > 0 or tags <> '{}' then 'limit 1000' end, condition
    )
    into found_ids
    using asked, whole, begun, tags, past_id, room, viewer;
    if cardinality(found_ids) = room or (rank = 0 and tags = '{}') then
      return found_ids;
    end if;
  end if;

  -- Materialized: asked for in order and to a limit, the planner would read in order again.
  execute format(
    'select array(
      with matches as materialized (select s.character_id from private.character_search as s where %s)
      select m.character_id from matches as m where m.character_id < $5 order by m.character_id desc limit $6
    )',
    condition
  )
  into found_ids
  using asked, whole, begun, tags, past_id, room, viewer;
  return found_ids;
end;
$$;

-- Matches in order, after (rank, id). A rank is looked for only while the page has room, so that a
-- common word costs no more than a rare one.
create function private.character_matches(
  query text,
  tags text[],
  past_rank integer,
  past_id uuid,
  page_size integer,
  viewer private.viewer
)
returns table (rank integer, character_id uuid)
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  newest constant uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid;
  asked  constant text := private.search_text(btrim(query));
  whole  constant tsquery := plainto_tsquery('simple', asked);
  -- The last word may be the beginning of one.
  begun  constant tsquery := case when numnode(whole) > 0 then (whole::text || ':*')::tsquery end;
  -- Signs without a letter or number are no words, and no name is found by them.
  ranks  constant integer[] := case
    when begun is not null then array[4, 3, 2, 1] when asked = '' then array[0] else array[]::integer[]
  end;
  room   integer := page_size;
  ids    uuid[];
begin
  foreach rank in array ranks loop
    continue when rank > past_rank or (rank = 2 and char_length(asked) < 3);
    ids := private.characters_of_rank(
      rank, asked, whole, begun, tags, case when rank = past_rank then past_id else newest end, room, viewer
    );
    return query select character_matches.rank, i.id from unnest(ids) as i (id);
    room := room - cardinality(ids);
    exit when room = 0;
  end loop;
end;
$$;

-- A character as lists show it.
create type public.found_character as (
  id             uuid,
  owner_id       uuid,
  owner_username text,
  name           text,
  tagline        text,
  tags           text[],
  age            smallint,
  is_mature      boolean,
  avatar_path    text,
  created_at     timestamptz,
  cursor         text
);
comment on type public.found_character is 'A character as search lists it; cursor gives the page after this row.';

-- One page of search for the caller.
create function private.search_characters(query text, tags text[], cursor text, page_size integer)
returns setof public.found_character
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  asked  constant text := coalesce(search_characters.query, '');
  wanted constant text[] := coalesce(search_characters.tags, '{}');
  past   constant text := coalesce(search_characters.cursor, '5.ffffffff-ffff-ffff-ffff-ffffffffffff');
  viewer private.viewer;
begin
  if char_length(asked) > 200 or cardinality(wanted) > 16 then
    raise sqlstate 'PT422' using
      message = 'search_invalid',
      detail  = 'A search has at most 200 characters and 16 tags.';
  end if;
  if past !~ '^[0-5]\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
    raise sqlstate 'PT422' using
      message = 'cursor_invalid',
      detail  = 'The cursor is none that a page of this search gave.';
  end if;

  viewer := ((select auth.uid()), private.sees_mature_content(), array(select private.blocked_user_ids()));
  return query
  select
    c.id, c.owner_id, p.username, c.name, c.tagline, c.tags, c.age, c.is_mature, c.avatar_path, c.created_at,
    m.rank || '.' || m.character_id
  from private.character_matches(
    asked, wanted, left(past, 1)::integer, substr(past, 3)::uuid,
    least(greatest(coalesce(search_characters.page_size, 20), 1), 100), viewer
  ) with ordinality as m (rank, character_id, place)
  join public.characters as c on c.id = m.character_id
  join public.profiles as p on p.id = c.owner_id
  order by m.place;
end;
$$;

create function public.search_characters(
  query text default '',
  tags text[] default '{}',
  cursor text default null,
  page_size integer default 20
)
returns setof public.found_character
language sql
stable
security invoker
set search_path = ''
as $$
  select s.*
  from private.search_characters(
    search_characters.query, search_characters.tags, search_characters.cursor, search_characters.page_size
  ) as s;
$$;

revoke all on function
  private.characters_of_rank(integer, text, tsquery, tsquery, text[], uuid, integer, private.viewer),
  private.character_matches(text, text[], integer, uuid, integer, private.viewer),
  private.search_characters(text, text[], text, integer), public.search_characters(text, text[], text, integer)
  from public, anon, authenticated, service_role;
grant execute on function
  private.search_characters(text, text[], text, integer), public.search_characters(text, text[], text, integer)
  to anon, authenticated;
comment on function public.search_characters(text, text[], text, integer) is
'Public characters that have all the tags and hold all the words of query, the last of which may be unfinished, in their '
'name first, then in names that are alike, then elsewhere; the newest first within each; without both the newest ones. '
'Mature ones only for who confirmed. At most 100 a page; the cursor of the last row gives the next one. '
'Raises PT422 search_invalid, PT422 cursor_invalid.';
