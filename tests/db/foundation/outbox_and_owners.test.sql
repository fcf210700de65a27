begin;
select plan(9);
select tests.create_supabase_user('alice');
delete from private.outbox;

select private.emit_event('thing.happened', gen_random_uuid(), '{"a": 1}', tests.get_supabase_uid('alice'));
select results_eq(
  $$ select kind, user_id, payload, processed_at from private.outbox $$,
  $$ values ('thing.happened', tests.get_supabase_uid('alice'), '{"a": 1}'::jsonb, null::timestamptz) $$,
  'an event waits in the outbox'
);
select throws_ok(
  $$ select private.emit_event('Happened', gen_random_uuid(), '{}') $$, '23514', null, 'a kind is dotted and lower case'
);
select throws_ok(
  $$ select private.emit_event('thing.happened', gen_random_uuid(), '[]') $$, '23514', null, 'a payload is an object'
);
select is(private.prune_outbox(now() + interval '29 days'), 0::bigint, 'an unhandled event is kept for a month');
select is(private.prune_outbox(now() + interval '31 days'), 1::bigint, 'and then dropped');
select private.emit_event('thing.happened', gen_random_uuid(), '{}');
update private.outbox set processed_at = now();
select is(private.prune_outbox(now() + interval '8 days'), 1::bigint, 'a handled event is dropped after a week');

select is(
  private.owner_of(tests.get_supabase_uid('alice')), private.owner_of(tests.get_supabase_uid('alice')),
  'a person has one owner'
);
create temporary table remembered as select private.owner_of(tests.get_supabase_uid('alice')) as id;
delete from auth.users where id = tests.get_supabase_uid('alice');
select is((select count(*) from private.owners as o join remembered using (id)), 1::bigint, 'an owner outlives the user');
select is((select o.user_id from private.owners as o join remembered using (id)), null, 'nameless');

select * from finish();
rollback;
