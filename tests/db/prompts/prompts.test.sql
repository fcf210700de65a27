begin;
select plan(24);
select tests.create_supabase_user('alice');
select tests.create_supabase_user('bob');
insert into private.workers (id, seen_at, swept_at) values (gen_random_uuid(), clock_timestamp() + interval '1 hour', now());
create temporary table seen (name text primary key, id uuid, data jsonb);
grant all on seen to authenticated;

select tests.authenticate_as('alice');
insert into public.characters (name, nickname, age, greeting, description) values ('Ada Lovelace', 'Ada', 36, 'Good {{user}}.', 'Old.');
insert into public.lorebooks (character_id) select c.id from public.characters as c where c.owner_id = auth.uid();
insert into public.lore_entries (lorebook_id, position_in_book, keys, content, is_enabled)
select b.id, e.nth, array['key'], 'Lore ' || e.nth, e.nth <> 2
from public.lorebooks as b, generate_series(1, 3) as e (nth) where b.owner_id = auth.uid();
select tests.become_postgres();
set constraints all immediate;
set constraints all deferred;
select tests.authenticate_as('alice');
insert into seen (name, id)
select 'talk', c.id from public.start_conversation((select id from public.characters where owner_id = auth.uid())) as c;
update public.characters set description = 'New.' where owner_id = auth.uid();
insert into seen (name, data) select 'first', public.send_message((select id from seen where name = 'talk'), 'One');
select tests.become_postgres();
set constraints all immediate;
set constraints all deferred;

create function pg_temp.id(name text, variadic path text[] default '{}') returns uuid language sql as $$
  select coalesce(s.id, (s.data #>> path)::uuid) from seen as s where s.name = id.name;
$$;
create function pg_temp.answer(name text, outcome jsonb default '{}') returns jsonb language plpgsql as $$
declare
  lease jsonb := private.claim_generation(pg_temp.id(answer.name, 'generation', 'id'));
begin
  perform private.append_chunks(jsonb_build_array(lease || jsonb_build_object(
    'chunks', jsonb_build_array(jsonb_build_object('seq', 1, 'text', 'Answer to ' || answer.name))
  )));
  perform private.finish_generation(
    (lease ->> 'generation_id')::uuid, (lease ->> 'attempt')::integer, (lease ->> 'lease_token')::uuid,
    '{"status": "completed", "finish_reason": "stop"}' || answer.outcome
  );
  return lease -> 'prompt';
end;
$$;
create function pg_temp.send(name text) returns void language plpgsql as $$
begin
  perform tests.authenticate_as('alice');
  insert into seen (name, data) select send.name, public.send_message((select id from seen where seen.name = 'talk'), send.name);
  perform tests.become_postgres();
end;
$$;

-- What a runner gets.
insert into seen (name, data) select 'material', pg_temp.answer('first', jsonb_build_object('trace', jsonb_build_object(
  'history', jsonb_build_object('from', pg_temp.id('first', 'user_message', 'id')), 'sections', '[]'::jsonb
)));
select is((select data #>> '{character,description}' from seen where name = 'material'), 'Old.', 'the version that the conversation pins');
select is((select data ->> 'character_version' from seen where name = 'material'), '1', 'and its number');
select is(
  (select jsonb_path_query_array(data, '$.messages[*].content') from seen where name = 'material'),
  '["Good alice.", "One"]', 'the branch from its root'
);
select is(
  (select jsonb_path_query_array(data, '$.messages[*].is_greeting') from seen where name = 'material'), '[true]',
  'the greeting is marked'
);
select is((select data -> 'is_whole' from seen where name = 'material'), 'true', 'nothing is left out of it');
select is(
  (select jsonb_path_query_array(data, '$.lorebooks[*].entries[*].content') from seen where name = 'material'),
  '["Lore 1", null, "Lore 3"]', 'lore without the texts that are switched off'
);
select is((select data -> 'memories' from seen where name = 'material'), '[]', 'a place for memories');

-- The history goes on where it began.
select pg_temp.send('second');
update seen set data = pg_temp.answer('second', '{"trace": {"sections": []}}') || jsonb_build_object('kept', data) where name = 'second';
select is(
  (select data ->> 'history_from' from seen where name = 'second'), pg_temp.id('first', 'user_message', 'id')::text,
  'the next answer hears where the history began'
);

-- What is kept of a prompt, and what is not.
select pg_temp.send('third');
select lives_ok(
  $$ select pg_temp.answer('third', jsonb_build_object(
    'trace', jsonb_build_object('big', repeat('x', 70000)), 'prefix_hash', 'no hash', 'prompt_tokens_estimated', 'many',
    'outgrown', 'nothing'
  )) $$,
  'an account of a prompt that cannot be kept is no reason to lose an answer'
);
select results_eq(
  $$ select a.trace, a.prefix_hash, a.prompt_tokens_estimated from private.generation_attempts as a
     where a.generation_id = pg_temp.id('third', 'generation', 'id') $$,
  $$ values (null::jsonb, null::text, null::integer) $$, 'it is left out'
);
select is((select count(*) from public.jobs where kind = 'summarise'), 0::bigint, 'nor does it ask for a summary');

-- Summaries.
select pg_temp.send('fourth');
select pg_temp.answer('fourth', jsonb_build_object('outgrown', pg_temp.id('first', 'assistant_message', 'id')));
select pg_temp.send('fifth');
select pg_temp.answer('fifth', jsonb_build_object('outgrown', pg_temp.id('first', 'assistant_message', 'id')));
select is((select count(*) from public.jobs where kind = 'summarise'), 1::bigint, 'one job of a conversation is open');
insert into seen (name, data)
select 'summary', private.begin_summary(pg_temp.id('talk'), pg_temp.id('first', 'assistant_message', 'id'));
select is(
  (select jsonb_path_query_array(data, '$.messages[*].content') from seen where name = 'summary'),
  '["Good alice.", "One", "Answer to first"]', 'a summary is begun with what it has to tell'
);
select is(
  (select k.user_id from private.completions as k where k.id = pg_temp.id('summary', 'completion_id')),
  tests.get_supabase_uid('alice'), 'as a completion of the owner'
);
select is(
  private.keep_summary(
    pg_temp.id('summary', 'completion_id'), pg_temp.id('talk'), pg_temp.id('first', 'assistant_message', 'id'),
    (select data ->> 'fingerprint' from seen where name = 'summary'), 'They met.'
  ), true, 'and kept'
);
select is(
  private.begin_summary(pg_temp.id('talk'), pg_temp.id('first', 'assistant_message', 'id')), null, 'once'
);
select is(
  private.begin_summary(pg_temp.id('talk'), pg_temp.id('fourth', 'assistant_message', 'id')) - 'completion_id' ->> 'summary',
  'They met.', 'the next one goes on from it'
);
select pg_temp.send('sixth');
select is(
  private.prompt_material(pg_temp.id('sixth', 'generation', 'id')) -> 'summary' ->> 'content', 'They met.',
  'prompts of its branch have it'
);
select pg_temp.answer('sixth');

select tests.authenticate_as('alice');
select results_eq($$ select content from public.conversation_summaries $$, array['They met.'], 'participants read it');
select tests.authenticate_as('bob');
select is_empty($$ select 1 from public.conversation_summaries $$, 'strangers do not');
select tests.become_postgres();

-- What is taken out of a conversation is not told on.
insert into seen (name, data)
select 'late', private.begin_summary(pg_temp.id('talk'), pg_temp.id('fifth', 'assistant_message', 'id'));
update public.messages set content = '' where id = pg_temp.id('fourth', 'user_message', 'id');
select isnt_empty($$ select 1 from public.conversation_summaries $$, 'a summary of what stands above stays');
select is(
  private.keep_summary(
    pg_temp.id('late', 'completion_id'), pg_temp.id('talk'), pg_temp.id('fifth', 'assistant_message', 'id'),
    (select data ->> 'fingerprint' from seen where name = 'late'), 'They met; four.'
  ), false, 'one that was begun with the text is not kept'
);
update public.messages set content = '' where id = pg_temp.id('first', 'user_message', 'id');
select is_empty($$ select 1 from public.conversation_summaries $$, 'one that may tell the text goes with it');
update public.profiles set status = 'suspended' where id = tests.get_supabase_uid('alice');
select is(
  private.begin_summary(pg_temp.id('talk'), pg_temp.id('fifth', 'assistant_message', 'id')), null,
  'nothing is told for an account that is not active'
);

select * from finish();
rollback;
