-- Lists under row level security are served by an index, whatever others have.
begin;
select plan(5);
select tests.create_supabase_user('alice');
select tests.create_supabase_user('bob');
select tests.create_supabase_user('person' || n) from generate_series(1, 200) as n;

insert into public.conversations (id, owner_id, title, topic)
select private.uuid_v7(), tests.get_supabase_uid('bob'), 'Talk ' || n, 'conversation:' || n from generate_series(1, 3000) as n;
insert into public.conversation_participants (conversation_id, user_id, role, state, joined_at)
select c.id, p.id, 'member', 'joined', now()
from (select id, row_number() over () as n from public.conversations) as c
join (select id, row_number() over () as n from public.profiles where display_name like 'person%') as p on p.n = c.n % 200 + 1;
insert into public.messages (conversation_id, role, content)
select id, 'assistant', 'Hello' from public.conversations cross join generate_series(1, 2);
insert into public.characters (owner_id, name, age, visibility)
select tests.get_supabase_uid('bob'), 'Character ' || n, 30, case when n % 3 = 0 then 'public' else 'private' end
from generate_series(1, 3000) as n;
insert into public.conversations (owner_id, title, topic)
values (tests.get_supabase_uid('alice'), 'Mine', 'conversation:mine');
insert into public.conversation_participants (conversation_id, user_id, role, state, joined_at)
select id, owner_id, 'owner', 'joined', now() from public.conversations where title = 'Mine';
analyze public.conversations, public.conversation_participants, public.messages, public.characters;

-- The kinds of scan that a query makes.
create function pg_temp.scans(query text) returns text[] language plpgsql as $$
declare
  plan jsonb;
begin
  execute 'explain (format json) ' || query into plan;
  return array(select distinct n #>> '{}' from jsonb_path_query(plan, 'strict $.**."Node Type"') as n where n #>> '{}' like '%Scan' order by 1);
end;
$$;
grant execute on all functions in schema pg_temp to authenticated;

select tests.authenticate_as('alice');
select ok(
  not 'Seq Scan' = any (pg_temp.scans('select * from public.conversations order by last_message_at desc limit 50')),
  'one''s conversations are read by an index'
);
select ok(
  not 'Seq Scan' = any (pg_temp.scans('select * from public.conversation_participants')),
  'so are their participants'
);
select ok(
  not 'Seq Scan' = any (pg_temp.scans('select * from public.messages order by id desc limit 50')),
  'so are all messages that one may read'
);
select ok(
  not 'Seq Scan' = any (pg_temp.scans(format(
    'select * from public.messages where conversation_id = %L order by id limit 50', (select id from public.conversations)
  ))),
  'so is one conversation'
);
select ok(
  not 'Seq Scan' = any (pg_temp.scans('select * from public.characters order by id desc limit 20')),
  'so are the newest characters'
);

select * from finish();
rollback;
