begin;
select plan(15);
select tests.create_supabase_user('alice');
select tests.create_supabase_user('bob');

create function pg_temp.rename(username text) returns text language sql as $$
  update public.profiles set username = rename.username where id = auth.uid() returning username;
$$;

select tests.authenticate_as('alice');
select is(pg_temp.rename('  Ａlice_W '), 'alice_w', 'a new name is stored trimmed, folded and in lower case');
select is(pg_temp.rename('ALICE_W'), 'alice_w', 'the same name in another spelling is no change');
select throws_ok($$ select pg_temp.rename('bob') $$, 'PT409', 'username_unavailable', 'a taken name is refused');
select throws_ok($$ select pg_temp.rename('Admin') $$, 'PT409', 'username_unavailable', 'a reserved name is refused');
select throws_ok($$ select pg_temp.rename('ab') $$, '23514', null, 'a name of two characters is refused');
select throws_ok($$ select pg_temp.rename(repeat('a', 31)) $$, '23514', null, 'a name of 31 characters is refused');
select throws_ok($$ select pg_temp.rename('a b c') $$, '23514', null, 'spaces are refused');
select throws_ok($$ select pg_temp.rename('аlice') $$, '23514', null, 'a Cyrillic letter that looks Latin is refused');
select throws_ok($$ select pg_temp.rename(null) $$, '23502', null, 'no name is refused');

select tests.authenticate_as('bob');
select throws_ok($$ select pg_temp.rename('alice') $$, 'PT409', 'username_unavailable', 'a name somebody gave up stays theirs');

select tests.authenticate_as('alice');
select is(pg_temp.rename('alice'), 'alice', 'whoever had a name can go back to it');
select is(pg_temp.rename('alice_2'), 'alice_2', 'a second former name is held');
select is(pg_temp.rename('alice_3'), 'alice_3', 'a third one too');
select throws_ok(
  $$ select pg_temp.rename('alice_4') $$, 'PT429', 'username_changed_too_often', 'nobody collects names'
);
select is(pg_temp.rename('alice_w'), 'alice_w', 'going back is still possible');

select * from finish();
rollback;
