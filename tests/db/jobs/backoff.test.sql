begin;
select plan(5);

select is(private.backoff(1, 1), interval '1 second', 'the first retry waits a second at most');
select is(private.backoff(1, 0), interval '0.5 seconds', 'and half of it at least');
select is(private.backoff(4, 1), interval '8 seconds', 'each further one waits twice as long');
select is(private.backoff(40, 1), interval '5 minutes', 'up to the cap');
select is_empty(
  $$
    select a, r from generate_series(-3, 60) as a cross join unnest(array[-1, 0, 0.3, 0.99, 1, 7]) as r
    where private.backoff(a, r) not between interval '0.5 seconds' and interval '5 minutes'
  $$,
  'whatever comes in, the wait has bounds'
);

select * from finish();
rollback;
