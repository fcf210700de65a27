begin;
select plan(49);
select tests.create_supabase_user('ada');
select tests.create_supabase_user('ben');
select tests.create_supabase_user('viewer');
select tests.create_supabase_user('stranger');
create temporary table seen (name text primary key, id uuid, data jsonb);
grant select, insert, update on seen to authenticated;
create function pg_temp.id(name text) returns uuid language sql as $$ select id from seen where name = $1 $$;
create function pg_temp.shown() returns uuid language sql as $$
  select active_leaf_id from public.conversations where id = pg_temp.id('talk')
$$;
-- The texts of the branch that is shown, from its root.
create function pg_temp.branch() returns text[] language sql as $$
  with recursive up as (
    select m.* from public.messages as m where m.id = pg_temp.shown()
    union all
    select m.* from up as u join public.messages as m on m.id = u.parent_id
  )
  select array_agg(content order by depth) from up
$$;
-- Keeps the two messages of what a call returned, and lets a model write the answer.
create function pg_temp.keep(name text, sent jsonb, says text) returns void language plpgsql as $$
declare
  lease jsonb;
begin
  insert into seen (name, id, data) values
    (name || ' question', (sent #>> '{user_message,id}')::uuid, sent),
    (name || ' answer', (sent #>> '{assistant_message,id}')::uuid, sent);
  perform set_config('role', 'postgres', true);
  lease := service.claim_generation((sent #>> '{generation,id}')::uuid);
  update seen set data = data || jsonb_build_object('prompt', lease -> 'prompt') where seen.name = keep.name || ' answer';
  perform service.append_chunks(
    jsonb_build_array(lease || jsonb_build_object('chunks', jsonb_build_array(jsonb_build_object('seq', 1, 'text', says))))
  );
  perform service.finish_generation(
    (lease ->> 'generation_id')::uuid, (lease ->> 'attempt')::integer, (lease ->> 'lease_token')::uuid,
    '{"status": "completed", "finish_reason": "stop"}'
  );
  perform set_config('role', 'authenticated', true);
end;
$$;
create function pg_temp.events(kind text) returns bigint language sql security definer as $$
  select count(*) from realtime.messages where event = $1
$$;
grant execute on all functions in schema pg_temp to authenticated;

select tests.authenticate_as('ada');
insert into public.characters (name, age, greeting) values ('Mira', 30, 'Hello, you.');
insert into seen (name, id)
select 'talk', c.id from public.start_conversation((select id from public.characters where owner_id = auth.uid())) as c;
insert into seen (name, id) select 'greeting', pg_temp.shown();
select public.invite_participant(pg_temp.id('talk'), tests.get_supabase_uid('ben'));
select tests.become_postgres();
insert into public.conversation_participants (conversation_id, user_id, role, state, joined_at)
values (pg_temp.id('talk'), tests.get_supabase_uid('viewer'), 'viewer', 'joined', now());
select tests.authenticate_as('ben');
select public.accept_invitation(pg_temp.id('talk'));

-- Regenerating.
select tests.authenticate_as('ada');
select throws_ok(
  $$ select public.regenerate_message(pg_temp.id('talk')) $$, 'PT409', 'nothing_to_answer',
  'a greeting answers nobody'
);
select pg_temp.keep('first', public.send_message(pg_temp.id('talk'), 'Where are we?'), 'At sea.');
select is(pg_temp.events('conversation.branch_changed'), 0::bigint, 'a message that follows changes no branch');
insert into seen (name, data) select 'again', public.regenerate_message(pg_temp.id('talk'), null, 'key');
select is(
  (select data #>> '{assistant_message,parent_id}' from seen where name = 'again'), pg_temp.id('first question')::text,
  'another answer stands beside the first, under the same question'
);
select is(
  (select data #>> '{user_message,id}' from seen where name = 'again'), pg_temp.id('first question')::text,
  'the question is not said again'
);
select is(
  public.regenerate_message(pg_temp.id('talk'), null, 'key'), (select data from seen where name = 'again'),
  'the same key returns the same rows'
);
select throws_ok(
  $$ select public.regenerate_message(pg_temp.id('talk'), pg_temp.id('first answer'), 'key') $$,
  'PT409', 'idempotency_key_reused', 'but not for another message'
);
select throws_ok(
  $$ select public.regenerate_message(pg_temp.id('talk'), pg_temp.id('first answer')) $$,
  'PT409', 'generation_in_progress', 'one answer is on its way at a time'
);
select throws_ok(
  $$ select public.edit_message(pg_temp.id('first question'), 'Where now?') $$,
  'PT409', 'generation_in_progress', 'also for an edit'
);
select pg_temp.keep('second', (select data from seen where name = 'again'), 'On land.');
select is(
  (select jsonb_path_query_array(data, '$.prompt.messages[*].content') from seen where name = 'second answer'),
  '["Hello, you.", "Where are we?"]', 'its prompt ends at the question'
);
select is(pg_temp.branch(), '{"Hello, you.",Where are we?,On land.}', 'the new answer is shown');
select is(
  (select content from public.messages where id = pg_temp.id('first answer')), 'At sea.', 'the first one stays'
);
select is(pg_temp.events('conversation.branch_changed'), 1::bigint, 'everybody is told that the branch changed');
select tests.become_postgres();
select is(
  (
    select payload - 'id' from realtime.messages where event = 'conversation.branch_changed'
  ),
  jsonb_build_object(
    'conversation_id', pg_temp.id('talk'), 'after_id', pg_temp.id('first question'), 'active_leaf_id', pg_temp.id('second answer')
  ),
  'after which message, and to what end'
);
select is(
  (select selected_child_id from public.messages where id = pg_temp.id('first question')), null,
  'the newest child needs not be remembered'
);

select tests.authenticate_as('ben');
select pg_temp.keep(
  'third', public.regenerate_message(message_id => pg_temp.id('first answer'), run => 'queued'), 'In the air.'
);
select is(
  (select parent_id from public.messages where id = pg_temp.id('third answer')), pg_temp.id('first question'),
  'any member asks for another answer, by the id of one alone'
);
select pg_temp.keep(
  'fourth', public.regenerate_message(message_id => pg_temp.id('first question')), 'Nowhere.'
);
select is(
  (select parent_id from public.messages where id = pg_temp.id('fourth answer')), pg_temp.id('first question'),
  'or by the id of the question'
);
select throws_ok(
  $$ select public.regenerate_message(pg_temp.id('talk'), gen_random_uuid()) $$, 'PT404', 'message_not_found',
  'to a message that does not exist there is no answer'
);
select throws_ok(
  $$ select public.regenerate_message() $$, 'PT404', 'message_not_found', 'nor to none at all'
);
select throws_ok(
  $$ select public.regenerate_message(pg_temp.id('talk'), null, null, 'later') $$, 'PT422', 'run_unknown',
  'a run is inline or queued'
);
select throws_ok(
  $$ select public.regenerate_message(message_id => pg_temp.id('greeting')) $$, 'PT409', 'nothing_to_answer',
  'another greeting cannot be asked for'
);

-- Editing.
select throws_ok(
  $$ select public.edit_message(pg_temp.id('first question'), 'Mine now.') $$, 'PT403', 'message_not_yours',
  'nobody edits what somebody else wrote'
);
select tests.authenticate_as('ada');
insert into seen (name, data) select 'edit', public.edit_message(pg_temp.id('first question'), 'Who are you?', 'key');
select is(
  public.edit_message(pg_temp.id('first question'), 'Who are you?', 'key'), (select data from seen where name = 'edit'),
  'the same key returns the same rows'
);
select throws_ok(
  $$ select public.edit_message(pg_temp.id('first question'), 'Another text', 'key') $$,
  'PT409', 'idempotency_key_reused', 'but not for another text'
);
select pg_temp.keep('edited', (select data from seen where name = 'edit'), 'Mira.');
select is(
  (select jsonb_path_query_array(data, '$.prompt.messages[*].content') from seen where name = 'edited answer'),
  '["Hello, you.", "Who are you?"]', 'the model reads the edited message and what stands above it'
);
select is(pg_temp.branch(), '{"Hello, you.",Who are you?,Mira.}', 'the edited message and its answer are shown');
select results_eq(
  $$ select content from public.messages where parent_id = pg_temp.id('greeting') order by id $$,
  $$ values ('Where are we?'), ('Who are you?') $$, 'the message before stays beside it'
);
select is(
  (select count(*) from public.messages where parent_id = pg_temp.id('first question')), 4::bigint, 'with all its answers'
);

select tests.authenticate_as('ben');
insert into seen (name, data) select 'rewrite', public.edit_message(pg_temp.id('edited answer'), 'I am Mira.', 'key');
select is(
  (select data - 'user_message' - 'assistant_message' from seen where name = 'rewrite'),
  '{"generation": null, "job_id": null}', 'an answer is edited without a model'
);
select results_eq(
  $$
    select role, content, status, finish_reason, author_id = auth.uid(), parent_id = pg_temp.id('edited question')
    from public.messages where id = (select (data #>> '{assistant_message,id}')::uuid from seen where name = 'rewrite')
  $$,
  $$ values ('assistant', 'I am Mira.', 'completed', 'edited', true, true) $$,
  'and says who wrote it'
);
select is(
  public.edit_message(pg_temp.id('edited answer'), 'I am Mira.', 'key'), (select data from seen where name = 'rewrite'),
  'the same key returns the same rows'
);
select is(pg_temp.branch(), '{"Hello, you.",Who are you?,I am Mira.}', 'it is shown');
select lives_ok(
  $$ select public.edit_message(pg_temp.id('greeting'), 'Ahoy!') $$, 'also the first message can be edited'
);
select is(pg_temp.branch(), '{Ahoy!}', 'and begins a conversation of its own beside the other');
select is(
  (select count(*) from public.messages where parent_id is null), 2::bigint, 'both roots are there'
);
select pg_temp.keep('fifth', public.regenerate_message(message_id => pg_temp.id('second answer')), 'Back again.');
select is(
  pg_temp.branch(), '{"Hello, you.",Where are we?,Back again.}', 'an answer on a hidden branch brings that branch back'
);
select tests.become_postgres();
select is(
  (select selected_child_id from public.messages where id = pg_temp.id('greeting')), pg_temp.id('first question'),
  'and the fork above it remembers the way'
);

-- Refusals.
select tests.authenticate_as('ada');
select throws_ok(
  $$ select public.edit_message(pg_temp.id('first question'), E'\n ') $$, 'PT422', 'message_empty', 'an edit has text'
);
select throws_ok(
  $$ select public.edit_message(pg_temp.id('first question'), repeat('x', 32001)) $$, 'PT422', 'message_too_long',
  'of a limited length'
);
select throws_ok(
  $$ select public.edit_message(pg_temp.id('first question'), E'bell \x07') $$, 'PT422', 'message_invalid',
  'without control characters'
);
select throws_ok(
  $$ select public.edit_message(pg_temp.id('first question'), 'Hi', null, 'later') $$, 'PT422', 'run_unknown',
  'and a run that is known'
);
select tests.authenticate_as('viewer');
select throws_ok(
  $$ select public.regenerate_message(pg_temp.id('talk')) $$, 'PT403', 'conversation_read_only', 'a viewer asks for no answer'
);
select throws_ok(
  $$ select public.edit_message(pg_temp.id('fifth answer'), 'Hi') $$, 'PT403', 'conversation_read_only', 'and edits none'
);
select tests.authenticate_as('stranger');
select throws_ok(
  $$ select public.regenerate_message(pg_temp.id('talk')) $$, 'PT404', 'conversation_not_found', 'a stranger finds no conversation'
);
select throws_ok(
  $$ select public.edit_message(pg_temp.id('fifth answer'), 'Hi') $$, 'PT404', 'message_not_found', 'and no message'
);
select tests.authenticate_as('ada');
select public.delete_character((select id from public.characters where owner_id = auth.uid()));
select throws_ok(
  $$ select public.regenerate_message(pg_temp.id('talk')) $$, 'PT409', 'character_unavailable',
  'a character that was deleted answers no more'
);
select throws_ok(
  $$ select public.edit_message(pg_temp.id('fifth answer'), 'Hi') $$, 'PT409', 'character_unavailable',
  'nor do words come into its mouth'
);

-- What the table itself refuses, whoever writes.
select tests.become_postgres();
select throws_ok(
  $$ update public.messages set parent_id = null where id = pg_temp.id('first answer') $$, 'PT409', 'message_cannot_move',
  'no message leaves its place'
);
select throws_ok(
  $$ update public.messages set selected_child_id = pg_temp.id('first answer') where id = pg_temp.id('greeting') $$,
  '23503', null, 'only a child of a message can be its chosen one'
);
select throws_ok(
  $$
    insert into public.messages (conversation_id, role, author_id)
    values (pg_temp.id('talk'), 'assistant', tests.get_supabase_uid('ada'))
  $$,
  '23514', null, 'an answer has an author only where a person wrote it'
);

select * from finish();
rollback;
