begin;
select plan(20);
select tests.create_supabase_user('alice');
select tests.create_supabase_user('bob');
insert into private.workers (id, seen_at, swept_at) values (gen_random_uuid(), clock_timestamp() + interval '1 hour', now());
create temporary table seen (name text primary key, id uuid, data jsonb);
grant select, insert, update on seen to service_role, authenticated;
create function pg_temp.id_of(name text) returns uuid language sql as $$ select id from seen where seen.name = id_of.name $$;
create function pg_temp.finish(name text, outcome jsonb) returns text language sql as $$
  select private.finish_job(w.job_id, w.lease_token, outcome) ->> 'status' from private.job_work as w where w.job_id = pg_temp.id_of(name)
$$;
insert into private.job_kinds (kind, max_attempts, is_alarm, meaning) values ('bell', 1, true, 'For this test.');

insert into seen (name, id) values
  ('one', private.enqueue_job('erase', tests.get_supabase_uid('alice'), '{}')),
  ('two', private.enqueue_job('erase', tests.get_supabase_uid('alice'), '{}')),
  ('three', private.enqueue_job('erase', tests.get_supabase_uid('alice'), '{}')),
  ('bell', private.enqueue_job('bell', tests.get_supabase_uid('alice'), '{}', delay => '1 hour'));

select tests.authenticate_as('bob');
select throws_ok(
  $$ select public.cancel_job(pg_temp.id_of('one')) $$, 'PT404', 'job_not_found', 'a stranger cannot cancel it'
);
select tests.authenticate_as('alice');
select is(
  public.cancel_job(pg_temp.id_of('one')) - 'job_id', '{"status": "cancelled", "cancel_requested": false}',
  'a job that waits is cancelled at once'
);
select is(
  public.cancel_job(pg_temp.id_of('one')) - 'job_id', '{"status": "cancelled", "cancel_requested": false}', 'twice is once'
);
select throws_ok(
  $$ select public.cancel_job(pg_temp.id_of('bell')) $$, 'PT409', 'job_cancelled_elsewhere',
  'an alarm is cancelled where its state is'
);
select tests.become_postgres();
select is(
  (select array_agg(stage::text order by job_id) from private.job_work where job_id in (pg_temp.id_of('two'), pg_temp.id_of('three'))),
  array['queued', 'queued'], 'its seat is given on'
);

select private.claim_jobs('00000000-0000-4000-8000-00000000000a', 5);
select tests.authenticate_as('alice');
select is(
  public.cancel_job(pg_temp.id_of('two')) - 'job_id', '{"status": "active", "cancel_requested": true}',
  'a job that runs is asked to stop'
);
select tests.become_postgres();
select is(
  private.extend_jobs(
    '00000000-0000-4000-8000-00000000000a',
    (select jsonb_build_array(jsonb_build_object('job_id', job_id, 'lease_token', lease_token)) from private.job_work where job_id = pg_temp.id_of('two'))
  ) #> '{0,cancel_requested}',
  'true', 'its worker is told with the next heartbeat'
);
select is(pg_temp.finish('two', '{"status": "retry"}'), 'cancelled', 'and whatever it answers, there is no retry');

select tests.authenticate_as('alice');
select public.cancel_job(pg_temp.id_of('three'));
select tests.become_postgres();
select is(pg_temp.finish('three', '{"status": "completed", "result": {"n": 1}}'), 'completed', 'unless it was done already');
select is((select result from public.jobs where id = pg_temp.id_of('three')), '{"n": 1}', 'and then its result counts');
select is((select count(*) from private.job_work where job_id in (pg_temp.id_of('two'), pg_temp.id_of('three'))), 0::bigint, 'the queue forgets both');

-- A worker that died although it was asked to stop.
insert into seen (name, id) values ('four', private.enqueue_job('erase', tests.get_supabase_uid('bob'), '{}'));
select private.claim_jobs('00000000-0000-4000-8000-00000000000a', 5);
select tests.authenticate_as('bob');
select public.cancel_job(pg_temp.id_of('four'));
select tests.become_postgres();
update pgmq.q_jobs set vt = clock_timestamp() - interval '1 second';
select is(private.claim_jobs('00000000-0000-4000-8000-00000000000b', 5), '[]', 'what was to stop is not given to the next worker');
select is((select status from public.jobs where id = pg_temp.id_of('four')), 'cancelled', 'it is cancelled instead');

-- Dead letters.
insert into seen (name, id) select 'dead ' || n, private.enqueue_job('erase', tests.get_supabase_uid('bob'), '{"a": 1}') from generate_series(1, 3) as n;
select private.claim_jobs('00000000-0000-4000-8000-00000000000a', 5);
select pg_temp.finish('dead 1', '{"status": "failed", "error": {"code": "broken"}}');
select pg_temp.finish('dead 2', '{"status": "failed", "error": {"code": "broken"}}');
select private.claim_jobs('00000000-0000-4000-8000-00000000000a', 5);
select pg_temp.finish('dead 3', '{"status": "failed", "error": {"code": "broken"}}');
select results_eq(
  $$ select payload, error ->> 'code' from admin.dead_letters where kind = 'erase' $$,
  $$ values ('{"a": 1}'::jsonb, 'broken'), ('{"a": 1}'::jsonb, 'broken'), ('{"a": 1}'::jsonb, 'broken') $$,
  'a dead letter shows what was to be done and why it was not'
);
select is(admin.redrive_jobs('erase', 2), 2, 'dead letters of a kind are sent again, a batch at a time');
select is(admin.redrive_jobs('erase'), 1, 'until none is left');
select is(
  (select array_agg(stage::text order by job_id) from private.job_work where owner_id = tests.get_supabase_uid('bob')),
  array['queued', 'queued', 'waiting'], 'and their owner''s seats hold for them too'
);
select is((select count(*) from pgmq.a_jobs), 0::bigint, 'the archive forgets them');

-- Retention.
insert into seen (name, id) values ('old', private.enqueue_job('erase', null, '{}'));
select private.claim_jobs('00000000-0000-4000-8000-00000000000a', 50);
select pg_temp.finish('old', '{"status": "failed"}');
select private.prune_jobs(now() + interval '29 days');
select is((select count(*) from admin.dead_letters), 1::bigint, 'a dead letter is kept for thirty days');
select private.prune_jobs(now() + interval '31 days');
select is((select count(*) from admin.dead_letters) + (select count(*) from private.job_work where stage = 'dead'), 0::bigint, 'and dropped then');

select * from finish();
rollback;
