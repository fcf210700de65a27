begin;
select plan(15);
select tests.create_supabase_user('owner');
select tests.create_supabase_user('stranger');
create temporary table seen (name text primary key, id uuid);
grant select, insert on seen to anon, authenticated;

-- Ends what a request would end: the triggers that wait for the end of a transaction.
create function pg_temp.settle() returns void language plpgsql as $$
begin
  set constraints all immediate;
  set constraints all deferred;
end;
$$;

select tests.authenticate_as('owner');
insert into public.characters (name, age, visibility, greeting) values ('Ada', 36, 'public', 'Good evening.');
insert into seen select 'ada', id from public.characters;
update public.character_definitions set system_instruction = 'You are Ada.';
select pg_temp.settle();

select results_eq(
  $$ select version, snapshot ->> 'name', snapshot ->> 'system_instruction' from public.character_versions $$,
  $$ values (1, 'Ada', 'You are Ada.') $$,
  'a character made and defined in one transaction has one version, with both'
);

insert into seen select 'first talk', id from public.start_conversation((select id from seen where name = 'ada'));
update public.characters set greeting = 'Good morning.';
update public.character_definitions set personality = 'Curious.';
select pg_temp.settle();

select results_eq(
  $$ select version, snapshot ->> 'greeting', snapshot ->> 'personality' from public.character_versions order by version $$,
  $$ values (1, 'Good evening.', ''), (2, 'Good morning.', 'Curious.') $$,
  'a transaction that changes both adds one version'
);
select is((select version from public.characters), 2, 'the character names its newest version');

update public.characters set visibility = 'unlisted', tags = array['history'];
update public.characters set name = 'Ada';
select pg_temp.settle();
select is((select count(*) from public.character_versions), 2::bigint, 'what no prompt uses makes no version');

insert into seen select 'second talk', id from public.start_conversation((select id from seen where name = 'ada'));
select results_eq(
  $$ select s.name, c.character_version from public.conversations as c join seen as s on s.id = c.id order by s.name $$,
  $$ values ('first talk', 1), ('second talk', 2) $$,
  'a conversation pins the version it began with'
);
select throws_ok(
  $$ insert into public.character_versions (character_id, version, owner_id, snapshot) select id, 9, owner_id, '{}' from public.characters $$,
  '42501', null, 'nobody writes versions by hand'
);
select throws_ok($$ update public.characters set version = 9 $$, '42501', null, 'nor the number');

select tests.authenticate_as('stranger');
select is_empty($$ select 1 from public.character_versions $$, 'a stranger reads no version');
select lives_ok(
  $$ insert into seen select 'their talk', id from public.start_conversation((select id from seen where name = 'ada')) $$,
  'but talks with the character'
);
select is(
  (select character_version from public.conversations), 2,
  'in the newest one'
);

select tests.authenticate_as('owner');
select public.delete_character((select id from seen where name = 'ada'));
select pg_temp.settle();
select tests.become_postgres();
select results_eq(
  $$ select version, snapshot from public.character_versions order by version $$,
  $$ values (1, '{}'::jsonb), (2, '{}') $$,
  'of a deleted character the versions are empty'
);
select is_empty($$ select 1 from public.character_definitions $$, 'the definition is gone');
select results_eq(
  $$ select greeting, description, tags from public.characters $$, $$ values ('', '', '{}'::text[]) $$,
  'and so is its face'
);
select tests.authenticate_as('stranger');
select results_eq(
  $$ select content from public.messages $$, $$ values ('Good morning.') $$,
  'a conversation with it stays readable'
);

select tests.become_postgres();
select is(
  private.character_snapshot((select id from public.characters)), null::jsonb, 'no snapshot is made of a deleted character'
);

select * from finish();
rollback;
