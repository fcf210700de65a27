begin;
select plan(18);
select tests.create_supabase_user('alice');
select tests.create_supabase_user('bob');

-- What a caller would send, by the key that create_api_key answered.
create temporary table made (name text primary key, answer jsonb);
grant all on made to authenticated;
create function pg_temp.authenticate(name text, scope text, at timestamptz default now()) returns jsonb language sql as $$
  select private.authenticate_api_key(sha256(convert_to(m.answer ->> 'key', 'UTF8')), scope, at) from made as m where m.name = authenticate.name;
$$;

select tests.authenticate_as('alice');
insert into made select 'a', public.create_api_key('Laptop', array['models', 'chat', 'chat'], 30);
select is(
  (select array(select jsonb_array_elements_text(answer -> 'scopes')) from made where name = 'a'), array['chat', 'models'],
  'scopes are a set'
);
select matches((select answer ->> 'key' from made where name = 'a'), '^pk_parlor_[0-9a-f]{64}$', 'a key has the form that scanners know');
select is((select answer ->> 'prefix' from made), (select left(answer ->> 'key', 18) from made), 'its beginning is kept, to tell it by');
select throws_ok($$ select public.create_api_key(E'two\nlines') $$, 'PT422', 'api_key_name_invalid');
select throws_ok($$ select public.create_api_key('x', array['chat', null]) $$, 'PT422', 'api_key_scope_unknown');
select throws_ok($$ select public.create_api_key('x', '{}') $$, 'PT422', 'api_key_scope_unknown');
select throws_ok($$ select public.create_api_key('x', array['chat'], 0) $$, 'PT422', 'api_key_expiry_invalid');

select tests.become_postgres();
select is(
  (select pg_temp.authenticate('a', 'chat') ->> 'user_id'), tests.get_supabase_uid('alice')::text, 'a key stands for its person'
);
select throws_ok($$ select pg_temp.authenticate('a', 'chat', now() + interval '30 days') $$, 'PT401', 'api_key_expired', 'until the moment of its expiry');
select pg_temp.authenticate('a', 'models', now() + interval '59 seconds');
select is((select last_used_at from public.api_keys), now(), 'its last use is not written again within a minute');
select pg_temp.authenticate('a', 'models', now() + interval '61 seconds');
select is((select last_used_at from public.api_keys), now() + interval '61 seconds', 'and is after that');

select throws_ok($$ select pg_temp.authenticate('a', 'embeddings') $$, 'PT403', 'api_key_scope_missing');
select throws_ok($$ select private.authenticate_api_key('\x00', 'chat') $$, 'PT401', 'api_key_unknown');
select admin.set_account_status(tests.get_supabase_uid('alice'), 'suspended');
select throws_ok($$ select pg_temp.authenticate('a', 'chat') $$, 'PT403', 'account_not_active');
select admin.set_account_status(tests.get_supabase_uid('alice'), 'active');

update public.api_keys set revoked_at = now() - interval '91 days';
select throws_ok($$ select pg_temp.authenticate('a', 'chat') $$, 'PT401', 'api_key_revoked');
select tests.authenticate_as('bob');
select public.create_api_key('Bob''s');
select tests.become_postgres();
select is(private.prune_api_keys(), 1::bigint, 'what ended three months ago is forgotten');
select is((select count(*) from public.api_keys), 1::bigint, 'and nothing else');
select is((select count(*) from private.api_key_hashes), 1::bigint, 'with its hash');

select * from finish();
rollback;
