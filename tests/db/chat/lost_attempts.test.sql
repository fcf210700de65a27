begin;
select plan(14);
select tests.create_supabase_user('alice');
insert into private.workers (id, seen_at, swept_at) values (gen_random_uuid(), clock_timestamp() + interval '1 hour', now());
insert into public.ai_models (id, display_name, context_window, max_output) values ('dear', 'Dear', 8000, 2000);
insert into private.ai_routes (model, provider, provider_model, prompt_price, completion_price)
values ('dear', 'openrouter', 'dear', 1000000, 2000000);
create temporary table seen (name text primary key, id uuid, data jsonb);

select tests.authenticate_as('alice');
insert into public.characters (name, age, greeting) values ('Ada', 36, 'Good evening.');
select tests.become_postgres();
grant all on seen to authenticated;
select tests.authenticate_as('alice');
insert into seen (name, id)
select 'talk', c.id from public.start_conversation((select id from public.characters where owner_id = tests.get_supabase_uid('alice'))) as c;
update public.conversations set model_id = 'dear';
select tests.become_postgres();

-- A generation that is being written, of which the runner has told `usage` over the model's own route.
create function pg_temp.written(usage jsonb) returns uuid language plpgsql as $$
declare
  asked uuid;
  lease jsonb;
begin
  perform tests.authenticate_as('alice');
  asked := (public.send_message((select id from seen where name = 'talk'), 'Hello') #>> '{generation,id}')::uuid;
  perform tests.become_postgres();
  lease := private.claim_generation(asked);
  perform private.append_chunks(jsonb_build_array(lease || jsonb_build_object(
    'route_id', lease #>> '{routes,0,route_id}', 'usage', written.usage,
    'chunks', jsonb_build_array(jsonb_build_object('seq', 1, 'text', 'So'))
  )));
  update seen set data = lease where name = 'talk';
  return asked;
end;
$$;
create function pg_temp.attempts(generation uuid) returns text language sql as $$
  select string_agg(concat_ws(' ', a.attempt, a.outcome, a.cost_micro_usd, a.price_version, a.usage ->> 'estimated'), ', ' order by a.attempt, a.call)
  from private.generation_attempts as a where a.generation_id = attempts.generation;
$$;
create function pg_temp.expire() returns void language sql as $$
  update private.generation_leases set lease_until = clock_timestamp() - interval '1 second';
$$;

insert into seen (name, id) select 'reaped', pg_temp.written('{"prompt_tokens": 10, "completion_tokens": 2, "estimated": true}');
select is(pg_temp.attempts((select id from seen where name = 'reaped')), '1 14 1 true', 'the first words tell the route, and so the price');
select pg_temp.expire();
select private.reap_generations();
select is(pg_temp.attempts((select id from seen where name = 'reaped')), '1 lost 14 1 true', 'what a dead runner has used is paid by an estimate');
update private.ai_routes set completion_price = 9000000 where model = 'dear';
select is(
  private.claim_generation((select id from seen where name = 'reaped')) ->> 'spent_micro_usd', '14',
  'and counts towards the ceiling of the next attempt'
);
select results_eq(
  $$ select cost_micro_usd, estimated_calls from admin.model_costs where model = 'dear' $$, $$ values (14::numeric, 1::bigint) $$,
  'operators see it among the costs of the route, as an estimate'
);
update public.generations set max_attempts = 2;
select pg_temp.expire();
select private.reap_generations();
select is(
  (select usage from public.generations where id = (select id from seen where name = 'reaped')),
  '{"prompt_tokens": 10, "completion_tokens": 2, "cached_tokens": 0, "estimated": true}',
  'an attempt without a word adds nothing'
);

insert into seen (name, id) select 'taken', pg_temp.written('{"prompt_tokens": 10, "completion_tokens": 1, "estimated": true}');
select pg_temp.expire();
select private.claim_generation((select id from seen where name = 'taken'));
select is(pg_temp.attempts((select id from seen where name = 'taken')), '1 lost 19 2 true, 2', 'a runner that takes over leaves the bill of the one before');
select private.reap_generations(clock_timestamp() + interval '31 seconds');
select tests.authenticate_as('alice');
select public.cancel_generation((select id from seen where name = 'taken'));
select tests.become_postgres();

insert into seen (name, id) select 'stopped', pg_temp.written('{"prompt_tokens": 10, "completion_tokens": 1, "estimated": true}');
select pg_temp.expire();
select tests.authenticate_as('alice');
select public.cancel_generation((select id from seen where name = 'stopped'));
select tests.become_postgres();
select is(pg_temp.attempts((select id from seen where name = 'stopped')), '1 lost 19 2 true', 'and so does a cancellation of an answer that nobody writes any more');

-- An operator deletes a route while an answer comes over it.
insert into seen (name, id) select 'orphan', pg_temp.written('{"prompt_tokens": 10, "completion_tokens": 1, "estimated": true}');
delete from private.ai_routes where model = 'dear';
select is(
  private.append_chunks(jsonb_build_array(s.data || jsonb_build_object(
    'route_id', s.data #>> '{routes,0,route_id}', 'usage', jsonb_build_object('prompt_tokens', 10, 'completion_tokens', 3, 'estimated', true),
    'chunks', jsonb_build_array(jsonb_build_object('seq', 2, 'text', ' it goes.'))
  ))) #>> '{0,last_seq}', '2',
  'what comes over a route that is gone is kept'
) from seen as s where s.name = 'talk';
update private.generation_leases set lease_until = clock_timestamp() + interval '5 seconds';
select is(
  private.append_chunks(jsonb_build_array(s.data || jsonb_build_object(
    'route_id', s.data #>> '{routes,0,route_id}', 'usage', jsonb_build_object('prompt_tokens', 10, 'completion_tokens', 4, 'estimated', true),
    'chunks', jsonb_build_array(jsonb_build_object('seq', 3, 'text', ' On.'))
  ))) #>> '{0,last_seq}', '3',
  'also when its bill is renewed'
) from seen as s where s.name = 'talk';
select is(
  private.finish_generation(
    (select id from seen where name = 'orphan'), 1, (s.data ->> 'lease_token')::uuid,
    jsonb_build_object('status', 'completed', 'route_id', s.data #>> '{routes,0,route_id}', 'usage', '{"prompt_tokens": 9, "completion_tokens": 4}'::jsonb)
  ) #>> '{message,content}', 'So it goes. On.',
  'the answer is whole'
) from seen as s where s.name = 'talk';
select is(
  (select usage from public.generations where id = (select id from seen where name = 'orphan')),
  '{"prompt_tokens": 9, "completion_tokens": 4, "cached_tokens": 0, "estimated": false}',
  'and metered, by the provider''s figures'
);

-- A model that says nothing has been given the prompt all the same.
insert into private.ai_routes (model, provider, provider_model, prompt_price, completion_price)
values ('dear', 'openrouter', 'dear', 1000000, 2000000);
select tests.authenticate_as('alice');
insert into seen (name, id)
select 'silent', (public.send_message((select id from seen where name = 'talk'), 'Hello') #>> '{generation,id}')::uuid;
select tests.become_postgres();
update seen set data = private.claim_generation(id) where name = 'silent';
create function pg_temp.beat() returns void language sql as $$
  select private.append_chunks(jsonb_build_array(data || jsonb_build_object(
    'route_id', data #>> '{routes,0,route_id}', 'usage', '{"prompt_tokens": 10, "completion_tokens": 0, "estimated": true}'::jsonb
  ))) from seen where name = 'silent';
$$;
select pg_temp.beat();
update private.generation_leases set lease_until = clock_timestamp() + interval '28 seconds';
select pg_temp.beat();
select is(pg_temp.attempts((select id from seen where name = 'silent')), '1 10 1 true', 'the beat that extends the lease tells what it was asked');
select private.finish_generation(id, 1, (data ->> 'lease_token')::uuid, '{"status": "retry", "retry_after_seconds": 0, "usage": null}') from seen where name = 'silent';
select is(pg_temp.attempts((select id from seen where name = 'silent')), '1 retry', 'a runner whose call is on a row of its own says that this one has none');
update seen set data = private.claim_generation(id) where name = 'silent';
update private.generation_leases set lease_until = clock_timestamp() + interval '28 seconds';
select pg_temp.beat();
select private.finish_generation(id, 2, (data ->> 'lease_token')::uuid, '{"status": "failed"}') from seen where name = 'silent';
select is(pg_temp.attempts((select id from seen where name = 'silent')), '1 retry, 2 failed 10 1 true', 'and without a word the last beat counts');

select * from finish();
rollback;
