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

-- Characters whose document matches, newest first, without those whose name does; `words` null: all of
-- them. A page of something common is among the newest two thousand, where reading in order finds it;
-- what is not is rare enough to be taken from the index as a whole.
create function private.newest_characters(
  begun tsquery,
  words tsquery,
  like_name text,
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
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  is_filtered constant boolean := begun is not null or tags <> '{}';
  found_ids   uuid[];
begin
  found_ids := array(
    select s.character_id
    from (
      select r.*
      from private.character_search as r
      where r.character_id < past_id
      order by r.character_id desc
      limit case when is_filtered then 2000 end
    ) as s
    where s.tags @> newest_characters.tags
      and (begun is null or (s.document @@ begun and not s.words @@ newest_characters.words))
      and (like_name is null or not like_name operator(extensions.<%) s.name)
      and (not s.is_mature or viewer.sees_mature or s.owner_id = viewer.id)
      and s.owner_id <> all (viewer.hidden)
    order by s.character_id desc
    limit room
  );
  if cardinality(found_ids) = room or not is_filtered then
    return found_ids;
  end if;

  -- Materialized: asked for in order and to a limit, the planner would read in order again.
  if begun is null then
    return array(
      with matches as materialized (
        select s.character_id
        from private.character_search as s
        where s.tags @> newest_characters.tags
          and (not s.is_mature or viewer.sees_mature or s.owner_id = viewer.id)
          and s.owner_id <> all (viewer.hidden)
      )
      select m.character_id from matches as m where m.character_id < past_id order by m.character_id desc limit room
    );
  end if;
  return array(
    with matches as materialized (
      select s.character_id
      from private.character_search as s
      where s.document @@ begun and s.tags @> newest_characters.tags
        and not s.words @@ newest_characters.words
        and (like_name is null or not like_name operator(extensions.<%) s.name)
        and (not s.is_mature or viewer.sees_mature or s.owner_id = viewer.id)
        and s.owner_id <> all (viewer.hidden)
    )
    select m.character_id from matches as m where m.character_id < past_id order by m.character_id desc limit room
  );
end;
$$;

-- Matches in order, after (rank, id): 4 the name is what was asked for, 3 it holds all the words, 2 it
-- is like it, 1 the words stand elsewhere; the newest first within each. A rank is looked for only
-- while the page has room, so that a common word costs no more than a rare one.
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
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  newest    constant uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
  asked     constant text := private.search_text(btrim(query));
  whole     constant tsquery := plainto_tsquery('simple', asked);
  -- The last word may be the beginning of one; names are like what is long enough to be like anything.
  begun     constant tsquery := case when numnode(whole) > 0 then (whole::text || ':*')::tsquery end;
  like_name constant text := case when begun is not null and char_length(asked) >= 3 then asked end;
  room      integer := page_size;
  added     integer;
begin
  -- Signs without a letter or number are no words, and no name is found by them.
  if begun is null and asked <> '' then
    return;
  end if;

  if begun is not null and past_rank >= 3 then
    return query
    with matches as materialized (
      select case when s.name = asked then 4 else 3 end as rank, s.character_id
      from private.character_search as s
      where s.words @@ whole and s.tags @> character_matches.tags
        and (not s.is_mature or viewer.sees_mature or s.owner_id = viewer.id)
        and s.owner_id <> all (viewer.hidden)
    )
    select m.rank, m.character_id
    from matches as m
    where (m.rank, m.character_id) < (past_rank, past_id)
    order by m.rank desc, m.character_id desc
    limit room;
    get diagnostics added = row_count;
    room := room - added;
  end if;

  if like_name is not null and room > 0 and past_rank >= 2 then
    return query
    with matches as materialized (
      select s.character_id
      from private.character_search as s
      where like_name operator(extensions.<%) s.name and s.tags @> character_matches.tags
        and not s.words @@ whole
        and (not s.is_mature or viewer.sees_mature or s.owner_id = viewer.id)
        and s.owner_id <> all (viewer.hidden)
    )
    select 2, m.character_id
    from matches as m
    where m.character_id < case when past_rank = 2 then past_id else newest end
    order by m.character_id desc
    limit room;
    get diagnostics added = row_count;
    room := room - added;
  end if;

  if room > 0 then
    return query
    select 1, n.character_id
    from unnest(
      private.newest_characters(
        begun, whole, like_name, character_matches.tags, case when past_rank = 1 then past_id else newest end, room,
        viewer
      )
    ) as n (character_id);
  end if;
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
  if past !~ '^[1-5]\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
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
  private.newest_characters(tsquery, tsquery, text, text[], uuid, integer, private.viewer),
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
