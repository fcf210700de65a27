begin;
select plan(17);
select tests.create_supabase_user('owner');
select tests.create_supabase_user('stranger');
create temporary table seen (name text primary key, id uuid);
grant select, insert on seen to anon, authenticated;

select tests.authenticate_as('owner');
insert into public.characters (name, age, visibility) values ('Ada', 36, 'public');
insert into seen select 'ada', id from public.characters;
prepare change (jsonb, integer) as
  select c.name, c.version from seen as s, public.update_character(s.id, $1, $2) as c where s.name = 'ada';

select results_eq(
  $$ execute change ('{"name": "Ada L.", "hobbies": ["chess"], "personality": "Curious.",
    "depth_prompt": {"prompt": "Be brief.", "depth": 4, "role": "system"}}', null) $$,
  $$ values ('Ada L.', 1) $$,
  'a patch names columns of the face and of the definition'
);
select results_eq(
  $$ select c.hobbies, d.personality, d.depth_prompt ->> 'depth', d.scenario
    from public.characters as c join public.character_definitions as d on d.character_id = c.id $$,
  $$ values (array['chess'], 'Curious.', '4', '') $$,
  'and writes both'
);
select results_eq($$ execute change ('{"name": "Ada", "scenario": "London."}', 1) $$, $$ values ('Ada', 2) $$, 'as one version');
select throws_ok($$ execute change ('{"name": "Eve"}', 1) $$, 'PT409', 'character_version_conflict', 'a version that is past is refused');
select results_eq($$ execute change ('{}', 2) $$, $$ values ('Ada', 2) $$, 'nothing changes nothing');
select results_eq($$ execute change ('{"depth_prompt": null}', 2) $$, $$ values ('Ada', 3) $$, 'null takes a depth prompt away');
select is((select depth_prompt from public.character_definitions), null::jsonb, 'for good');
select throws_ok($$ execute change ('{"greting": "Hi"}', null) $$, 'PT422', 'fields_invalid', 'a field that is misspelt is refused');
select throws_ok($$ execute change ('{"owner_id": "x"}', null) $$, 'PT422', 'fields_invalid', 'and one that is nobody''s to write');
select throws_ok($$ execute change ('{"version": 7}', null) $$, 'PT422', 'fields_invalid', 'and the version');
select throws_ok($$ execute change ('[]', null) $$, 'PT422', 'fields_invalid', 'and what is no object');
select throws_ok($$ execute change ('{"age": 17}', null) $$, '23514', null, 'the constraints hold');
select throws_ok($$ execute change ('{"name": null}', null) $$, '23502', null, 'every one');

select tests.authenticate_as('stranger');
select throws_ok($$ execute change ('{"name": "Mine"}', null) $$, 'PT404', 'character_not_found', 'a stranger changes nothing');

select tests.authenticate_as('owner');
select public.delete_character((select id from seen where name = 'ada'));
select throws_ok($$ execute change ('{"name": "Back"}', null) $$, 'PT404', 'character_not_found', 'nor anybody what is deleted');

-- The lists of fields are the grants, so that none is forgotten in one of them.
select tests.become_postgres();
select set_eq(
  $$ select column_name::text from information_schema.column_privileges
    where table_schema = 'public' and table_name = 'characters' and grantee = 'authenticated' and privilege_type = 'UPDATE' $$,
  $$ select unnest(private.character_fields()) $$,
  'update_character writes the columns of the face that its owner may write'
);
select set_eq(
  $$ select column_name::text from information_schema.column_privileges
    where table_schema = 'public' and table_name = 'character_definitions' and grantee = 'authenticated'
      and privilege_type = 'UPDATE' $$,
  $$ select unnest(private.character_definition_fields()) $$,
  'and those of the definition'
);

select * from finish();
rollback;
