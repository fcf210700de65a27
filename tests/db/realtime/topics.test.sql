begin;
select plan(19);
select tests.create_supabase_user('alice');
select tests.create_supabase_user('bob');
create temporary table seen (name text primary key, topic text);
grant select, insert on seen to authenticated, anon;

select tests.authenticate_as('alice');
insert into public.characters (name, age) values ('Ada', 36);
insert into seen
select 'server', c.topic from public.start_conversation((select id from public.characters where owner_id = tests.get_supabase_uid('alice'))) as c;
insert into seen select 'peers', topic || ':peers' from seen where name = 'server';
insert into seen select 'own', topic from public.profile_private;

-- As Realtime asks: a probe row of the topic, the topic in the setting, then select or insert.
select tests.become_postgres();
insert into realtime.messages (topic, extension)
select s.topic, e.extension from seen as s cross join (values ('broadcast'), ('presence')) as e (extension);
create function pg_temp.may_read(name text, extension text) returns boolean language plpgsql as $$
begin
  perform set_config('realtime.topic', (select s.topic from seen as s where s.name = may_read.name), true);
  return exists (
    select from realtime.messages as m
    where m.topic = (select s.topic from seen as s where s.name = may_read.name) and m.extension = may_read.extension
  );
end;
$$;
create function pg_temp.may_write(name text, extension text) returns boolean language plpgsql as $$
begin
  perform set_config('realtime.topic', (select s.topic from seen as s where s.name = may_write.name), true);
  insert into realtime.messages (topic, extension)
  select s.topic, may_write.extension from seen as s where s.name = may_write.name;
  return true;
exception when insufficient_privilege then
  return false;
end;
$$;
grant execute on all functions in schema pg_temp to authenticated, anon;

select tests.authenticate_as('alice');
select ok(pg_temp.may_read('server', 'broadcast'), 'a participant hears the server');
select ok(not pg_temp.may_read('server', 'presence'), 'there is no presence on the server''s topic');
select ok(not pg_temp.may_write('server', 'broadcast'), 'nobody forges an event of the server');
select ok(not pg_temp.may_write('server', 'presence'), 'in no way');
select ok(pg_temp.may_read('peers', 'broadcast'), 'a participant hears the peers');
select ok(pg_temp.may_read('peers', 'presence'), 'and sees who is there');
select ok(pg_temp.may_write('peers', 'broadcast'), 'and says that they type');
select ok(pg_temp.may_write('peers', 'presence'), 'and that they are there');
select ok(pg_temp.may_read('own', 'broadcast'), 'a person hears their own topic');
select ok(not pg_temp.may_write('own', 'broadcast'), 'and does not write to it');

select tests.authenticate_as('bob');
select is(
  array(select name from seen where pg_temp.may_read(name, 'broadcast') or pg_temp.may_read(name, 'presence')), array[]::text[],
  'a stranger hears nothing'
);
select is(
  array(select name from seen where pg_temp.may_write(name, 'broadcast') or pg_temp.may_write(name, 'presence')), array[]::text[],
  'and says nothing'
);
select ok(not private.may_write_topic('conversation:%:peers', 'broadcast'), 'a pattern is no topic');
select ok(not private.may_read_topic('anything', 'broadcast'), 'nobody listens on a topic that is not known');

select tests.clear_authentication();
select ok(not pg_temp.may_read('server', 'broadcast'), 'a visitor hears nothing');
select ok(not pg_temp.may_write('peers', 'broadcast'), 'and says nothing');

select tests.become_postgres();
select admin.set_account_status(tests.get_supabase_uid('alice'), 'suspended');
select tests.authenticate_as('alice');
select ok(not pg_temp.may_read('server', 'broadcast'), 'a suspended person hears nothing');
select ok(not pg_temp.may_write('peers', 'broadcast'), 'and says nothing');
select tests.become_postgres();
select policies_are('realtime', 'messages', array[
  'people can listen on their topics', 'participants can write to the peers topic'
]);

select * from finish();
rollback;
