begin;
select plan(14);
select tests.create_supabase_user('alice');
select tests.create_supabase_user('bob');
create temporary table things (name text primary key, id uuid);
grant all on things to public;
create function pg_temp.id_of(name text) returns uuid language sql as $$
  select t.id from things as t where t.name = id_of.name;
$$;
insert into things select name, tests.get_supabase_uid(name) from unnest(array['alice', 'bob']) as name;

-- Alice has a public character; Bob talks to it; both share a conversation that Alice began.
select tests.authenticate_as('alice');
with made as (insert into public.characters (name, age, greeting, visibility) values ('Iris', 30, 'Hello.', 'public') returning id)
insert into things select 'character', id from made;
insert into things select 'shared', (public.start_conversation(pg_temp.id_of('character'))).id;
insert into things select 'alone', (public.start_conversation(pg_temp.id_of('character'))).id;
select public.invite_participant(pg_temp.id_of('shared'), pg_temp.id_of('bob'));
select tests.authenticate_as('bob');
select public.accept_invitation(pg_temp.id_of('shared'));
insert into things select 'bobs', (public.start_conversation(pg_temp.id_of('character'))).id;
select tests.authenticate_as('alice');
select public.send_message(pg_temp.id_of('shared'), 'I was here', 'key-1');
select tests.become_postgres();
create temporary table topics as
select id, topic from public.conversations where id = pg_temp.id_of('shared');
create temporary table books as select private.owner_of(pg_temp.id_of('alice')) as id;

select service.begin_account_deletion(pg_temp.id_of('alice'));

select isnt(
  (select c.topic from public.conversations as c where c.id = pg_temp.id_of('shared')), (select t.topic from topics as t),
  'the topic of a shared conversation changes'
);
select tests.authenticate_as('bob');
select is(
  (select owner_id from public.conversations where id = pg_temp.id_of('shared')), pg_temp.id_of('bob'),
  'a shared conversation passes on'
);
select results_eq(
  $$ select content, author_id from public.messages
    where conversation_id = pg_temp.id_of('shared') and role = 'user' $$,
  $$ values ('I was here', null::uuid) $$, 'its messages keep their text, without author'
);
select isnt_empty(
  $$ select from public.messages where conversation_id = pg_temp.id_of('bobs') $$,
  'a conversation of somebody else with the person''s character is kept'
);
select is_empty($$ select from public.characters where id = pg_temp.id_of('character') $$, 'the character is gone from view');
select throws_ok(
  $$ select public.start_conversation(pg_temp.id_of('character')) $$, 'PT404', 'character_not_found',
  'nobody begins a new conversation with it'
);

select tests.authenticate_as('alice');
select is_empty($$ select from public.conversations $$, 'a live token reads no conversation');
select is_empty($$ select from public.messages $$, 'and no message');
select throws_ok(
  $$ select public.send_message(pg_temp.id_of('shared'), 'still here?', 'key-2') $$, 'PT403', 'account_not_active',
  'and sends none'
);

select tests.become_postgres();
select is_empty(
  $$ select from public.conversations where id = pg_temp.id_of('alone') and deleted_at is null $$, 'a conversation without anybody else goes'
);
select lives_ok($$ delete from auth.users where id = pg_temp.id_of('alice') $$, 'the user can be deleted then');
select isnt_empty(
  $$ select from public.messages where conversation_id = pg_temp.id_of('shared') and content = 'I was here' $$,
  'and the text is still there'
);
select isnt_empty(
  $$ select from public.conversations where id = pg_temp.id_of('bobs') $$, 'and so is the other one''s conversation'
);
select results_eq(
  $$ select user_id from private.owners join books using (id) $$, $$ values (null::uuid) $$, 'the books stay, nameless'
);

select * from finish();
rollback;
