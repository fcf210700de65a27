begin;
select plan(15);
select tests.create_supabase_user('alice');
select tests.create_supabase_user('bob');
delete from private.outbox;
delete from private.event_handlers;
create temporary table heard (handler text, events jsonb);
create function pg_temp.hear(events jsonb) returns void language sql as $$ insert into heard values ('hear', events) $$;
create function pg_temp.choke(events jsonb) returns void language plpgsql as $$
begin
  if events::text like '%poison%' then raise exception 'it choked'; end if;
  insert into heard values ('choke', events);
end $$;
insert into private.event_handlers (name, kinds, function, max_attempts, meaning) values
  ('hear', 'thing\..+', 'pg_temp.hear(jsonb)', 3, 'Test.'), ('choke', 'thing\.happened', 'pg_temp.choke(jsonb)', 3, 'Test.');

select private.emit_event('thing.happened', gen_random_uuid(), jsonb_build_object('n', n), tests.get_supabase_uid('alice'))
from generate_series(1, 3) as n;
select private.emit_event('thing.happened', gen_random_uuid(), '{"n": 4}', tests.get_supabase_uid('bob'));
select private.emit_event('other.happened', gen_random_uuid(), '{}', tests.get_supabase_uid('bob'));
select is(private.deliver_events(), 5, 'all that waits is taken');
select is((select count(*) from heard where handler = 'hear'), 2::bigint, 'a handler is called once for each person');
select is(
  (select array_agg(e #>> '{payload,n}' order by o) from heard, jsonb_array_elements(events) with ordinality as x (e, o)
   where handler = 'hear' and jsonb_array_length(events) = 3),
  array['1', '2', '3'], 'with their events in order'
);
select is((select count(*) from private.outbox where processed_at is null), 0::bigint, 'what nobody wants is done with as well');
select is(private.deliver_events(), 0, 'and nothing comes twice');

truncate heard;
select private.emit_event('thing.happened', gen_random_uuid(), '{"n": "poison"}', tests.get_supabase_uid('alice'));
select private.emit_event('thing.happened', gen_random_uuid(), '{"n": "fine"}', tests.get_supabase_uid('alice'));
select private.deliver_events();
select is((select array_agg(handler) from heard), array['hear'], 'a handler that fails keeps no other from the events');
select is(
  (select count(*) from private.event_retries where handler = 'choke' and attempts = 1 and due_at > clock_timestamp()), 2::bigint,
  'and tries again later'
);
select private.deliver_events(at => clock_timestamp() + interval '1 minute');
select is((select array_agg(handler) from heard), array['hear', 'choke'], 'then each event alone, so that a bad one keeps no good one');
select is((select attempts from private.event_retries), 2::smallint, 'the bad one is counted');
select ok((select due_at is not null from private.event_retries), 'and tried once more');
select private.deliver_events(at => clock_timestamp() + interval '1 hour');
select results_eq(
  $$ select handler, attempts, error from admin.dead_events $$,
  $$ values ('choke', 3::smallint, 'P0001 it choked') $$,
  'when its attempts are used up it is dead, with its error'
);
select is(private.deliver_events(at => clock_timestamp() + interval '1 year'), 0, 'and left alone');
select is(admin.redrive_events('choke'), 1, 'until an admin gives it to its handler again');
select is(private.deliver_events(at => clock_timestamp() + interval '1 second'), 1, 'which gets it');

delete from private.outbox;
select is((select count(*) from private.event_retries), 0::bigint, 'a retry goes with its event');

select * from finish();
rollback;
