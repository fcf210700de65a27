begin;
select plan(27);
select tests.create_supabase_user('alice');
select tests.create_supabase_user('bob');
select tests.create_supabase_user('carol');

create temporary table people as
select name, tests.get_supabase_uid(name) as id from unnest(array['alice', 'bob', 'carol']) as name;
grant select on people to public;
create function pg_temp.id_of(name text) returns uuid language sql as $$
  select p.id from people as p where p.name = id_of.name;
$$;

select tests.authenticate_as('alice');
insert into public.documents (collection, data) values ('notes', '{}');
insert into public.blocks (blocked_id) values (pg_temp.id_of('bob'));
select tests.authenticate_as('carol');
insert into public.blocks (blocked_id) values (pg_temp.id_of('alice'));
select tests.become_postgres();
select admin.grant_role(pg_temp.id_of('alice'), 'creator');
select private.owner_of(pg_temp.id_of('alice'));
insert into auth.sessions (id, user_id, created_at, updated_at) values (gen_random_uuid(), pg_temp.id_of('alice'), now(), now());
insert into storage.objects (bucket_id, name, owner_id) values ('avatars', pg_temp.id_of('alice') || '/a.png', pg_temp.id_of('alice'));

select tests.authenticate_as('alice');
select throws_ok(
  $$ select service.begin_account_deletion(auth.uid()) $$, '42501', null, 'deletion goes through the function account'
);
select tests.authenticate_as_service_role();
select throws_ok(
  $$ select service.erase_plan(pg_temp.id_of('alice')) $$, 'PT409', 'account_not_deleted', 'a living account is not erased'
);
select results_eq(
  $$ select r ->> 'status', r ->> 'job_id' is not null from service.begin_account_deletion(pg_temp.id_of('alice')) as r $$,
  $$ values ('deleted', true) $$, 'an account is deleted'
);
create temporary table first_job as
select id from public.jobs where kind = 'erase' order by id desc limit 1;
select is(
  (service.begin_account_deletion(pg_temp.id_of('alice')) ->> 'job_id')::uuid, (select id from first_job),
  'deleting again gives the same job'
);

select tests.become_postgres();
select results_eq(
  $$ select status, display_name, bio, avatar_path, did, username ~ '^deleted_[0-9a-f]{20}$' from public.profiles
    where id = pg_temp.id_of('alice') $$,
  $$ values ('deleted', 'Deleted user', '', 'default/avatar.png', null::text, true) $$, 'the profile is nameless'
);
select is_empty($$ select from public.profile_private where id = pg_temp.id_of('alice') $$, 'private data is gone');
select is_empty($$ select from public.documents where owner_id = pg_temp.id_of('alice') $$, 'documents are gone');
select is_empty(
  $$ select from public.blocks where pg_temp.id_of('alice') in (blocker_id, blocked_id) $$, 'blocks are gone, both ways'
);
select is_empty($$ select from private.app_roles where user_id = pg_temp.id_of('alice') $$, 'roles are gone');
select is_empty($$ select from auth.sessions where user_id = pg_temp.id_of('alice') $$, 'sessions are gone');
select ok(
  (select banned_until > now() + interval '99 years' from auth.users where id = pg_temp.id_of('alice')), 'Auth lets nobody in'
);
select results_eq(
  $$ select kind, user_id, payload from private.outbox where subject_id = pg_temp.id_of('alice') $$,
  $$ values ('user.deleted', null::uuid, jsonb_build_object('user_id', pg_temp.id_of('alice'))) $$,
  'one event is left, without personal data'
);
select is(
  (select reason from private.reserved_usernames where username = 'alice'), 'retired', 'the username is reserved for ever'
);

-- A token that has not expired.
select tests.authenticate_as('alice');
select throws_ok($$ select public.me() $$, 'PT403', 'account_not_active', 'a live token of a deleted account is refused');
select throws_ok(
  $$ insert into public.documents (collection, data) values ('notes', '{}') $$, '42501', null, 'it adds nothing'
);
select throws_ok(
  $$ insert into public.blocks (blocked_id) values (pg_temp.id_of('bob')) $$, '42501', null, 'it blocks nobody'
);
select is_empty(
  $$ update public.profiles set bio = 'back' where id = auth.uid() returning 1 $$, 'it changes no profile'
);
select tests.authenticate_as('bob');
select is_empty($$ select from public.profiles where id = pg_temp.id_of('alice') $$, 'nobody sees the tombstone');
select throws_ok(
  $$ update public.profiles set username = 'alice' where id = auth.uid() $$, 'PT409', 'username_unavailable',
  'nobody takes the name'
);

-- The second half.
select tests.authenticate_as_service_role();
select is(
  service.erase_plan(pg_temp.id_of('alice')),
  jsonb_build_object('user_id', pg_temp.id_of('alice'), 'delete_user', true, 'files', jsonb_build_array(
    jsonb_build_object('bucket', 'avatars', 'path', pg_temp.id_of('alice') || '/a.png')
  )), 'the plan names the files and the user'
);
select tests.become_postgres();
select lives_ok($$ delete from auth.users where id = pg_temp.id_of('alice') $$, 'the user can be deleted then');
select is_empty($$ select from public.profiles where id = pg_temp.id_of('alice') $$, 'and the tombstone goes');
select is(
  (select count(*) from private.reserved_usernames where username = 'alice' and user_id is null), 1::bigint,
  'the name stays reserved, for nobody'
);
select tests.authenticate_as_service_role();
select is(
  service.begin_account_deletion(pg_temp.id_of('alice')), '{"status": "deleted", "job_id": null}',
  'deleting once more is still no error'
);

-- In the dashboard.
select tests.become_postgres();
select lives_ok($$ delete from auth.users where id = pg_temp.id_of('bob') $$, 'a user can be deleted in the dashboard');
select is(
  (select count(*) from private.outbox where subject_id = pg_temp.id_of('bob')), 1::bigint,
  'the event and nothing else is left'
);
select is(
  (select count(*) from private.job_work where payload = jsonb_build_object('user_id', pg_temp.id_of('bob'))), 2::bigint,
  'the job for files is queued, and one for files that arrive late'
);

select * from finish();
rollback;
