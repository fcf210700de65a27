begin;
select plan(70);
select tests.create_supabase_user('ada');
select tests.create_supabase_user('ben');
select tests.create_supabase_user('viewer');
select tests.create_supabase_user('stranger');
create temporary table seen (name text primary key, id uuid);
grant select, insert, update on seen to authenticated;
create function pg_temp.id(name text) returns uuid language sql as $$ select id from seen where name = $1 $$;
-- What is shown, from its root; a tombstone as a dash, and how many variants there are where there are several.
create function pg_temp.shown() returns text language sql as $$
  select coalesce(
    string_agg(
      case when b.deleted_at is null then b.content else '-' end
        || case when b.variant_count > 1 then format(' %s/%s', b.variant_index, b.variant_count) else '' end,
      ', ' order by b.depth
    ),
    'nothing'
  )
  from public.conversation_branch(pg_temp.id('talk')) as b
$$;
-- Lets the model write an answer, under a name that is its text.
create function pg_temp.answer(sent jsonb, says text) returns void language plpgsql security definer as $$
declare
  lease jsonb := service.claim_generation((sent #>> '{generation,id}')::uuid);
begin
  insert into seen (name, id) values (says, (sent #>> '{assistant_message,id}')::uuid);
  insert into seen (name, id) values (sent #>> '{user_message,content}', (sent #>> '{user_message,id}')::uuid)
  on conflict (name) do nothing;
  perform service.append_chunks(
    jsonb_build_array(lease || jsonb_build_object('chunks', jsonb_build_array(jsonb_build_object('seq', 1, 'text', says))))
  );
  perform service.finish_generation(
    (lease ->> 'generation_id')::uuid, (lease ->> 'attempt')::integer, (lease ->> 'lease_token')::uuid, '{"status": "completed"}'
  );
end;
$$;
create function pg_temp.say(question text, says text) returns void language sql as $$
  select pg_temp.answer(public.send_message(pg_temp.id('talk'), question), says)
$$;
create function pg_temp.select(name text) returns text language sql as $$
  select public.select_variant(pg_temp.id(name)); select pg_temp.shown()
$$;
create function pg_temp.delete(name text, whole boolean default false) returns integer language sql as $$
  select (public.delete_message(pg_temp.id(name), whole) ->> 'deleted')::integer
$$;
create function pg_temp.events(kind text) returns bigint language sql security definer as $$
  select count(*) from realtime.messages where event = $1
$$;
grant execute on all functions in schema pg_temp to authenticated;

select tests.authenticate_as('ada');
insert into public.characters (name, age) values ('Mira', 30);
insert into seen (name, id)
select 'talk', c.id from public.start_conversation((select id from public.characters where owner_id = auth.uid())) as c;
select public.invite_participant(pg_temp.id('talk'), tests.get_supabase_uid('ben'));
select tests.become_postgres();
insert into public.conversation_participants (conversation_id, user_id, role, state, joined_at)
values (pg_temp.id('talk'), tests.get_supabase_uid('viewer'), 'viewer', 'joined', now());
select tests.authenticate_as('ben');
select public.accept_invitation(pg_temp.id('talk'));
select tests.authenticate_as('ada');

-- Reading.
select is(pg_temp.shown(), 'nothing', 'an empty conversation shows nothing');
select pg_temp.say('Q1', 'A1');
select pg_temp.say('Q2', 'A2');
select pg_temp.say('Q3', 'A3');
select is(pg_temp.shown(), 'Q1, A1, Q2, A2, Q3, A3', 'the branch is shown from its root');
select results_eq(
  $$ select content, depth from public.conversation_branch(pg_temp.id('talk'), null, 2) $$,
  $$ values ('Q3', 4), ('A3', 5) $$, 'a page is its newest messages, oldest first'
);
select results_eq(
  $$ select content from public.conversation_branch(pg_temp.id('talk'), pg_temp.id('Q3'), 3) $$,
  $$ values ('A1'), ('Q2'), ('A2') $$, 'the page before begins above a message'
);
select is_empty(
  $$ select 1 from public.conversation_branch(pg_temp.id('talk'), pg_temp.id('Q1')) $$, 'above the root there is nothing'
);
select is(
  (select count(*) from public.conversation_branch(pg_temp.id('talk'), null, 0)), 1::bigint, 'a page has a message at least'
);
select throws_ok(
  $$ select * from public.conversation_branch(pg_temp.id('talk'), gen_random_uuid()) $$, 'PT404', 'message_not_found',
  'a page begins at a message of the conversation'
);

-- Choosing.
select pg_temp.answer(public.edit_message(pg_temp.id('Q2'), 'Q2b'), 'A2b');
select pg_temp.answer(public.regenerate_message(pg_temp.id('talk')), 'A2c');
select is(pg_temp.shown(), 'Q1, A1, Q2b 2/2, A2c 2/2', 'what is new is shown');
select results_eq(
  $$
    select previous_variant_id, next_variant_id from public.conversation_branch(pg_temp.id('talk')) where content = 'A2c'
  $$,
  $$ select pg_temp.id('A2b'), null::uuid $$, 'with the variants beside it'
);
select is(pg_temp.select('A2b'), 'Q1, A1, Q2b 2/2, A2b 1/2', 'another variant is chosen');
select is(pg_temp.select('Q2'), 'Q1, A1, Q2 1/2, A2, Q3, A3', 'and another branch, down to its end');
select is(pg_temp.select('Q2b'), 'Q1, A1, Q2b 2/2, A2b 1/2', 'which is remembered where it was left');
select is(pg_temp.select('A3'), 'Q1, A1, Q2 1/2, A2, Q3, A3', 'any message of a hidden branch brings it back');
select is(pg_temp.select('Q1'), 'Q1, A1, Q2 1/2, A2, Q3, A3', 'a message that is shown changes nothing');
select is(
  public.select_variant(pg_temp.id('A2b')),
  jsonb_build_object('conversation_id', pg_temp.id('talk'), 'after_id', pg_temp.id('A1'), 'active_leaf_id', pg_temp.id('A2b')),
  'the answer says where the branches part'
);
select is(pg_temp.events('conversation.branch_changed'), 7::bigint, 'each change is told once');

-- Rating.
select is((public.rate_message(pg_temp.id('A1'), 1)).rating, 1::smallint, 'an answer is rated');
select is(
  (public.rate_message(pg_temp.id('A1'), -1, 'Too short.')).reason, 'Too short.', 'anew, with a reason'
);
select is(
  (select array_agg(b.my_rating order by b.depth) from public.conversation_branch(pg_temp.id('talk')) as b),
  '{null,-1,null,null}', 'the branch shows the ratings of who reads it'
);
select tests.authenticate_as('viewer');
select is(
  (select array_agg(b.my_rating order by b.depth) from public.conversation_branch(pg_temp.id('talk')) as b),
  '{null,null,null,null}', 'and of nobody else'
);
select is((public.rate_message(pg_temp.id('A1'), 1)).rating, 1::smallint, 'who reads may rate');
select results_eq($$ select rating from public.message_feedback $$, $$ values (1::smallint) $$, 'and sees their own rating');
select throws_ok(
  $$ select public.rate_message(pg_temp.id('A1'), 2) $$, '23514', null, 'a rating is 1 or -1'
);
select throws_ok(
  $$ select public.rate_message(pg_temp.id('A1'), 1, repeat('x', 501)) $$, '23514', null, 'its reason has a limit'
);
select throws_ok(
  $$ select public.rate_message(pg_temp.id('Q1'), 1) $$, 'PT409', 'message_not_an_answer', 'people are not rated'
);
select results_eq(
  $$ select message_id, user_id, rating from public.rate_message(pg_temp.id('A1'), null) $$,
  $$ select pg_temp.id('A1'), auth.uid(), null::smallint $$, 'a rating is taken back'
);
select is_empty($$ select 1 from public.message_feedback $$, 'and is no more');
select throws_ok(
  $$ select public.select_variant(pg_temp.id('Q2')) $$, 'PT403', 'conversation_read_only', 'a viewer chooses nothing'
);
select throws_ok(
  $$ select public.delete_message(pg_temp.id('Q2')) $$, 'PT403', 'conversation_read_only', 'and deletes nothing'
);
select tests.authenticate_as('stranger');
select throws_ok(
  $$ select * from public.conversation_branch(pg_temp.id('talk')) $$, 'PT404', 'conversation_not_found', 'a stranger reads nothing'
);
select throws_ok(
  $$ select public.select_variant(pg_temp.id('Q2')) $$, 'PT404', 'message_not_found', 'chooses nothing'
);
select throws_ok(
  $$ select public.delete_message(pg_temp.id('Q2')) $$, 'PT404', 'message_not_found', 'deletes nothing'
);
select throws_ok(
  $$ select public.rate_message(pg_temp.id('A1'), 1) $$, 'PT404', 'message_not_found', 'and rates nothing'
);

-- Deleting. The tree: Q1-A1-(Q2-A2-Q3-A3 | Q2b-(A2b | A2c)); A2b is shown.
select tests.authenticate_as('ben');
select throws_ok(
  $$ select public.delete_message(pg_temp.id('A2b')) $$, 'PT403', 'message_not_yours', 'nobody deletes an answer to somebody else'
);
select throws_ok(
  $$ select public.delete_message(pg_temp.id('Q1')) $$, 'PT403', 'message_not_yours', 'nor what somebody else wrote'
);
select pg_temp.say('Q4 of Ben', 'A4 to Ben');
select tests.authenticate_as('ada');
select is(pg_temp.delete('Q2b'), 1, 'a message with something below it is deleted');
select is(pg_temp.shown(), 'Q1, A1, - 2/2, A2b 1/2, Q4 of Ben, A4 to Ben', 'and leaves a tombstone');
select is(pg_temp.delete('Q2b'), 0, 'once');
select is(
  (select row(content, role, author_id) from public.messages where id = pg_temp.id('Q2b')),
  (select row(''::text, 'user'::text, auth.uid())), 'without its text, with its place and author'
);
select throws_ok(
  $$ select public.edit_message(pg_temp.id('Q2b'), 'Again') $$, 'PT404', 'message_not_found', 'it cannot be edited'
);
select throws_ok(
  $$ select public.regenerate_message(message_id => pg_temp.id('A2b')) $$, 'PT409', 'nothing_to_answer',
  'nor answered again'
);
select is(pg_temp.events('message.deleted'), 1::bigint, 'everybody is told, once');
select tests.authenticate_as('ben');
select is(pg_temp.delete('A4 to Ben'), 1, 'who asked for an answer deletes it');
select is(pg_temp.shown(), 'Q1, A1, - 2/2, A2b 1/2, Q4 of Ben', 'the branch then ends with the question');
select throws_ok(
  $$ select public.select_variant(pg_temp.id('A4 to Ben')) $$, 'PT404', 'message_not_found', 'what is gone cannot be chosen'
);
select pg_temp.answer(public.regenerate_message(pg_temp.id('talk')), 'A5 to Ben');
select is(
  pg_temp.shown(), 'Q1, A1, - 2/2, A2b 1/2, Q4 of Ben, A5 to Ben', 'which can be answered again; what is gone is no variant'
);
select pg_temp.answer(public.regenerate_message(pg_temp.id('talk')), 'A6 to Ben');
select is(pg_temp.select('A5 to Ben'), 'Q1, A1, - 2/2, A2b 1/2, Q4 of Ben, A5 to Ben 1/2', 'of two answers');
select is(pg_temp.delete('A5 to Ben'), 1, 'the one that is shown is deleted');
select is(pg_temp.shown(), 'Q1, A1, - 2/2, A2b 1/2, Q4 of Ben, A6 to Ben', 'and the other one takes its place');
select tests.become_postgres();
select is(
  (select count(*) from public.generation_chunks as c join public.messages as m on m.generation_id = c.generation_id where m.deleted_at is not null),
  0::bigint, 'no piece of a deleted answer is kept'
);
select is(
  (select count(*) from public.messages where selected_child_id = pg_temp.id('A5 to Ben')), 0::bigint,
  'what is gone is not chosen'
);

-- A branch. Ada's own: Q2b (deleted), A2b, A2c; Ben's: Q4, A6.
select tests.authenticate_as('ben');
select throws_ok(
  $$ select public.delete_message(pg_temp.id('A1'), true) $$, 'PT403', 'message_not_yours',
  'a branch is deleted from a message on that one may delete'
);
select tests.authenticate_as('ada');
select pg_temp.say('Q7', 'A7');
select tests.authenticate_as('ben');
select is(pg_temp.delete('Q4 of Ben', true), 2, 'a member deletes a branch as far as it is theirs');
select is(
  pg_temp.shown(), 'Q1, A1, - 2/2, A2b 1/2, -, -, Q7, A7', 'what others wrote below stays, under tombstones'
);
select tests.authenticate_as('ada');
select is(pg_temp.delete('A2b', true), 3, 'the owner deletes all of it');
select is(pg_temp.shown(), 'Q1, A1, - 2/2, A2c', 'and what is left is shown');
select is(pg_temp.delete('A2c'), 1, 'with the last thing below a tombstone');
select is(pg_temp.shown(), 'Q1, A1, Q2, A2, Q3, A3', 'the tombstone goes too');
select is(
  (select count(*) from public.messages where deleted_at is not null and not is_gone), 0::bigint, 'and none is left'
);
select public.send_message(pg_temp.id('talk'), 'Q8');
select throws_ok(
  $$ select public.delete_message((select active_leaf_id from public.conversations)) $$, 'PT409', 'generation_in_progress',
  'an answer on its way is not deleted'
);
select throws_ok(
  $$ select public.delete_message((select id from public.messages where content = 'Q8')) $$, 'PT409', 'generation_in_progress',
  'nor its question'
);
select throws_ok(
  $$ select public.delete_message(pg_temp.id('Q1'), true) $$, 'PT409', 'generation_in_progress', 'nor a branch with both'
);
select is(pg_temp.delete('A2'), 1, 'anything else is');
select public.cancel_generation((select id from public.generations where status = 'queued'));
select is(pg_temp.delete('Q1', true), 7, 'the whole conversation can be deleted');
select is(pg_temp.shown(), 'nothing', 'then it shows nothing');
select is((select active_leaf_id from public.conversations), null, 'and has no last message');
select pg_temp.say('Q9', 'A9');
select is(pg_temp.shown(), 'Q9, A9', 'it begins anew');
select pg_temp.answer(public.edit_message(pg_temp.id('Q9'), 'Q9b'), 'A9b');
select is(pg_temp.shown(), 'Q9b 2/2, A9b', 'the first message has variants like any other');
select is(pg_temp.delete('Q9b', true), 2, 'whose branch is deleted');
select is(pg_temp.shown(), 'Q9, A9', 'and the other one shown');

select * from finish();
rollback;
