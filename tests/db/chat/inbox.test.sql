begin;
select plan(69);
select tests.create_supabase_user('ada');
select tests.create_supabase_user('ben');
select tests.create_supabase_user('cleo');
create temporary table seen (name text primary key, id uuid, text text);
grant select, insert, update on seen to authenticated;
create function pg_temp.id(name text) returns uuid language sql as $$ select id from seen where name = $1 $$;
create function pg_temp.uid(name text) returns uuid language sql as $$ select tests.get_supabase_uid($1) $$;
create function pg_temp.titles(archived boolean default false) returns text[] language sql as $$
  select array(select l.title from public.list_conversations(archived => titles.archived) as l)
$$;
create function pg_temp.unread(title text) returns integer language sql as $$
  select l.unread_count from public.list_conversations() as l where l.title = $1
$$;
create function pg_temp.events(kind text) returns bigint language sql security definer as $$
  select count(*) from realtime.messages where event = $1
$$;
-- Says something and has it answered.
create function pg_temp.say(talk text) returns void language plpgsql as $$
declare
  sent  jsonb := public.send_message(pg_temp.id(talk), 'Hello, ' || talk);
  lease jsonb;
begin
  perform set_config('role', 'postgres', true);
  lease := service.claim_generation((sent #>> '{generation,id}')::uuid);
  perform service.append_chunks(
    jsonb_build_array(lease || jsonb_build_object('chunks', jsonb_build_array(jsonb_build_object('seq', 1, 'text', 'Well.'))))
  );
  perform service.finish_generation(
    (lease ->> 'generation_id')::uuid, (lease ->> 'attempt')::integer, (lease ->> 'lease_token')::uuid, '{"status": "completed"}'
  );
  perform set_config('role', 'authenticated', true);
end;
$$;
grant execute on all functions in schema pg_temp to authenticated;

-- Starting.
select tests.authenticate_as('ada');
insert into public.characters (name, nickname, age, greeting, alternate_greetings, visibility)
values ('Captain Mira', 'Mira', 30, 'Hello, {{user}}. I am {{CHAR}}.', '{"Ahoy, <USER>!"}', 'public');
insert into seen (name, id) select 'mira', id from public.characters where owner_id = auth.uid();
insert into seen (name, id) select 'one', (public.start_conversation(pg_temp.id('mira'))).id;
insert into seen (name, id) select 'two', (public.start_conversation(pg_temp.id('mira'), 'key', 1, 'two')).id;
insert into seen (name, id) select 'three', (public.start_conversation(pg_temp.id('mira'), title => 'three')).id;
update public.conversations set title = 'one' where id = pg_temp.id('one');
select results_eq(
  $$ select content from public.messages where conversation_id in (pg_temp.id('one'), pg_temp.id('two')) order by id $$,
  $$ values ('Hello, ada. I am Mira.'), ('Ahoy, ada!') $$, 'a greeting or an alternate one comes first, with the names'
);
select is(
  (public.start_conversation(pg_temp.id('mira'), 'key', 1, 'two')).id, pg_temp.id('two'), 'the same key starts one conversation'
);
select throws_ok(
  $$ select public.start_conversation(pg_temp.id('mira'), 'key') $$, 'PT409', 'idempotency_key_reused', 'with one greeting'
);
select throws_ok(
  $$ select public.start_conversation(pg_temp.id('mira'), greeting_index => 2) $$, 'PT422', 'greeting_unknown',
  'a greeting that there is'
);
select throws_ok(
  $$ select public.start_conversation(pg_temp.id('mira'), greeting_index => -1) $$, 'PT422', 'greeting_unknown', 'counted from 0'
);
select throws_ok(
  $$ select public.start_conversation(pg_temp.id('mira'), title => E'two\nlines') $$, '23514', null, 'a title is one line'
);
select is(pg_temp.events('conversation.updated'), 1::bigint, 'a new title is told');

-- The list.
select is(pg_temp.titles(), '{three,two,one}', 'what was written in last comes first');
select pg_temp.say('one');
select is(pg_temp.titles(), '{one,three,two}', 'also later');
select is((public.update_inbox_entry(pg_temp.id('two'), is_pinned => true)).is_pinned, true, 'a conversation is pinned');
select is(pg_temp.titles(), '{two,one,three}', 'and stands before all others');
select is((public.update_inbox_entry(pg_temp.id('three'), is_archived => true)).is_archived, true, 'one is archived');
select is(pg_temp.titles(), '{two,one}', 'and is in the list no more');
select is(pg_temp.titles(true), '{three}', 'but in that of archived ones');
select is(pg_temp.events('inbox.changed'), 2::bigint, 'the person''s other screens are told');
select lives_ok($$ select public.update_inbox_entry(pg_temp.id('three'), is_archived => true) $$, 'twice changes nothing');
select is(pg_temp.events('inbox.changed'), 2::bigint, 'and tells nothing');
insert into seen (name, text) select 'cursor', l.cursor from public.list_conversations(page_size => 1) as l;
select results_eq(
  $$ select title from public.list_conversations((select text from seen where name = 'cursor'), 1) $$, $$ values ('one') $$,
  'the next page begins where one ended'
);
select is_empty(
  $$
    select from public.list_conversations(
      (select l.cursor from public.list_conversations((select text from seen where name = 'cursor'), 1) as l)
    )
  $$,
  'after the last one there is none'
);
select throws_ok(
  $$ select public.list_conversations('1.x') $$, 'PT422', 'cursor_invalid', 'a cursor is one that a page gave'
);
select results_eq(
  $$
    select my_role, participant_count, character_name, last_message ->> 'preview', unread_count
    from public.list_conversations() where title = 'one'
  $$,
  $$ values ('owner', 1, 'Captain Mira', 'Well.', 1) $$, 'a row says what a list shows'
);

-- Reading.
select is(pg_temp.unread('two'), 0, 'who starts a conversation has read its greeting');
select is((public.mark_read(pg_temp.id('one'))).last_read_message_id, (
  select active_leaf_id from public.conversations where id = pg_temp.id('one')
), 'a conversation is read to its end');
select is(pg_temp.unread('one'), 0, 'then nothing is unread');
insert into seen (name, id)
select 'greeting', id from public.messages where conversation_id = pg_temp.id('one') and parent_id is null;
select is(
  (public.mark_read(pg_temp.id('one'), pg_temp.id('greeting'))).last_read_message_id,
  (select active_leaf_id from public.conversations where id = pg_temp.id('one')), 'and what was read stays read'
);
select throws_ok(
  $$ select public.mark_read(pg_temp.id('two'), pg_temp.id('greeting')) $$, 'PT404', 'message_not_found',
  'a message of another conversation marks nothing'
);

-- Inviting.
select is((public.invite_participant(pg_temp.id('one'), pg_temp.uid('ben'), 'viewer')).role, 'viewer', 'somebody is invited to read');
select throws_ok(
  $$ select public.invite_participant(pg_temp.id('one'), pg_temp.uid('cleo'), 'owner') $$, 'PT422', 'participant_role_unknown',
  'not to own'
);
select throws_ok(
  $$ select public.set_participant_role(pg_temp.id('one'), pg_temp.uid('ben'), null) $$, 'PT422', 'participant_role_unknown',
  'a role is given or not'
);
select ok(
  (select expires_at - now() between '6 days 23 hours' and '7 days 1 hour' from public.conversation_participants where state = 'invited'),
  'for seven days'
);
select tests.authenticate_as('ben');
select is((select title from public.conversations), 'one', 'they see what to');
select is(pg_temp.titles(), '{}', 'which is not in their list yet');
select tests.become_postgres();
update public.conversation_participants set expires_at = now() where state = 'invited';
select tests.authenticate_as('ben');
select is_empty($$ select 1 from public.conversations $$, 'after that they see nothing');
select throws_ok(
  $$ select public.accept_invitation(pg_temp.id('one')) $$, 'PT410', 'invitation_expired', 'and cannot join'
);
select tests.authenticate_as('ada');
select ok(
  (public.invite_participant(pg_temp.id('one'), pg_temp.uid('ben'), 'member')).expires_at > now(), 'the owner invites again'
);
select tests.authenticate_as('ben');
select is((public.accept_invitation(pg_temp.id('one'))).expires_at, null, 'and they join');
select is(pg_temp.unread('one'), 3, 'with everything unread');
select is(pg_temp.titles(), '{one}', 'in a list of their own');
select tests.authenticate_as('ada');
select pg_temp.say('one');
select tests.authenticate_as('ben');
select is(pg_temp.unread('one'), 5, 'what others write is unread');
select pg_temp.say('one');
select is(pg_temp.unread('one'), 1, 'what stands above one''s own message is read');
select is(
  (select is_pinned from public.inbox_entries where conversation_id = pg_temp.id('one')), false, 'pins are everybody''s own'
);
select tests.authenticate_as('ada');
select is(
  (public.set_participant_role(pg_temp.id('one'), pg_temp.uid('ben'), 'viewer')).role, 'viewer', 'a member becomes a viewer'
);
select is(pg_temp.events('participant.changed'), 2::bigint, 'which is told in the conversation and to them');
select lives_ok($$ select public.set_participant_role(pg_temp.id('one'), pg_temp.uid('ben'), 'viewer') $$, 'twice changes nothing');
select is(pg_temp.events('participant.changed'), 2::bigint, 'and tells nothing');
select throws_ok(
  $$ select public.set_participant_role(pg_temp.id('one'), pg_temp.uid('ada'), 'viewer') $$, 'PT404', 'participant_not_found',
  'an owner stays one'
);
select tests.authenticate_as('ben');
select throws_ok(
  $$ select public.send_message(pg_temp.id('one'), 'Hi') $$, 'PT403', 'conversation_read_only', 'a viewer does not write'
);
select throws_ok(
  $$ select public.set_participant_role(pg_temp.id('one'), pg_temp.uid('ben'), 'member') $$, 'PT403',
  'conversation_owner_required', 'and gives themselves no role'
);
select public.leave_conversation(pg_temp.id('one'));
select is_empty($$ select 1 from public.inbox_entries $$, 'who leaves has no entry any more');
select throws_ok(
  $$ select public.mark_read(pg_temp.id('one')) $$, 'PT404', 'conversation_not_found', 'and reads nothing'
);
select throws_ok(
  $$ select public.update_inbox_entry(pg_temp.id('one')) $$, 'PT404', 'conversation_not_found', 'nor pins'
);

-- Versions.
select tests.authenticate_as('ada');
set constraints all immediate;
set constraints all deferred;
update public.characters set greeting = 'New.' where id = pg_temp.id('mira');
set constraints all immediate;
set constraints all deferred;
select is(
  (select character_version from public.conversations where id = pg_temp.id('one')), 1, 'a conversation stays with its version'
);
select is((public.move_to_newest_version(pg_temp.id('one'))).character_version, 2, 'until its owner moves it on');
select is((public.move_to_newest_version(pg_temp.id('one'))).character_version, 2, 'twice is once');
select public.invite_participant(pg_temp.id('one'), pg_temp.uid('cleo'));
select tests.authenticate_as('cleo');
select public.accept_invitation(pg_temp.id('one'));
select throws_ok(
  $$ select public.move_to_newest_version(pg_temp.id('one')) $$, 'PT403', 'conversation_owner_required', 'nobody else does'
);
select throws_ok(
  $$ select public.delete_conversation(pg_temp.id('one')) $$, 'PT403', 'conversation_owner_required', 'nor deletes it'
);

-- Deleting.
select tests.authenticate_as('ada');
select public.send_message(pg_temp.id('one'), 'The last word');
insert into public.lorebooks (conversation_id, name) values (pg_temp.id('one'), 'Lore of one');
select lives_ok($$ select public.delete_conversation(pg_temp.id('one')) $$, 'a conversation is deleted while an answer is on its way');
select is(pg_temp.titles(), '{two}', 'it is in no list');
select is_empty($$ select 1 from public.conversations where id = pg_temp.id('one') $$, 'nor read');
select is_empty($$ select 1 from public.lorebooks $$, 'its lore is gone');
select throws_ok(
  $$ select public.delete_conversation(pg_temp.id('one')) $$, 'PT404', 'conversation_not_found', 'twice finds nothing'
);
update public.conversations set title = 'Mine still' where title = 'one';
select tests.authenticate_as('cleo');
select is(pg_temp.titles(), '{}', 'nor does anybody else');
select tests.become_postgres();
select is(pg_temp.events('conversation.deleted'), 2::bigint, 'everybody is told');
select is((select title from public.conversations where id = pg_temp.id('one')), 'one', 'nobody changes it');
select is(
  (select status from public.generations where conversation_id = pg_temp.id('one') order by id desc limit 1), 'cancelled',
  'the answer has ended'
);
select is((select count(*) from private.generation_leases), 0::bigint, 'and nobody writes it');
select is(private.purge_conversations(), 1, 'its rows go soon');
select is_empty($$ select 1 from public.messages where conversation_id = pg_temp.id('one') $$, 'with all that was said');
select is(private.purge_conversations(), 0, 'once');

select * from finish();
rollback;
