begin;
select plan(11);
select tests.create_supabase_user('alice');
select tests.create_supabase_user('bob');

create function pg_temp.remember(who text, key text, body jsonb) returns jsonb language sql as $$
  select private.remember_request(tests.get_supabase_uid(who), 'send', remember.key, remember.body)
$$;

select is(pg_temp.remember('alice', 'k1', '{"a": 1}'), null, 'a new request is new');
select private.store_response(tests.get_supabase_uid('alice'), 'send', 'k1', '{"id": 7}');
select is(pg_temp.remember('alice', 'k1', '{"a": 1}'), '{"id": 7}'::jsonb, 'the same request again has the same answer');
select is(
  pg_temp.remember('alice', 'k1', '{  "a":1 }'), '{"id": 7}'::jsonb, 'the spelling of the body does not matter'
);
select throws_ok(
  $$ select pg_temp.remember('alice', 'k1', '{"a": 2}') $$, 'PT409', 'idempotency_key_reused',
  'the same key with another body is refused'
);
select is(pg_temp.remember('bob', 'k1', '{"a": 2}'), null, 'keys of two people do not meet');
select is(
  private.remember_request(tests.get_supabase_uid('alice'), 'start', 'k1', '{"a": 2}'), null,
  'keys of two operations do not meet'
);
select throws_ok(
  $$ select pg_temp.remember('alice', '', '{}') $$, 'PT422', 'idempotency_key_invalid', 'an empty key is refused'
);
select throws_ok(
  $$ select pg_temp.remember('alice', null, '{}') $$, 'PT422', 'idempotency_key_invalid', 'no key is refused'
);
select throws_ok(
  $$ select pg_temp.remember('alice', repeat('k', 256), '{}') $$, 'PT422', 'idempotency_key_invalid',
  'a key of 256 characters is refused'
);
select is(pg_temp.remember('alice', repeat('k', 255), null), null, 'a key of 255 characters and no body pass');

select is(private.prune_idempotency_keys(now() + interval '1 second'), 4::bigint, 'old keys are dropped');

select * from finish();
rollback;
