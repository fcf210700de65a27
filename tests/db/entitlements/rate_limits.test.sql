begin;
select plan(20);
select tests.create_supabase_user('alice');
create temporary table people as select tests.get_supabase_uid('alice') as alice;
grant select on people to public;

-- Ten tokens, two more each second.
create function pg_temp.take(seconds double precision, cost integer default 1) returns text language sql volatile as $$
  select format('%s %s %s %s', t.allowed, t.remaining, round(t.retry_after::numeric, 3), round(t.reset::numeric, 3))
  from private.take_token('bucket', 10, 2, cost, '2026-11-24T12:00:00Z'::timestamptz + make_interval(secs => seconds)) as t;
$$;

select is(pg_temp.take(0), 't 9  0.500', 'a new bucket is full');
select is(pg_temp.take(0, 8), 't 1  4.500', 'a dear request takes more');
select is(pg_temp.take(0, 2), 'f 1 0.500 4.500', 'what is not there is not given, and it says when to come back');
select is(pg_temp.take(0, 1), 't 0  5.000', 'and was not taken');
select is(pg_temp.take(0.25), 'f 0 0.250 4.750', 'half a token is none');
select is(pg_temp.take(0.5), 't 0  5.000', 'it comes back at the moment that was said');
select is(pg_temp.take(3), 't 4  3.000', 'the bucket fills while nobody takes');
select is(pg_temp.take(100), 't 9  0.500', 'up to its brim and no further');
select is(pg_temp.take(100, 11), 'f 9  0.500', 'more than a bucket holds never comes');
select is(pg_temp.take(50), 'f 0 0.500 5.000', 'after a clock was set back a bucket is empty at worst');
select is(
  (select (taken, refused)::text from private.rate_buckets where key = 'bucket'), '(6,4)', 'both outcomes are counted'
);

select is(private.prune_rate_buckets('2026-11-24T12:01:40Z') >= 0, true, 'a sweep');
select isnt_empty($$ select from private.rate_buckets where key = 'bucket' $$, 'leaves a bucket that is not full');
select private.prune_rate_buckets('2026-11-24T12:01:41Z');
select is_empty($$ select from private.rate_buckets where key = 'bucket' $$, 'and takes one that is');
select is(
  (select (day, subject, taken, refused)::text from private.rate_hits where route = 'bucket'),
  '(2026-11-24,visitors,6,4)', 'whose counts stay'
);

select tests.authenticate_as_service_role();
select is(
  (select (r - 'reset_seconds')::text from service.take_rate('chat/messages', (select alice from people), '192.0.2.1') as r),
  '{"plan": "free", "limit": 120, "allowed": true, "remaining": 119, "refill_per_second": 4, "retry_after_seconds": null}',
  'a route without a rule has the rule of all routes'
);
select tests.become_postgres();
insert into private.rate_rules (route, plan_id, capacity, refill_per_second) values ('chat/messages', 'plus', 1, 0.1);
select admin.set_plan((select alice from people), 'plus');
select tests.authenticate_as_service_role();
select is(
  (select r ->> 'remaining' from service.take_rate('chat/messages', (select alice from people), '192.0.2.1') as r), '0',
  'a rule of its own holds for the plan that it names'
);
select is(
  (select r ->> 'retry_after_seconds' from service.take_rate('chat/messages', (select alice from people), '192.0.2.1') as r), '10',
  'and refuses what is too much'
);
select is(
  (select r ->> 'remaining' from service.take_rate('chat/messages', null, '192.0.2.1') as r), '119',
  'a visitor has a bucket by address'
);
select tests.become_postgres();
select results_eq(
  $$ select route, subject, taken, refused from admin.rate_hits
    where subject = 'user:' || (select alice from people) or route = '*' and subject = 'visitors' order by route collate "C", subject $$,
  $$ values ('*', 'user:' || (select alice from people), 1::bigint, 0::bigint), ('*', 'visitors', 1, 0),
    ('chat/messages', 'user:' || (select alice from people), 1, 1) $$,
  'admins see who was let through and refused where'
);

select * from finish();
rollback;
