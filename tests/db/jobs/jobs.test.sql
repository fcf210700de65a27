begin;
select plan(34);
select tests.create_supabase_user('alice');
select tests.create_supabase_user('bob');
-- A worker seems to be alive, so that nothing is called.
insert into private.workers (id, seen_at, swept_at) values (gen_random_uuid(), clock_timestamp() + interval '1 hour', now());

create temporary table seen (name text primary key, id uuid, data jsonb);
grant select, insert, update on seen to service_role, authenticated;

insert into seen (name, id) values
  ('job', private.enqueue_job('erase', tests.get_supabase_uid('alice'), '{"n": 1}', dedupe_key => 'one'));
select is(
  private.enqueue_job('erase', tests.get_supabase_uid('alice'), '{"n": 2}', dedupe_key => 'one'),
  (select id from seen where name = 'job'),
  'the same dedupe key returns the open job'
);
select isnt(
  private.enqueue_job('erase', null, '{}', dedupe_key => 'two', delay => '1 hour'),
  (select id from seen where name = 'job'),
  'another dedupe key makes another job'
);
select throws_ok(
  $$ select private.enqueue_job('unheard_of', null, '{}') $$, 'P0001', null,
  'a job of an unknown kind is refused'
);

select tests.authenticate_as('alice');
select results_eq(
  $$ select kind, status::text, attempts::smallint from public.jobs $$,
  $$ values ('erase', 'waiting', 0::smallint) $$,
  'an owner sees their job waiting'
);
select tests.authenticate_as('bob');
select is_empty($$ select 1 from public.jobs $$, 'a stranger sees no job');
select throws_ok(
  $$ select private.enqueue_job('erase', null, '{}') $$, '42501', null,
  'a signed-in user cannot enqueue'
);

select tests.authenticate_as_service_role();
insert into seen (name, data) select 'claim', service.claim_jobs('00000000-0000-4000-8000-00000000000a', 5);
select is(
  (select jsonb_array_length(data) from seen where name = 'claim'), 1,
  'a worker gets what is visible and not what is delayed'
);
select is(
  (select data -> 0 ->> 'attempt' from seen where name = 'claim'), '1',
  'a claim counts an attempt'
);
select is(
  service.claim_jobs('00000000-0000-4000-8000-00000000000b', 5), '[]',
  'a second worker gets nothing'
);
select is(
  service.finish_job(
    (select (data #>> '{0,job_id}')::uuid from seen where name = 'claim'), gen_random_uuid(), '{"status": "completed"}'
  ),
  '{"status": "lost_lease"}',
  'a wrong lease token finishes nothing'
);
select is(
  service.extend_jobs(
    '00000000-0000-4000-8000-00000000000a',
    (select jsonb_build_array(data -> 0 || '{"progress": 40}') from seen where name = 'claim')
  ) #>> '{0,lease_lost}',
  'false',
  'the holder extends its lease'
);
select is(
  service.extend_jobs(
    '00000000-0000-4000-8000-00000000000b',
    (select jsonb_build_array(data -> 0 || jsonb_build_object('lease_token', gen_random_uuid())) from seen where name = 'claim')
  ) #>> '{0,lease_lost}',
  'true',
  'a stale token is told that its lease is lost'
);

select tests.authenticate_as('alice');
select results_eq(
  $$ select status::text, progress::smallint from public.jobs $$,
  $$ values ('active', 40::smallint) $$,
  'the owner sees it active, and how far it is'
);

select tests.authenticate_as_service_role();
select is(
  service.finish_job(
    (select (data #>> '{0,job_id}')::uuid from seen where name = 'claim'),
    (select (data #>> '{0,lease_token}')::uuid from seen where name = 'claim'),
    '{"status": "retry", "retry_after_seconds": 0, "error": {"code": "busy"}}'
  ),
  '{"status": "waiting"}',
  'a retry puts the job back'
);
select is(
  service.finish_job(
    (select (data #>> '{0,job_id}')::uuid from seen where name = 'claim'),
    (select (data #>> '{0,lease_token}')::uuid from seen where name = 'claim'),
    '{"status": "completed"}'
  ),
  '{"status": "lost_lease"}',
  'after a retry the old token is stale'
);
update seen set data = service.claim_jobs('00000000-0000-4000-8000-00000000000a', 5) where name = 'claim';
select is(
  (select data -> 0 ->> 'attempt' from seen where name = 'claim'), '2',
  'the next claim is the second attempt'
);
select is(
  service.release_jobs('00000000-0000-4000-8000-00000000000a'), '{"released": 1}',
  'a worker that stops hands back what it holds'
);
update seen set data = service.claim_jobs('00000000-0000-4000-8000-00000000000b', 5) where name = 'claim';
select is(
  (select data -> 0 ->> 'attempt' from seen where name = 'claim'), '2',
  'a hand-back costs no attempt'
);

select tests.become_postgres();
update public.jobs set attempts = max_attempts where id = (select id from seen where name = 'job');
select tests.authenticate_as_service_role();
select is(
  service.finish_job(
    (select id from seen where name = 'job'),
    (select (data #>> '{0,lease_token}')::uuid from seen where name = 'claim'),
    '{"status": "retry", "error": {"code": "busy"}}'
  ),
  '{"status": "failed"}',
  'a retry after the last attempt fails the job'
);
select tests.become_postgres();
select is(
  (select count(*) from pgmq.a_jobs where message ->> 'job_id' = (select id::text from seen where name = 'job')), 1::bigint,
  'its message is a dead letter'
);
select throws_ok(
  $$ update public.jobs set status = 'completed' where id = (select id from seen where name = 'job') $$,
  'PT409', 'status_edge_forbidden',
  'a failed job cannot become completed'
);
select is(
  (admin.redrive_job((select id from seen where name = 'job'))).status, 'waiting',
  'an admin sends a dead letter again'
);
select is(
  (select count(*) from pgmq.a_jobs where message ->> 'job_id' = (select id::text from seen where name = 'job')), 0::bigint,
  'and it is a dead letter no more'
);
select throws_ok(
  $$ select admin.redrive_job((select id from seen where name = 'job')) $$, 'PT409', 'job_not_failed',
  'a job that waits cannot be sent again'
);
select throws_ok(
  $$ select admin.redrive_job(gen_random_uuid()) $$, 'PT404', 'job_not_found',
  'a job that does not exist cannot be sent again'
);

-- A worker that dies at every attempt.
update public.jobs set attempts = max_attempts where id = (select id from seen where name = 'job');
select tests.authenticate_as_service_role();
select is(
  service.claim_jobs('00000000-0000-4000-8000-00000000000c', 5), '[]',
  'a job whose attempts are used up is not given out again'
);
select tests.become_postgres();
select is(
  (select status from public.jobs where id = (select id from seen where name = 'job')), 'failed',
  'it has failed instead'
);

insert into seen (name, id) values ('retried', private.enqueue_job('erase', null, '{}'));
select tests.authenticate_as_service_role();
update seen set data = service.claim_jobs('00000000-0000-4000-8000-00000000000d', 5) where name = 'claim';
select service.finish_job((data #>> '{0,job_id}')::uuid, (data #>> '{0,lease_token}')::uuid, '{"status": "retry"}')
from seen where name = 'claim';
select tests.become_postgres();
select ok(
  (
    select q.vt - clock_timestamp() between interval '0' and interval '1 second'
    from pgmq.q_jobs as q where q.message ->> 'job_id' = (select id::text from seen where name = 'retried')
  ),
  'a retry without a given delay waits for its backoff'
);

-- What a stage has, whoever writes: one wrong step for each rule.
create function pg_temp.change(assignments text) returns text language sql as $$
  select format('update private.job_work set %s where job_id = %L', assignments, id) from seen where name = 'retried'
$$;
select throws_ok(step, '23514', null, 'no job is ' || wrong)
from (
  values
    (pg_temp.change('due_at = now()'), 'due that is queued'),
    (pg_temp.change($$stage = 'delayed', msg_id = null$$), 'delayed without a time'),
    (pg_temp.change('msg_id = null'), 'queued without a message'),
    (pg_temp.change($$stage = 'waiting'$$), 'waiting with a message'),
    (pg_temp.change($$stage = 'dead', lease_token = gen_random_uuid()$$), 'dead with a lease')
) as steps (step, wrong);

select is(
  (select count(*) from public.jobs where finished_at is not null) - private.prune_jobs(now() + interval '31 days'), 0::bigint,
  'ended jobs are dropped after thirty days'
);

select * from finish();
rollback;
