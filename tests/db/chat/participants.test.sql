begin;
select plan(48);
select tests.create_supabase_user('owner');
select tests.create_supabase_user('member');
select tests.create_supabase_user('other');
select tests.create_supabase_user('hater');
create temporary table seen (name text primary key, id uuid, topic text);
grant select, insert, update on seen to authenticated;
create function pg_temp.talk() returns uuid language sql as $$ select id from seen where name = 'talk' $$;
create function pg_temp.id(name text) returns uuid language sql as $$ select tests.get_supabase_uid($1) $$;

select tests.authenticate_as('hater');
insert into public.blocks (blocked_id) values (pg_temp.id('owner'));
select tests.authenticate_as('owner');
insert into public.characters (name, age) values ('Ada', 36);
insert into seen
select 'talk', c.id, c.topic
from public.start_conversation((select id from public.characters where owner_id = pg_temp.id('owner'))) as c;

select throws_ok(
  $$ select public.invite_participant(pg_temp.talk(), gen_random_uuid()) $$, 'PT404', 'user_not_found',
  'nobody can be invited who does not exist'
);
select throws_ok(
  $$ select public.invite_participant(pg_temp.talk(), pg_temp.id('hater')) $$, 'PT404', 'user_not_found',
  'who blocked the owner looks absent'
);
select is((public.invite_participant(pg_temp.talk(), pg_temp.id('member'))).state, 'invited', 'the owner invites');
select is((public.invite_participant(pg_temp.talk(), pg_temp.id('member'))).state, 'invited', 'inviting twice changes nothing');
create temporary table first_invitation as
select expires_at from public.conversation_participants where user_id = pg_temp.id('member');
select is(
  (public.invite_participant(pg_temp.talk(), pg_temp.id('member'))).expires_at,
  (select expires_at from first_invitation), 'nor does it last longer'
);
select is(
  (public.invite_participant(pg_temp.talk(), pg_temp.id('member'), 'viewer')).role, 'viewer',
  'another role replaces an open invitation'
);
select cmp_ok(
  (public.invite_participant(pg_temp.talk(), pg_temp.id('member'), 'member')).expires_at, '>',
  (select expires_at from first_invitation), 'by one that lasts its own seven days'
);
select throws_ok(
  $$ select public.leave_conversation(pg_temp.talk()) $$, 'PT409', 'owner_cannot_leave_alone',
  'the last person cannot leave'
);
select throws_ok(
  $$ select public.remove_participant(pg_temp.talk(), pg_temp.id('owner')) $$, 'PT404', 'participant_not_found',
  'nobody removes themselves'
);

select tests.authenticate_as('member');
select results_eq(
  $$ select id, title from public.conversations $$, $$ select pg_temp.talk(), 'Ada' $$, 'who is invited sees what to'
);
select is_empty($$ select 1 from public.messages $$, 'and no message yet');
select ok(
  not private.may_read_topic((select topic from public.conversations), 'broadcast'), 'nor may they listen'
);
select is((public.accept_invitation(pg_temp.talk())).state, 'joined', 'they accept');
select is((public.accept_invitation(pg_temp.talk())).state, 'joined', 'accepting twice changes nothing');
select tests.authenticate_as('owner');
select is(
  (public.invite_participant(pg_temp.talk(), pg_temp.id('member'), 'viewer')).role, 'member', 'who has joined keeps their role'
);
select throws_ok(
  $$ update public.conversations set model_id = 'nope' $$, 'PT404', 'model_not_found', 'a model has to be there'
);
select throws_ok(
  $$ update public.conversations set model_id = 'text-embedding-3-small' $$, 'PT404', 'model_not_found', 'to be one for chats'
);
select lives_ok($$ update public.conversations set model_id = 'gpt-4o-mini' $$, 'and is chosen then');
select tests.authenticate_as('member');
select ok(private.may_read_topic((select topic from public.conversations), 'broadcast'), 'now they may listen');
select throws_ok(
  $$ select public.invite_participant(pg_temp.talk(), pg_temp.id('other')) $$, 'PT403', 'conversation_owner_required',
  'a member does not invite'
);
select throws_ok(
  $$ select public.remove_participant(pg_temp.talk(), pg_temp.id('owner')) $$, 'PT403', 'conversation_owner_required',
  'a member does not remove'
);

select tests.authenticate_as('owner');
select lives_ok($$ select public.remove_participant(pg_temp.talk(), pg_temp.id('member')) $$, 'the owner removes');
select isnt(
  (select topic from public.conversations), (select topic from seen where name = 'talk'), 'and the topic changes'
);
select ok((select peers_topic = topic || ':peers' from public.conversations), 'with the topic of the peers');
select tests.become_postgres();
select is(
  (
    select array_agg(split_part(topic, ':', 2)::uuid) from realtime.messages
    where event = 'conversation.topic_changed' and payload ->> 'topic' = (select topic from public.conversations where id = pg_temp.talk())
  ),
  array[pg_temp.id('owner')],
  'the new topic is told to those who stay, on their own topics'
);
select tests.authenticate_as('member');
select is_empty($$ select 1 from public.conversations $$, 'who was removed sees nothing more');
select throws_ok(
  $$ select public.accept_invitation(pg_temp.talk()) $$, 'PT404', 'invitation_not_found',
  'who was removed cannot come back by the old invitation'
);
select ok(
  not private.may_read_topic((select topic from seen where name = 'talk'), 'broadcast'), 'nor listen on the old topic'
);

select tests.authenticate_as('owner');
select public.invite_participant(pg_temp.talk(), pg_temp.id('member'));
select public.invite_participant(pg_temp.talk(), pg_temp.id('other'));
select tests.authenticate_as('member');
select public.accept_invitation(pg_temp.talk());
select tests.authenticate_as('other');
select lives_ok($$ select public.leave_conversation(pg_temp.talk()) $$, 'an invitation can be declined');
select tests.authenticate_as('owner');
select public.invite_participant(pg_temp.talk(), pg_temp.id('other'));
select tests.authenticate_as('other');
insert into public.blocks (blocked_id) values (pg_temp.id('member'));
select is(
  (select state from public.conversation_participants where user_id = pg_temp.id('other')), 'left',
  'a block withdraws the blocker''s invitation to where the other is'
);
select tests.authenticate_as('owner');
select public.invite_participant(pg_temp.talk(), pg_temp.id('other'));
select tests.authenticate_as('other');
select throws_ok(
  $$ select public.accept_invitation(pg_temp.talk()) $$, 'PT409', 'invitation_not_possible',
  'nobody joins a conversation with somebody they blocked'
);

select tests.authenticate_as('owner');
select public.leave_conversation(pg_temp.talk());
select tests.authenticate_as('member');
select is(
  (select owner_id from public.conversations), pg_temp.id('member'), 'when the owner leaves, ownership passes on'
);
select is(
  (select role from public.conversation_participants where user_id = pg_temp.id('member')), 'owner', 'with the role'
);

-- A block between two who share a conversation.
select public.invite_participant(pg_temp.talk(), pg_temp.id('owner'));
select tests.authenticate_as('owner');
select public.accept_invitation(pg_temp.talk());
select tests.become_postgres();
update seen set topic = (select topic from public.conversations where id = pg_temp.talk()) where name = 'talk';
select tests.authenticate_as('member');
insert into public.blocks (blocked_id) values (pg_temp.id('owner'));
select is(
  (select state from public.conversation_participants where user_id = pg_temp.id('owner')), 'removed',
  'from the blocker''s own conversation the other is removed'
);
select isnt((select topic from public.conversations), (select topic from seen where name = 'talk'), 'and the topic changes');

-- A mature character asks everybody for their own confirmation.
select public.invite_participant(pg_temp.talk(), pg_temp.id('hater'));
select tests.become_postgres();
update public.characters set is_mature = true;
select tests.authenticate_as('hater');
select throws_ok(
  $$ select public.accept_invitation(pg_temp.talk()) $$, 'PT403', 'mature_confirmation_required',
  'nobody joins a conversation with a mature character unasked'
);
select public.confirm_mature_content();
select is((public.accept_invitation(pg_temp.talk())).state, 'joined', 'after the confirmation they do');
select tests.authenticate_as('member');
select throws_ok(
  $$ select public.send_message(pg_temp.talk(), 'Hi') $$, 'PT409', 'character_unavailable',
  'a character whose owner was blocked is unavailable'
);

-- The limit of participants.
select tests.become_postgres();
update public.characters set is_mature = false;
select tests.create_supabase_user('guest' || n) from generate_series(1, 20) as n;
delete from public.conversation_participants where conversation_id = pg_temp.talk() and role <> 'owner';
select tests.authenticate_as('member');
select public.invite_participant(pg_temp.talk(), pg_temp.id('guest' || n)) from generate_series(1, 19) as n;
select throws_ok(
  $$ select public.invite_participant(pg_temp.talk(), pg_temp.id('guest20')) $$, 'PT409', 'conversation_full',
  'a conversation has at most twenty people'
);
select throws_ok(
  format($$ update public.conversations set topic = 'mine' where id = '%s' $$, pg_temp.talk()), '42501', null,
  'nobody writes a topic'
);
select lives_ok(
  $$ update public.conversations set title = 'Evenings', temperature = 1.1, max_tokens = 200 $$, 'the owner changes the settings'
);
select throws_ok($$ update public.conversations set temperature = 3 $$, '23514', null, 'within bounds');
select throws_ok($$ update public.conversations set title = E'two\nlines' $$, '23514', null, 'under a title of one line');

-- The end of an account.
select tests.authenticate_as('guest1');
select public.accept_invitation(pg_temp.talk());
select tests.become_postgres();
insert into public.messages (conversation_id, role, author_id, content)
values (pg_temp.talk(), 'user', pg_temp.id('member'), 'What I said.');
select tests.authenticate_as('member');
insert into public.characters (name, age, visibility) values ('Mine', 30, 'public');
insert into seen (name, id)
select 'alone', c.id from public.start_conversation((select id from public.characters where owner_id = pg_temp.id('member'))) as c;
select tests.become_postgres();
select private.detach_user_from_chat(pg_temp.id('member'));
select is(
  (select owner_id from public.conversations where id = pg_temp.talk()), pg_temp.id('guest1'),
  'a shared conversation passes on when an account ends'
);
select results_eq(
  $$ select content, author_id from public.messages where conversation_id = pg_temp.talk() $$,
  $$ values ('What I said.', null::uuid) $$, 'messages stay, without author'
);
select is_empty(
  $$ select 1 from public.conversations where id = (select id from seen where name = 'alone') and deleted_at is null $$,
  'a conversation without anybody else goes'
);
select is_empty(
  $$ select 1 from public.characters where owner_id = pg_temp.id('member') and deleted_at is null $$, 'characters go'
);
select lives_ok(
  $$ delete from auth.users where id = pg_temp.id('guest1') $$, 'deleting a user in the dashboard ends well'
);

select * from finish();
rollback;
