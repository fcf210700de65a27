begin;
select plan(24);
select tests.create_supabase_user('alice');
select tests.create_supabase_user('bob');
insert into private.workers (id, seen_at, swept_at) values (gen_random_uuid(), clock_timestamp() + interval '1 hour', now());
create temporary table made (name text primary key, id uuid);
grant select, insert, update on made to service_role, authenticated;
create function pg_temp.id_of(name text) returns uuid language sql as $$ select id from made where made.name = id_of.name $$;
create function pg_temp.stages(person text) returns text language sql as $$
  select string_agg(w.stage, ' ' order by w.job_id) from private.job_work as w where w.owner_id = tests.get_supabase_uid(person)
$$;
create function pg_temp.claim(slots integer) returns text[] language sql as $$
  select coalesce(array_agg(m.name order by c.n), '{}')
  from jsonb_array_elements(private.claim_jobs('00000000-0000-4000-8000-00000000000a', slots)) with ordinality as c (job, n)
  join made as m on m.id = (c.job ->> 'job_id')::uuid
$$;
create function pg_temp.finish(name text, outcome jsonb) returns text language sql as $$
  select private.finish_job(w.job_id, w.lease_token, outcome) ->> 'status' from private.job_work as w where w.job_id = pg_temp.id_of(name)
$$;

insert into made select n, private.enqueue_job('erase', tests.get_supabase_uid('alice'), '{}')
from unnest(array['a1', 'a2', 'a3', 'a4', 'a5']) as n;
select is(pg_temp.stages('alice'), 'queued queued waiting waiting waiting', 'two messages of a person enter the queue, the rest wait');
insert into made select n, private.enqueue_job('erase', tests.get_supabase_uid('bob'), '{}') from unnest(array['b1']) as n;
insert into made select 's' || n, private.enqueue_job('erase', null, '{}') from generate_series(1, 4) as n;
select is(
  pg_temp.claim(100), array['a1', 'a2', 'b1', 's1', 's2', 's3', 's4'],
  'nobody else waits for those of one person; the system''s are all in the queue'
);
select is((select status from public.jobs where id = pg_temp.id_of('a3')), 'waiting', 'a job without a message is shown as waiting');

select is(pg_temp.finish('a1', '{"status": "completed"}'), 'completed', 'one of them ends');
select is(pg_temp.claim(100), array['a3'], 'and its owner''s next takes the seat');
select is(pg_temp.finish('a3', '{"status": "failed", "error": {"code": "x"}}'), 'failed', 'one fails');
select is(pg_temp.claim(100), array['a4'], 'and its owner''s next takes the seat');
select is(pg_temp.finish('a4', '{"status": "retry", "retry_after_seconds": 60}'), 'waiting', 'one waits for its retry');
select is(pg_temp.claim(100), array['a5'], 'and meanwhile its owner''s next has the seat');
select is(pg_temp.stages('alice'), 'queued dead delayed queued', 'so a retry far away keeps nobody');

select is(private.admit_due_jobs(clock_timestamp() + interval '61 seconds'), 1, 'the retry becomes due');
select is(pg_temp.stages('alice'), 'queued dead waiting queued', 'and stands in line');
select is(pg_temp.finish('a5', '{"status": "completed"}'), 'completed', 'until a seat is free');
select is(pg_temp.claim(100), array['a4'], 'and is given out again');

-- Priorities.
select private.finish_job(w.job_id, w.lease_token, '{"status": "completed"}') from private.job_work as w where w.lease_token is not null;
insert into made values
  ('low', private.enqueue_job('erase', null, '{}', priority => 'low')),
  ('normal', private.enqueue_job('erase', null, '{}')),
  ('high', private.enqueue_job('erase', null, '{}', priority => 'high'));
select is(pg_temp.claim(100), array['high', 'normal', 'low'], 'with slots for all, the higher priority is first');
insert into made values
  ('b2', private.enqueue_job('erase', tests.get_supabase_uid('bob'), '{}')),
  ('b3', private.enqueue_job('erase', tests.get_supabase_uid('bob'), '{}')),
  ('b4', private.enqueue_job('erase', tests.get_supabase_uid('bob'), '{}')),
  ('b5', private.enqueue_job('erase', tests.get_supabase_uid('bob'), '{}', priority => 'high'));
select pg_temp.claim(100);
select pg_temp.finish('b2', '{"status": "completed"}');
select is(pg_temp.claim(100), array['b5'], 'a person''s own line is in order of priority');
select throws_ok(
  $$ select private.enqueue_job('erase', null, '{}', priority => 'urgent') $$, 'P0001', null, 'there are three priorities'
);

-- Batches.
select is(
  cardinality(private.enqueue_jobs('erase', tests.get_supabase_uid('alice'), array_fill('{}'::jsonb, array[10]))), 10,
  'many jobs are made at once'
);
select is(
  (select count(*) from private.job_work where owner_id = tests.get_supabase_uid('alice') and stage = 'queued'), 2::bigint,
  'and of these, too, two enter the queue'
);
create temporary table batch as
select unnest(private.enqueue_jobs('erase', null, array_fill('{}'::jsonb, array[50]), priority => 'low')) as id;
select is(
  (
    select count(*) from batch as b join private.job_work as w on w.job_id = b.id
    join pgmq.q_jobs_low as q on q.msg_id = w.msg_id and q.message ->> 'job_id' = b.id::text
  ),
  50::bigint,
  'each job of a batch knows its own message'
);

-- Repairs.
update private.job_work set stage = 'waiting', msg_id = null where owner_id = tests.get_supabase_uid('alice') and stage = 'queued';
select is(private.repair_admission(), 2, 'the sweep admits whoever was left standing');
select is(private.repair_admission(), 0, 'once');

-- Metrics.
select results_eq(
  $$
    select depth, not_admitted, in_flight, dead from admin.queue_metrics where kind = 'erase' and priority = 'normal'
  $$,
  $$
    select count(*) filter (where stage <> 'dead'), count(*) filter (where stage = 'waiting'),
      count(*) filter (where lease_token is not null), count(*) filter (where stage = 'dead')
    from private.job_work where priority = 2
  $$,
  'metrics say how deep the queue is'
);

delete from public.profiles where id = tests.get_supabase_uid('alice');
select is(
  (select count(*) from private.job_work where stage in ('waiting', 'delayed') and owner_id is null), 0::bigint,
  'jobs of a person who is gone go on as the system''s'
);

select * from finish();
rollback;
