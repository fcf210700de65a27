begin;
select plan(15);
select tests.create_supabase_user('alice');
select tests.create_supabase_user('bob');
select tests.become_postgres();
create function pg_temp.begin(who text, key text default null, body_hash text default 'a', kind text default 'openai') returns jsonb
language sql as $$
  select private.begin_completion(
    tests.get_supabase_uid(who),
    jsonb_strip_nulls(jsonb_build_object('kind', kind, 'idempotency_key', key, 'body_hash', body_hash))
  );
$$;
create temporary table begun (name text primary key, answer jsonb);
create function pg_temp.finish(which text, result jsonb) returns jsonb language sql as $$
  select private.finish_completion((b.answer ->> 'completion_id')::uuid, result) from begun as b where b.name = which;
$$;
create function pg_temp.id(which text) returns text language sql as $$
  select b.answer ->> 'completion_id' from begun as b where b.name = which;
$$;

insert into begun values ('first', pg_temp.begin('alice', 'k'));
select throws_ok($$ select pg_temp.begin('alice', 'k') $$, 'PT409', 'request_in_progress');
select throws_ok($$ select pg_temp.begin('alice', 'k', 'b') $$, 'PT409', 'idempotency_key_reused');
select throws_ok($$ select pg_temp.begin('alice', '') $$, 'PT422', 'idempotency_key_invalid');
insert into begun values ('other', pg_temp.begin('bob', 'k'));
select isnt(pg_temp.id('first'), pg_temp.id('other'), 'another person may use the same key');

select pg_temp.finish('first', '{"outcome": "completed", "answer": {"text": "Hi"}}');
select is(
  pg_temp.begin('alice', 'k') - '{routes,skipped,model}'::text[],
  jsonb_build_object('completion_id', pg_temp.id('first'), 'answer', '{"text": "Hi"}'::jsonb),
  'what was answered is answered again, and nothing begins'
);
select throws_ok($$ select pg_temp.begin('alice', 'k', 'b') $$, 'PT409', 'idempotency_key_reused');
select pg_temp.finish('first', '{"outcome": "failed", "answer": {"text": "Other"}}');
select is(pg_temp.begin('alice', 'k') #>> '{answer,text}', 'Hi', 'the first end counts');

select pg_temp.finish('other', '{"outcome": "failed", "code": "provider_timeout"}');
insert into begun values ('again', pg_temp.begin('bob', 'k'));
select isnt(pg_temp.id('again'), pg_temp.id('other'), 'what failed begins anew');
select throws_ok($$ select pg_temp.begin('bob', 'k') $$, 'PT409', 'request_in_progress');
update private.completions set started_at = started_at - interval '11 minutes' where id::text = pg_temp.id('again');
select lives_ok($$ select pg_temp.begin('bob', 'k') $$, 'and what nobody can be answering any more');

select is(private.prune_completion_answers(now() + interval '1 second'), 1::bigint, 'answers are forgotten after a day');
select isnt(pg_temp.begin('alice', 'k') ->> 'completion_id', pg_temp.id('first'), 'then the request begins anew');

insert into begun values ('kept', pg_temp.begin('alice', 'k2'));
select private.tombstone_user(tests.get_supabase_uid('alice'));
select pg_temp.finish('kept', '{"outcome": "completed", "answer": {"text": "Hi"}}');
select is_empty('select 1 from private.completion_answers', 'an account that was deleted keeps no answer');

select is(pg_temp.begin('bob', null, null, 'embed') ->> 'model', 'text-embedding-3-small', 'vectors come from the default embedding model');
select throws_ok(
  $$ select private.begin_completion(tests.get_supabase_uid('bob'), '{"kind": "openai", "model": "text-embedding-3-small"}') $$,
  'PT404', 'model_not_found'
);

select * from finish();
rollback;
