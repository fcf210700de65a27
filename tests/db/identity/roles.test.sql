begin;
select plan(21);
select tests.create_supabase_user('alice');
select tests.create_supabase_user('root');

create function pg_temp.token_roles(who text, app_metadata jsonb default '{}') returns jsonb language sql as $$
  select private.custom_access_token(jsonb_build_object(
    'user_id', tests.get_supabase_uid(who),
    'claims', jsonb_build_object('sub', tests.get_supabase_uid(who), 'app_metadata', app_metadata)
  )) #> '{claims,app_metadata}';
$$;

select lives_ok($$ select admin.grant_role(tests.get_supabase_uid('root'), 'admin') $$, 'the dashboard grants the first admin');
select lives_ok($$ select admin.grant_role(tests.get_supabase_uid('root'), 'admin') $$, 'granting again changes nothing');
select throws_ok(
  $$ select admin.grant_role(tests.get_supabase_uid('root'), 'king') $$, 'PT422', 'role_unknown', 'an unknown role is refused'
);
select throws_ok(
  $$ select admin.grant_role(gen_random_uuid(), 'admin') $$, 'PT404', 'user_not_found', 'an unknown user is refused'
);

select tests.authenticate_as('alice');
select throws_ok(
  $$ select public.grant_role(auth.uid(), 'admin') $$, 'PT403', 'admin_role_required', 'nobody makes themselves an admin'
);
select throws_ok(
  $$ select public.admin_get_user(auth.uid()) $$, 'PT403', 'admin_role_required', 'admin_get_user is for admins'
);
select throws_ok($$ select from private.app_roles $$, '42501', null, 'roles are nobody''s to read');
select throws_ok($$ select admin.grant_role(auth.uid(), 'admin') $$, '42501', null, 'the dashboard''s functions are closed');
-- A forged claim convinces nobody: the table is asked.
select set_config('request.jwt.claims', jsonb_build_object(
  'sub', tests.get_supabase_uid('alice'), 'role', 'authenticated', 'app_metadata', '{"roles": ["admin"]}'::jsonb
)::text, true);
select ok(not private.has_role('admin'), 'a role in the token alone counts for nothing');

select tests.authenticate_as('root');
select lives_ok($$ select public.grant_role(tests.get_supabase_uid('alice'), 'creator') $$, 'an admin grants a role');
select throws_ok(
  $$ select public.admin_get_user(gen_random_uuid()) $$, 'PT404', 'user_not_found', 'an unknown user looks absent'
);
select is(
  public.admin_get_user(tests.get_supabase_uid('alice')) -> 'roles', '["creator"]', 'an admin reads any user by id'
);
select is(
  public.admin_get_user(tests.get_supabase_uid('alice')) ->> 'email', 'alice@test.example', 'with their e-mail'
);

select tests.become_postgres();
select is(pg_temp.token_roles('alice'), '{"roles": ["creator"]}', 'the token hook puts roles into app_metadata');
select is(
  pg_temp.token_roles('alice', '{"provider": "email", "roles": ["admin"]}'),
  '{"provider": "email", "roles": ["creator"]}', 'it keeps what stands there and replaces roles'
);
select is(pg_temp.token_roles('alice', 'null'), '{"roles": ["creator"]}', 'it makes app_metadata when there is none');
select function_privs_are(
  'private', 'custom_access_token', array['jsonb'], 'supabase_auth_admin', array['EXECUTE'], 'Auth runs the hook'
);
select throws_ok(
  $$ select admin.set_account_status(tests.get_supabase_uid('alice'), 'deleted') $$, 'PT422', 'account_status_unknown',
  'deletion is no status to set'
);
select admin.set_account_status(tests.get_supabase_uid('root'), 'suspended');
select is(pg_temp.token_roles('root'), '{"roles": []}', 'a suspended admin''s next token has no role');
select tests.authenticate_as('root');
select ok(not private.has_role('admin'), 'and the present one counts for nothing');
select throws_ok(
  $$ select public.grant_role(auth.uid(), 'moderator') $$, 'PT403', 'account_not_active', 'a suspended admin grants nothing'
);

select * from finish();
rollback;
