begin;
select plan(33);
select tests.create_supabase_user('owner');
select tests.create_supabase_user('other');
select tests.create_supabase_user('seeker');
select tests.create_supabase_user('blocked');

-- Words that no other row of the database has, since search sees all of it.
select tests.authenticate_as('owner');
insert into public.characters (name, nickname, tagline, description, tags, age, visibility, is_mature) values
  ('Zorblat', '', 'Old', '', array['zq one'], 30, 'public', false),
  ('Zorblat the Great', '', '', '', array['zq one', 'zq two'], 30, 'public', false),
  ('Zorblak', '', '', 'Frightens the quivvering.', array['zq one'], 30, 'public', false),
  ('Elsewhere', 'Quivver', '', 'Knows Zorblat well.', array['zq two'], 30, 'public', false),
  ('Élöise Zörblat', '', '', '', '{}', 30, 'public', false),
  ('Zorblat Hidden', '', '', '', array['zq one'], 30, 'private', false),
  ('Zorblat Linked', '', '', '', array['zq one'], 30, 'unlisted', false),
  ('Zorblat Mature', '', '', '', array['zq one'], 30, 'public', true);
insert into public.blocks (blocked_id) values (tests.get_supabase_uid('blocked'));
select tests.authenticate_as('other');
insert into public.characters (name, tags, age, visibility) values ('Zorblat of another', array['zq one'], 30, 'public');

create function pg_temp.names(query text default '', tags text[] default '{}') returns text[] language sql as $$
  select array_agg(s.name order by s.place)
  from public.search_characters(names.query, names.tags) with ordinality
    as s (id, owner_id, owner_username, name, tagline, tags, age, is_mature, avatar_path, created_at, cursor, place);
$$;

select tests.authenticate_as('seeker');
select is(
  pg_temp.names('zorblat'),
  array['Zorblat', 'Zorblat of another', 'Élöise Zörblat', 'Zorblat the Great', 'Zorblak', 'Elsewhere'],
  'first the name itself, then names that hold the word, then one that is like it, then the word elsewhere; new before old'
);
select is(pg_temp.names('ZÖRBLAT'), pg_temp.names('zorblat'), 'case and accents make no difference');
select is((pg_temp.names('great zorblat'))[1], 'Zorblat the Great', 'words stand in any order');
select is(
  pg_temp.names('zorblaz'), array['Zorblat of another', 'Élöise Zörblat', 'Zorblak', 'Zorblat the Great', 'Zorblat'],
  'a wrong letter finds names that are like it'
);
select is(pg_temp.names('quivv'), array['Elsewhere', 'Zorblak'], 'the last word may be unfinished');
select is(pg_temp.names('quivver'), array['Elsewhere', 'Zorblak'], 'a nickname is a name');
select is(pg_temp.names('', array['zq two']), array['Elsewhere', 'Zorblat the Great'], 'tags alone list the newest first');
select is(pg_temp.names('', array['zq one', 'zq two']), array['Zorblat the Great'], 'all tags have to be there');
select is(pg_temp.names('zorblat', array['zq two']), array['Zorblat the Great', 'Elsewhere'], 'tags and text as well');
select is(pg_temp.names('zorblat', array['zq nothing']), null, 'what is nowhere is not found');
select is(pg_temp.names('☆ !?'), null, 'signs without letters find nothing');
select is(pg_temp.names(''' & | ! :* ( <-> \'), null, 'whatever they mean to Postgres');
select is(pg_temp.names('zorblat''); drop table'), null, 'nor do quotes');
select ok(
  (select array_agg(s.name) from public.search_characters(page_size => 100) as s) @> array['Elsewhere', 'Zorblat'],
  'nothing asked for: the newest characters'
);
select is(
  (select s.owner_username from public.search_characters('elsewhere quivver') as s),
  (select username from public.profiles where id = tests.get_supabase_uid('owner')),
  'each with the name of its owner'
);

-- Pages hold every match once, whatever their size.
create function pg_temp.paged(query text, size integer) returns text[] language plpgsql as $$
declare
  names text[] := '{}';
  past  text;
  page  record;
begin
  loop
    select array_agg(s.name order by s.place) as names, (array_agg(s.cursor order by s.place desc))[1] as cursor into page
    from public.search_characters(paged.query, cursor => past, page_size => size) with ordinality
      as s (id, owner_id, owner_username, name, tagline, tags, age, is_mature, avatar_path, created_at, cursor, place);
    exit when page.names is null;
    names := names || page.names;
    past := page.cursor;
  end loop;
  return names;
end;
$$;
select is(pg_temp.paged('zorblat', 1), pg_temp.names('zorblat'), 'page by page of one');
select is(pg_temp.paged('zorblat', 2), pg_temp.names('zorblat'), 'of two');
select is(pg_temp.paged('zorblat', 4), pg_temp.names('zorblat'), 'of four');

select throws_ok($$ select public.search_characters(cursor => 'x') $$, 'PT422', 'cursor_invalid', 'a cursor is one that was given');
select throws_ok($$ select public.search_characters(cursor => '6.00000000-0000-0000-0000-000000000000') $$,
  'PT422', 'cursor_invalid', 'whole');
select throws_ok($$ select public.search_characters(repeat('x', 201)) $$, 'PT422', 'search_invalid', 'a query has a length');
select throws_ok(
  $$ select public.search_characters('', array_fill('t'::text, array[17])) $$, 'PT422', 'search_invalid', 'tags have a number'
);
select lives_ok($$ select public.search_characters(null, null, null, null) $$, 'nulls are absent');
select lives_ok($$ select public.search_characters('x', page_size => -5), public.search_characters('x', page_size => 2000000000) $$,
  'a page has a size between 1 and 100');

select public.confirm_mature_content();
select ok('Zorblat Mature' = any (pg_temp.names('zorblat')), 'who confirmed finds mature characters');
select tests.authenticate_as('owner');
select ok('Zorblat Mature' = any (pg_temp.names('zorblat')), 'and so does who made them');
select tests.authenticate_as('blocked');
select is(pg_temp.names('zorblat'), array['Zorblat of another'], 'who was blocked finds none of the blocker''s');
select tests.clear_authentication();
select is((pg_temp.names('zorblat'))[1:2], array['Zorblat', 'Zorblat of another'], 'a visitor searches as well');

select tests.authenticate_as('owner');
update public.characters set visibility = 'private' where name = 'Zorblat the Great';
update public.characters set name = 'Renamed' where name = 'Zorblak';
select public.delete_character(id) from public.characters where name = 'Zorblat';
select tests.authenticate_as('seeker');
select is(
  (select array_agg(n) from unnest(pg_temp.names('zorblat')) as n where n not in ('Zorblat of another', 'Zorblat Mature')),
  array['Élöise Zörblat', 'Elsewhere'],
  'what was deleted, hidden or renamed is not found any more'
);

-- The row that search reads is one per public character and no other, whoever wrote.
select tests.become_postgres();
select results_eq(
  $$ select s.* from private.character_search as s order by s.character_id $$,
  $$ select r.* from public.characters as c, private.search_row(c) as r
    where c.visibility = 'public' and c.deleted_at is null order by c.id $$,
  'what search reads is what the characters say'
);
select is_empty(
  $$ select 1 from private.character_search as s join public.characters as c on c.id = s.character_id
    where c.visibility <> 'public' or c.deleted_at is not null $$,
  'and no private one is among it'
);

-- No question reads the table from end to end; the one index serves text, tags and names alike.
create temporary table scans as
select
  pg_stat_get_xact_numscans('private.character_search'::regclass) as whole,
  pg_stat_get_xact_numscans('private.character_search_matches'::regclass) as matches;
select tests.authenticate_as('other');
select count(*)
from (values ('zorblat', '{}'::text[]), ('zorblaz', '{}'), ('quivv', '{"zq one"}'), ('', '{"zq one"}'), ('', '{}')) as q (query, tags),
  public.search_characters(q.query, q.tags);
select tests.become_postgres();
select is(
  pg_stat_get_xact_numscans('private.character_search'::regclass) - (select whole from scans), 0::bigint,
  'no search reads every row'
);
select cmp_ok(
  pg_stat_get_xact_numscans('private.character_search_matches'::regclass) - (select matches from scans), '>=', 7::bigint,
  'each takes what is rare from the index'
);

select * from finish();
rollback;
