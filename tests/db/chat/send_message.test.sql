begin;
select plan(26);
select tests.create_supabase_user('alice');
select tests.create_supabase_user('bob');
select tests.create_supabase_user('viewer');
insert into private.workers (id, seen_at, swept_at) values (gen_random_uuid(), clock_timestamp() + interval '1 hour', now());
create temporary table seen (name text primary key, id uuid, data jsonb);
grant select, insert, update on seen to authenticated, anon;

select tests.authenticate_as('alice');
insert into public.characters (name, age, greeting, visibility) values ('Ada', 36, 'Good evening.', 'public');
insert into seen (name, id) select 'character', id from public.characters where owner_id = tests.get_supabase_uid('alice');
insert into seen (name, id)
select 'talk', c.id from public.start_conversation((select id from seen where name = 'character'), 'start') as c;

select is(
  (public.start_conversation((select id from seen where name = 'character'), 'start')).id, (select id from seen where name = 'talk'),
  'the same key starts the same conversation'
);
select results_eq(
  $$ select role, content, status from public.messages $$,
  $$ values ('assistant', 'Good evening.', 'completed') $$,
  'the greeting comes first'
);
select throws_ok(
  $$ select public.start_conversation(gen_random_uuid()) $$, 'PT404', 'character_not_found',
  'an unknown character starts nothing'
);

select throws_ok(
  format($$ select public.send_message('%s', E' \n\t ') $$, (select id from seen where name = 'talk')),
  'PT422', 'message_empty', 'a message has text'
);
select throws_ok(
  format($$ select public.send_message('%s', repeat('x', 32001)) $$, (select id from seen where name = 'talk')),
  'PT422', 'message_too_long', 'a message has a limit'
);
select throws_ok(
  format($$ select public.send_message('%s', E'bell \x07') $$, (select id from seen where name = 'talk')),
  'PT422', 'message_invalid', 'a message has no control characters'
);
select throws_ok(
  format($$ select public.send_message('%s', 'Hi', null, 'later') $$, (select id from seen where name = 'talk')),
  'PT422', 'run_unknown', 'a run is inline or queued'
);

insert into seen (name, data)
select 'sent', public.send_message((select id from seen where name = 'talk'), 'Hello', 'key');
select is(
  (select array_agg(k order by k) from seen, jsonb_object_keys(data) as k where name = 'sent'),
  array['assistant_message', 'generation', 'job_id', 'user_message'],
  'sending returns the two messages, the generation and the job, and nothing else'
);
select is(
  (select array[data -> 'user_message' -> 'depth', data -> 'assistant_message' -> 'depth'] from seen where name = 'sent'),
  array['1', '2']::jsonb[],
  'the message stands below the greeting, and the answer below the message'
);
select is(
  (select array_agg(k order by k) from seen, jsonb_object_keys(data -> 'generation') as k where name = 'sent'),
  array['id', 'status'],
  'of the generation only its id and status'
);
select is(
  public.send_message((select id from seen where name = 'talk'), 'Hello', 'key'), (select data from seen where name = 'sent'),
  'the same key returns the same rows'
);
select throws_ok(
  format($$ select public.send_message('%s', 'Other', 'key') $$, (select id from seen where name = 'talk')),
  'PT409', 'idempotency_key_reused', 'the same key with another text is refused'
);
select throws_ok(
  format($$ select public.send_message('%s', 'Again', 'key 2') $$, (select id from seen where name = 'talk')),
  'PT409', 'generation_in_progress', 'one answer is on its way at a time'
);
select results_eq(
  $$
    select m.role, m.content, m.status, p.content
    from public.messages as m join public.messages as p on p.id = m.parent_id
    order by m.id
  $$,
  $$ values ('user', 'Hello', 'completed', 'Good evening.'), ('assistant', '', 'pending', 'Hello') $$,
  'question and answer hang on the branch that was shown'
);
select is(
  (select active_leaf_id from public.conversations), (select (data #>> '{assistant_message,id}')::uuid from seen where name = 'sent'),
  'and the answer is its new leaf'
);
select is((select status from public.jobs), 'waiting', 'the job waits');

select tests.become_postgres();
select ok(
  (select bool_and(due_at > clock_timestamp() + interval '20 seconds') from private.job_work),
  'the job of an inline run is an alarm clock'
);
select throws_ok(
  format(
    $$
      insert into public.generations (conversation_id, message_id, settings)
      select conversation_id, id, '{}' from public.messages where conversation_id = '%s' limit 1
    $$,
    (select id from seen where name = 'talk')
  ),
  '23505', null, 'two open generations in one conversation are impossible'
);
insert into public.conversations (id, owner_id, title, topic)
values ('00000000-0000-4000-8000-000000000001', tests.get_supabase_uid('bob'), 'Other', 'conversation:other');
select throws_ok(
  $$
    insert into public.messages (conversation_id, parent_id, role)
    select '00000000-0000-4000-8000-000000000001', id, 'assistant' from public.messages limit 1
  $$,
  '23503', null, 'a parent in another conversation is impossible'
);
select throws_ok(
  $$ update public.generations set status = 'completed', finished_at = now() $$, 'PT409', 'status_edge_forbidden',
  'a queued generation cannot become completed'
);

select tests.authenticate_as('bob');
select throws_ok(
  format($$ select public.send_message('%s', 'Hi') $$, (select id from seen where name = 'talk')),
  'PT404', 'conversation_not_found', 'a stranger''s message finds no conversation'
);
select is_empty($$ select 1 from public.messages $$, 'a stranger reads no message');

select tests.become_postgres();
insert into public.conversation_participants (conversation_id, user_id, role, state, joined_at)
values ((select id from seen where name = 'talk'), tests.get_supabase_uid('viewer'), 'viewer', 'joined', now());
select tests.authenticate_as('viewer');
select throws_ok(
  format($$ select public.send_message('%s', 'Hi') $$, (select id from seen where name = 'talk')),
  'PT403', 'conversation_read_only', 'a viewer reads and does not write'
);

select tests.authenticate_as('alice');
select public.cancel_generation((select (data #>> '{generation,id}')::uuid from seen where name = 'sent'));
select public.delete_character((select id from seen where name = 'character'));
select throws_ok(
  format($$ select public.send_message('%s', 'Hi') $$, (select id from seen where name = 'talk')),
  'PT409', 'character_unavailable', 'a conversation with a deleted character cannot go on'
);
select is((select count(*) from public.messages), 3::bigint, 'and stays readable');

select tests.clear_authentication();
select throws_ok(
  format($$ select public.send_message('%s', 'Hi') $$, (select id from seen where name = 'talk')),
  '42501', null, 'a visitor cannot send'
);

select * from finish();
rollback;
