begin;
select plan(9);
select tests.create_supabase_user('alice');
select tests.create_supabase_user('bob');
select admin.grant_role(tests.get_supabase_uid('alice'), 'admin');
-- What Auth's admin API and the dashboard do; the token that alice holds lives on.
update auth.users set banned_until = now() + interval '1 hour' where id = tests.get_supabase_uid('alice');

select tests.authenticate_as('alice');
select ok(not private.has_role('admin'), 'somebody banned holds no role');
select throws_ok(
  $$ select public.admin_get_user(tests.get_supabase_uid('bob')) $$, 'PT403', 'account_not_active', 'and is no admin'
);
select throws_ok(
  $$ select public.grant_role(auth.uid(), 'moderator') $$, 'PT403', 'account_not_active', 'and grants nothing'
);
select is_empty(
  $$ update public.profiles set bio = 'still here' where id = auth.uid() returning 1 $$, 'and changes no profile'
);
select throws_ok(
  $$ insert into public.documents (collection, data) values ('notes', '{}') $$, '42501', null, 'and adds no document'
);
select throws_ok(
  $$ insert into public.blocks (blocked_id) values (tests.get_supabase_uid('bob')) $$, '42501', null, 'and blocks nobody'
);
select throws_ok(
  $$ insert into storage.objects (bucket_id, name) values ('avatars', auth.uid() || '/a.png') $$, '42501', null,
  'and uploads nothing'
);

select tests.become_postgres();
update auth.users set banned_until = now() where id = tests.get_supabase_uid('alice');
select tests.authenticate_as('alice');
select ok(private.has_role('admin'), 'a ban that is over leaves everything as it was');
select lives_ok(
  $$ insert into public.documents (collection, data) values ('notes', '{}') $$, 'and lets the person write again'
);

select * from finish();
rollback;
