begin;
select plan(29);
select tests.create_supabase_user('owner');
select tests.create_supabase_user('stranger');
select tests.create_supabase_user('blocked');
create temporary table seen (name text primary key, id uuid);
grant select, insert on seen to anon, authenticated;

select tests.authenticate_as('owner');
insert into public.blocks (blocked_id) values (tests.get_supabase_uid('blocked'));
select lives_ok(
  $$ insert into public.characters (name, age, visibility, tags) values ('Ada', 36, 'public', array['history', 'science']) $$,
  'a person creates a character'
);
insert into public.characters (name, age, visibility) values ('Linked', 36, 'unlisted'), ('Hidden', 36, 'private');
insert into public.characters (name, age, visibility, is_mature) values ('Mature', 36, 'public', true);
insert into seen select name, id from public.characters;

select is(
  (select count(*) from public.character_definitions), 4::bigint,
  'every character has a definition from the start'
);
select lives_ok(
  $$ update public.character_definitions set system_instruction = 'You are Ada.' $$,
  'the owner writes the definition'
);
select throws_ok(
  $$ insert into public.characters (name, age) values ('Child', 17) $$, '23514', null,
  'a character is an adult'
);
select throws_ok(
  $$ insert into public.characters (name, age) values ('No age', null) $$, '23502', null,
  'and says its age'
);
select throws_ok(
  $$ update public.characters set age = 12 where name = 'Ada' $$, '23514', null,
  'and stays an adult'
);
select throws_ok(
  $$ insert into public.characters (name, age) values ('', 20) $$, '23514', null,
  'a character has a name'
);
select throws_ok(
  $$ insert into public.characters (name, age, tags) values ('T', 20, array['Upper']) $$, '23514', null,
  'tags are lower case'
);
select throws_ok(
  $$ insert into public.characters (name, age, tags) values ('T', 20, array['a', 'a']) $$, '23514', null,
  'no tag stands twice'
);
select throws_ok(
  $$ insert into public.characters (name, age, tags) select 'T', 20, array_agg('t' || n) from generate_series(1, 17) as n $$,
  '23514', null, 'there are at most 16 tags'
);
select throws_ok(
  $$ insert into public.characters (name, age, description) values ('T', 20, repeat('x', 4001)) $$, '23514', null,
  'a description has a limit'
);
select throws_ok(
  $$ update public.character_definitions set backstory = repeat('x', 32001) $$, '23514', null,
  'a definition has limits'
);
select throws_ok(
  format(
    $$ insert into public.characters (name, age, avatar_path) values ('T', 20, '%s/a.png') $$,
    tests.get_supabase_uid('stranger')
  ),
  '23514', null, 'an avatar lies in the owner''s folder'
);
select throws_ok(
  $$ insert into public.characters (name, age, owner_id) values ('T', 20, tests.get_supabase_uid('stranger')) $$,
  '42501', null, 'nobody creates characters for others'
);

select tests.authenticate_as('stranger');
select results_eq(
  $$ select name from public.characters where owner_id = tests.get_supabase_uid('owner') $$, $$ values ('Ada') $$,
  'a stranger finds the public one, neither unlisted nor private nor mature'
);
select is_empty($$ select 1 from public.character_definitions $$, 'a stranger reads no definition');
select is(
  (public.get_character((select id from seen where name = 'Linked'))).name, 'Linked',
  'an unlisted one is read by its id'
);
select throws_ok(
  $$ select public.get_character((select id from seen where name = 'Hidden')) $$, 'PT404', 'character_not_found',
  'a private one looks absent'
);
select throws_ok(
  $$ select public.get_character((select id from seen where name = 'Mature')) $$, 'PT403', 'mature_confirmation_required',
  'a mature one asks for the confirmation'
);
select public.confirm_mature_content();
select is(
  (select count(*) from public.characters where owner_id = tests.get_supabase_uid('owner')), 2::bigint,
  'after it the mature one is found'
);
select is_empty(
  $$ update public.characters set name = 'Mine' where name = 'Ada' returning 1 $$,
  'a stranger changes nothing'
);
select throws_ok(
  $$ select public.delete_character((select id from seen where name = 'Ada')) $$, 'PT404', 'character_not_found',
  'a stranger deletes nothing'
);

select tests.authenticate_as('blocked');
select is_empty(
  $$ select 1 from public.characters where owner_id = tests.get_supabase_uid('owner') $$,
  'who was blocked finds none'
);
select throws_ok(
  $$ select public.get_character((select id from seen where name = 'Ada')) $$, 'PT404', 'character_not_found',
  'nor by its id'
);

select tests.clear_authentication();
select results_eq(
  $$ select name from public.characters where owner_id = (select tests.get_supabase_uid('owner')) $$, $$ values ('Ada') $$,
  'a visitor finds public characters that are not mature'
);

select tests.authenticate_as('owner');
select lives_ok(
  $$ select public.delete_character((select id from seen where name = 'Ada')) $$, 'the owner deletes a character'
);
select is_empty($$ select 1 from public.characters where name = 'Ada' $$, 'and sees it no more');
select tests.become_postgres();
select is_empty(
  $$ select 1 from public.character_definitions where character_id = (select id from seen where name = 'Ada') $$,
  'its definition is gone'
);
select policies_are('public', 'characters', array[
  'visitors can read public characters', 'people can read their own and public characters',
  'active people can create characters', 'owners can change their characters'
]);

select * from finish();
rollback;
