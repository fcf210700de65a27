begin;
select plan(8);
delete from private.workers;
delete from net.http_request_queue;
select vault.create_secret('http://127.0.0.1:9/worker', 'worker_url')
where not exists (select from vault.secrets where name = 'worker_url');
select vault.create_secret('a secret', 'worker_secret')
where not exists (select from vault.secrets where name = 'worker_secret');
update private.worker_wake_up set called_at = '-infinity';

select ok(not private.sweep_jobs(), 'nobody is called while nothing waits');
select lives_ok(
  $$ select private.enqueue_job('erase', null, '{}', delay => '1 hour') $$, 'a delayed job is made'
);
select is((select count(*) from net.http_request_queue), 0::bigint, 'and wakes nobody');
select lives_ok(
  $$ select private.enqueue_job('erase', null, '{}') from generate_series(1, 100) $$, 'a hundred jobs arrive at once'
);
select is((select count(*) from net.http_request_queue), 1::bigint, 'and make one call');

update private.worker_wake_up set called_at = clock_timestamp() - interval '6 seconds';
select ok(private.sweep_jobs(), 'a lost call is made good by the sweep');

update private.worker_wake_up set called_at = clock_timestamp() - interval '6 seconds';
insert into private.workers (id, seen_at, swept_at) values (gen_random_uuid(), clock_timestamp(), clock_timestamp());
select ok(not private.sweep_jobs(), 'nobody is called while a worker is alive');
update private.workers set seen_at = clock_timestamp() - interval '11 seconds';
select ok(private.sweep_jobs(), 'a worker that was silent for ten seconds counts as dead');

select * from finish();
rollback;
