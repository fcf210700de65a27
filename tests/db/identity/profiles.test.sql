begin;
select plan(32);
select tests.create_supabase_user('alice');
select tests.create_supabase_user('bob');
select tests.create_supabase_user('carol');

select policies_are('public', 'profiles', array[
  'anybody can read active profiles that no block hides', 'people can update their profile'
]);
select policies_are('public', 'profile_private', array['people can read their private profile']);
select policies_are('public', 'blocks', array[
  'people can read their blocks', 'active people can block others', 'people can lift their blocks'
]);
select tests.rls_enabled('public');

create function pg_temp.sees(who text) returns boolean language sql as $$
  select exists (select from public.profiles where id = tests.get_supabase_uid(who));
$$;
-- Attempts that no policy lets through change nothing.
create function pg_temp.set_bio(who text, bio text) returns bigint language sql as $$
  with changed as (
    update public.profiles set bio = set_bio.bio where id = tests.get_supabase_uid(who) returning 1
  )
  select count(*) from changed;
$$;

select tests.clear_authentication();
select ok(pg_temp.sees('alice'), 'a visitor reads an active profile');
select throws_ok($$ select from public.profile_private $$, '42501', null, 'a visitor reads nothing private');
select throws_ok($$ select from public.blocks $$, '42501', null, 'a visitor reads no blocks');
select throws_ok($$ select public.me() $$, '42501', null, 'a visitor has no rpc me');

select tests.authenticate_as('alice');
select is(pg_temp.set_bio('alice', 'hello'), 1::bigint, 'a person changes their profile');
select is(pg_temp.set_bio('bob', 'hacked'), 0::bigint, 'and nobody else''s');
select throws_ok(
  $$ update public.profiles set status = 'active' where id = auth.uid() $$, '42501', null, 'status is not theirs to write'
);
select throws_ok(
  $$ update public.profiles set did = 'did:web:x' where id = auth.uid() $$, '42501', null, 'did is not theirs to write'
);
select throws_ok(
  $$ update public.profiles set id = gen_random_uuid() where id = auth.uid() $$, '42501', null, 'nor is the id'
);
select throws_ok($$ delete from public.profiles where id = auth.uid() $$, '42501', null, 'a profile is not deleted alone');
select throws_ok(
  $$ update public.profiles set display_name = repeat('x', 51) where id = auth.uid() $$, '23514', null,
  'a display name over 50 characters is refused'
);
select throws_ok(
  $$ update public.profiles set display_name = e'a\nb' where id = auth.uid() $$, '23514', null,
  'a display name of two lines is refused'
);
select lives_ok(
  $$ update public.profiles set locale = 'zh-Hant-TW' where id = auth.uid() $$, 'a locale may have script and region'
);
select throws_ok(
  $$ update public.profiles set locale = 'English' where id = auth.uid() $$, '23514', null, 'a locale is a BCP 47 tag'
);
select throws_ok(
  $$ update public.profiles set avatar_path = tests.get_supabase_uid('bob') || '/me.png' where id = auth.uid() $$,
  '23514', null, 'an avatar in somebody else''s folder is refused'
);
select throws_ok(
  $$ update public.profiles set avatar_path = auth.uid() || '/../x.png' where id = auth.uid() $$, '23514', null,
  'an avatar path does not climb'
);
select lives_ok(
  $$ update public.profiles set avatar_path = auth.uid() || '/me.png' where id = auth.uid() $$, 'an own avatar is taken'
);
select is(
  (select array_agg(id) from public.profile_private), array[tests.get_supabase_uid('alice')],
  'a person reads their own private profile and no other'
);
select throws_ok(
  $$ update public.profile_private set mature_confirmed_at = '2000-01-01' $$, '42501', null,
  'the confirmation is not a raw column'
);
select isnt(public.confirm_mature_content(), null, 'it is confirmed by rpc');
select is(public.confirm_mature_content(false), null, 'and taken back');

-- Blocks hide both ways.
select throws_ok($$ insert into public.blocks (blocked_id) values (auth.uid()) $$, '23514', null, 'nobody blocks themselves');
insert into public.blocks (blocked_id) values (tests.get_supabase_uid('bob'));
select ok(not pg_temp.sees('bob'), 'the blocker does not see the blocked');
select ok(pg_temp.sees('carol'), 'others are still seen');
select tests.authenticate_as('bob');
select ok(not pg_temp.sees('alice'), 'the blocked does not see the blocker');
select is_empty($$ select from public.blocks $$, 'and does not learn of the block');

select tests.become_postgres();
select admin.set_account_status(tests.get_supabase_uid('carol'), 'suspended');
select tests.authenticate_as('alice');
select ok(not pg_temp.sees('carol'), 'a suspended profile is hidden');
select tests.authenticate_as('carol');
select is(public.me() ->> 'status', 'suspended', 'a suspended person learns that they are');

select * from finish();
rollback;
