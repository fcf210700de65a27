begin;
select plan(50);
select tests.create_supabase_user('alice');
insert into private.workers (id, seen_at, swept_at) values (gen_random_uuid(), clock_timestamp() + interval '1 hour', now());
create temporary table seen (name text primary key, id uuid, data jsonb);
grant select, insert, update on seen to authenticated, service_role;

select tests.authenticate_as('alice');
insert into public.characters (name, age, greeting) values ('Ada', 36, 'Good evening.');
update public.character_definitions set system_instruction = 'You are Ada.';
insert into seen (name, id)
select 'talk', c.id from public.start_conversation((select id from public.characters where owner_id = tests.get_supabase_uid('alice'))) as c;

select tests.become_postgres();
-- Sends a message as alice and keeps the generation's id.
create function pg_temp.ask(run text default 'inline') returns uuid language plpgsql as $$
declare
  asked uuid;
begin
  perform tests.authenticate_as('alice');
  asked := (public.send_message((select id from seen where name = 'talk'), 'Hello', null, run) #>> '{generation,id}')::uuid;
  perform tests.authenticate_as_service_role();
  return asked;
end;
$$;
create function pg_temp.chunks(lease jsonb, chunks jsonb) returns jsonb language sql as $$
  select service.append_chunks(jsonb_build_array(lease || jsonb_build_object('chunks', chunks))) -> 0;
$$;
create function pg_temp.finish(lease jsonb, outcome jsonb) returns jsonb language sql as $$
  select service.finish_generation(
    (lease ->> 'generation_id')::uuid, (lease ->> 'attempt')::integer, (lease ->> 'lease_token')::uuid, outcome
  );
$$;
grant execute on all functions in schema pg_temp to service_role, authenticated;

-- An answer from start to end.
insert into seen (name, id) values ('one', pg_temp.ask());
insert into seen (name, data) values ('lease', service.claim_generation((select id from seen where name = 'one')));
select is((select data ->> 'attempt' from seen where name = 'lease'), '1', 'the first claim is the first attempt');
select is(
  (
    select jsonb_agg(m.said - 'id' - 'author_id' order by m.n)
    from seen, jsonb_array_elements(data #> '{prompt,messages}') with ordinality as m (said, n)
    where name = 'lease'
  ),
  '[{"role": "assistant", "content": "Good evening.", "is_greeting": true}, {"role": "user", "name": "alice", "content": "Hello"}]',
  'the prompt holds the branch from its root'
);
select is(
  (select data #>> '{prompt,character,system_instruction}' from seen where name = 'lease'), 'You are Ada.',
  'and the definition of the character'
);
select is(
  (select data #>> '{routes,0,api_key_env}' from seen where name = 'lease'), 'OPENROUTER_API_KEY',
  'routes name the variables of the provider'
);
select is(service.claim_generation((select id from seen where name = 'one')), null, 'a second runner gets nothing');
select is(
  (select pg_temp.chunks(data, '[{"seq": 1, "text": "Hel"}, {"seq": 2, "text": "lo"}]') ->> 'last_seq' from seen where name = 'lease'),
  '2', 'chunks are appended'
);
select is(
  (select pg_temp.chunks(data, '[{"seq": 2, "text": "XX"}, {"seq": 3, "text": "!"}]') ->> 'last_seq' from seen where name = 'lease'),
  '3', 'a chunk that is there already is skipped'
);
select is(
  (select pg_temp.chunks(data, '[{"seq": 5, "text": "gap"}]') ->> 'last_seq' from seen where name = 'lease'),
  '3', 'a chunk behind a gap is not taken'
);
select is(
  (select pg_temp.chunks(data || jsonb_build_object('lease_token', gen_random_uuid()), '[{"seq": 4, "text": "no"}]') from seen where name = 'lease'),
  (select jsonb_build_object('generation_id', id, 'lease_lost', true, 'cancel_requested', false) from seen where name = 'one'),
  'a stale token appends nothing and is told'
);
select is(
  (select pg_temp.finish(data || '{"attempt": 7}', '{"status": "completed"}') from seen where name = 'lease'),
  '{"status": "lost_lease"}', 'another attempt finishes nothing'
);

select tests.authenticate_as('alice');
select is(
  public.read_generation((select id from seen where name = 'one'), 1, 1) -> 'chunks',
  '[{"seq": 2, "text": "lo"}, {"seq": 3, "text": "!"}]',
  'a reader gets the chunks after what it has'
);
select is(
  jsonb_array_length(public.read_generation((select id from seen where name = 'one'), 0, 9) -> 'chunks'), 3,
  'and all of them when the attempt is a new one'
);
select is((select count(*) from public.generation_chunks), 3::bigint, 'chunks are a table for participants');

select tests.authenticate_as_service_role();
select is(
  (
    select jsonb_agg(
      jsonb_build_array(f.said -> 'chunks', f.said -> 'last_seq', f.said -> 'readers' = jsonb_build_array(tests.get_supabase_uid('alice')))
      order by f.said -> 'chunks' desc
    )
    from jsonb_array_elements(service.follow_generations(
      (
        select jsonb_agg(jsonb_build_object('generation_id', id, 'readers', array[tests.get_supabase_uid('alice'), gen_random_uuid()]) || asked)
        from seen, (values ('{"attempt": 1, "seq": 2}'::jsonb), ('{}')) as a (asked)
        where name = 'one'
      ) || '[{"generation_id": "00000000-0000-4000-8000-000000000000", "readers": []}]'
    )) as f (said)
  ),
  '[[[{"seq": 3, "text": "!"}], 3, true], [[], 3, true]]',
  'an isolate gets the chunks after what it has, none where it asks for none, and who of its readers may read'
);

select tests.become_postgres();
update private.ai_routes set prompt_price = 1200000, completion_price = 2000000 where id = 1;
select tests.authenticate_as_service_role();
update seen set data = data || jsonb_build_object('ended', pg_temp.finish(data,
  '{"status": "completed", "finish_reason": "stop", "route_id": "1", "usage": {"prompt_tokens": 5, "completion_tokens": 3}}'))
where name = 'lease';
select is((select data #>> '{ended,message,content}' from seen where name = 'lease'), 'Hello!', 'the content is the chunks in order');
select is((select data #>> '{ended,status}' from seen where name = 'lease'), 'completed', 'the generation is completed');
select is(
  (select pg_temp.finish(data, '{"status": "failed"}') from seen where name = 'lease'), '{"status": "lost_lease"}',
  'the first end wins'
);
select is(
  (select pg_temp.chunks(data, '[{"seq": 4, "text": "late"}]') ->> 'lease_lost' from seen where name = 'lease'), 'true',
  'nothing is appended after the end'
);
select is(service.claim_generation((select id from seen where name = 'one')), null, 'an ended generation cannot be claimed');
select tests.authenticate_as('alice');
select results_eq(
  $$ select status::text, progress::smallint from public.jobs $$, $$ values ('completed', 100::smallint) $$, 'its job is completed'
);
select is(
  (select usage from public.generations),
  '{"prompt_tokens": 5, "completion_tokens": 3, "cached_tokens": 0, "estimated": false}', 'usage is kept'
);
select is(
  public.cancel_generation((select id from seen where name = 'one')) ->> 'status', 'completed',
  'cancelling what has ended changes nothing'
);
select tests.become_postgres();
select is((select count(*) from pgmq.q_jobs), 0::bigint, 'the alarm is off');
select results_eq(
  $$ select outcome, cost_micro_usd from private.generation_attempts $$, $$ values ('completed', 12::bigint) $$,
  'the attempt knows its cost'
);

-- A planned hand-over goes on where it was.
insert into seen (name, id) values ('two', pg_temp.ask());
update seen set data = service.claim_generation((select id from seen where name = 'two')) where name = 'lease';
select is((select pg_temp.chunks(data, '[{"seq": 1, "text": "first "}]') ->> 'last_seq' from seen where name = 'lease'), '1', 'a part is written');
select is(
  (select pg_temp.finish(data, '{"status": "retry", "finish_reason": "handed_over"}') from seen where name = 'lease'),
  '{"status": "queued"}', 'the runner hands over'
);
update seen set data = service.claim_generation((select id from seen where name = 'two')) where name = 'lease';
select is(
  (select data ->> 'attempt' || ' ' || (data ->> 'next_seq') || ' ' || (data ->> 'partial') from seen where name = 'lease'),
  '1 2 first ', 'the next one goes on with the same attempt after what is written'
);
select is((select pg_temp.chunks(data, '[{"seq": 2, "text": "second"}]') ->> 'last_seq' from seen where name = 'lease'), '2', 'and appends');
select is(
  (select pg_temp.finish(data, '{"status": "completed"}') #>> '{message,content}' from seen where name = 'lease'),
  'first second', 'the message is whole'
);

-- A retry begins anew; the last attempt's failure ends it.
insert into seen (name, id) values ('three', pg_temp.ask());
update seen set data = service.claim_generation((select id from seen where name = 'three')) where name = 'lease';
select pg_temp.chunks(data, '[{"seq": 1, "text": "bad start"}]') from seen where name = 'lease';
select is(
  (select pg_temp.finish(data, '{"status": "retry", "retry_after_seconds": 60, "error": {"code": "rate_limited"}}') ->> 'status' from seen where name = 'lease'),
  'queued', 'a retry is queued'
);
select is(service.claim_generation((select id from seen where name = 'three')), null, 'and waits for its time');
select tests.become_postgres();
update private.generation_leases set available_at = clock_timestamp();
select tests.authenticate_as_service_role();
update seen set data = service.claim_generation((select id from seen where name = 'three')) where name = 'lease';
select is(
  (select data ->> 'attempt' || ' ' || (data ->> 'next_seq') || ' ' || (data ->> 'partial') from seen where name = 'lease'),
  '2 1 ', 'the second attempt begins anew'
);
select tests.become_postgres();
select ok(
  exists (select from realtime.messages where event = 'generation.reset' and (payload ->> 'attempt')::integer = 2),
  'readers are told to drop what they showed'
);

-- Runners that die.
update private.generation_leases set lease_until = clock_timestamp() - interval '1 second';
select is(private.reap_generations(), 1, 'a lease that ran out is reaped');
select is((select status from public.generations where id = (select id from seen where name = 'three')), 'queued', 'attempts remain: it is queued again');
select tests.authenticate_as_service_role();
select is(
  (select pg_temp.chunks(data, '[{"seq": 1, "text": "zombie"}]') ->> 'lease_lost' from seen where name = 'lease'), 'true',
  'the runner that wakes again has lost its lease'
);
update seen set data = service.claim_generation((select id from seen where name = 'three')) where name = 'lease';
select is(
  (select pg_temp.finish(data, '{"status": "retry", "error": {"code": "provider_failed", "retryable": true}}') ->> 'status' from seen where name = 'lease'),
  'failed', 'a retry after the last attempt is a failure'
);
select tests.authenticate_as('alice');
select is(
  (select error ->> 'code' from public.generations where id = (select id from seen where name = 'three')), 'provider_failed',
  'with the error of the last attempt'
);
select results_eq(
  $$ select content, status from public.messages order by id desc limit 1 $$, $$ values ('', 'failed') $$,
  'the message says so too'
);

-- Cancelling.
insert into seen (name, id) values ('four', pg_temp.ask('queued'));
select tests.authenticate_as('alice');
select is(
  public.cancel_generation((select id from seen where name = 'four')) ->> 'status', 'cancelled',
  'a queued generation is cancelled at once'
);
insert into seen (name, id) values ('five', pg_temp.ask());
update seen set data = service.claim_generation((select id from seen where name = 'five')) where name = 'lease';
select pg_temp.chunks(data, '[{"seq": 1, "text": "so far"}]') from seen where name = 'lease';
select tests.authenticate_as('alice');
select is(
  public.cancel_generation((select id from seen where name = 'five')) ->> 'cancel_requested', 'true',
  'a running one is asked to stop'
);
select tests.authenticate_as_service_role();
select is((select pg_temp.chunks(data, '[]') ->> 'cancel_requested' from seen where name = 'lease'), 'true', 'its runner learns it with the next beat');
select is(
  (select pg_temp.finish(data, '{"status": "cancelled"}') #>> '{message,content}' from seen where name = 'lease'), 'so far',
  'what came is kept'
);
insert into seen (name, id) values ('six', pg_temp.ask());
update seen set data = service.claim_generation((select id from seen where name = 'six')) where name = 'lease';
select tests.authenticate_as('alice');
select public.cancel_generation((select id from seen where name = 'six'));
select tests.become_postgres();
update private.generation_leases set lease_until = clock_timestamp() - interval '1 second';
select private.reap_generations();
select is(
  (select status from public.generations where id = (select id from seen where name = 'six')), 'cancelled',
  'one that was to stop when its runner died is cancelled'
);

-- What no worker takes.
insert into seen (name, id) values ('seven', pg_temp.ask('queued'));
select tests.become_postgres();
select private.reap_generations(clock_timestamp() + interval '11 minutes');
select is(
  (select error ->> 'code' from public.generations where id = (select id from seen where name = 'seven')), 'no_worker',
  'a generation that no worker took for ten minutes fails'
);
select private.prune_chunks(clock_timestamp() + interval '61 minutes');
select is((select count(*) from public.generation_chunks), 0::bigint, 'chunks are dropped an hour after the end');

select is((select bool_or(has_chunks) from public.generations where finished_at is not null), false, 'and the generations say so');

-- One broken answer does not keep the others from ending.
insert into seen (name, id) values ('eight', pg_temp.ask());
update seen set data = service.claim_generation((select id from seen where name = 'eight')) where name = 'lease';
select is(
  (select pg_temp.finish(data, '{"status": "retry"}') ->> 'status' from seen where name = 'lease'), 'queued',
  'a retry without a given delay is queued'
);
select tests.become_postgres();
select ok(
  (
    select available_at - clock_timestamp() between interval '0' and interval '1 second'
    from private.generation_leases where generation_id = (select id from seen where name = 'eight')
  ),
  'and waits for its backoff'
);
insert into public.conversations (id, owner_id, title, topic)
values ('00000000-0000-4000-8000-00000000000a', tests.get_supabase_uid('alice'), 'Broken', 'conversation:broken');
insert into public.messages (id, conversation_id, role) values
  ('00000000-0000-4000-8000-00000000000b', '00000000-0000-4000-8000-00000000000a', 'assistant');
insert into public.generations (id, conversation_id, message_id, settings, max_attempts) values
  ('00000000-0000-4000-8000-00000000000c', '00000000-0000-4000-8000-00000000000a', '00000000-0000-4000-8000-00000000000b', '{}', 0);
insert into private.generation_leases (generation_id, lease_token, lease_until)
values ('00000000-0000-4000-8000-00000000000c', gen_random_uuid(), now() - interval '1 minute');
create function pg_temp.refuse() returns trigger language plpgsql as $$ begin raise exception 'broken'; end; $$;
create trigger refuse before update on public.messages
  for each row when (old.id = '00000000-0000-4000-8000-00000000000b') execute function pg_temp.refuse();
select private.reap_generations(clock_timestamp() + interval '11 minutes');
select is(
  (select status from public.generations where id = (select id from seen where name = 'eight')), 'failed',
  'an answer that cannot be ended keeps no other one from ending'
);

select * from finish();
rollback;
