-- A page of a long conversation costs what a page of a short one costs.
begin;
select plan(4);
select tests.create_supabase_user('ada');
create temporary table seen (length integer primary key, id uuid);
grant select on seen to authenticated;

-- A conversation of so many messages, one below the other; each tenth one has a variant.
create function pg_temp.fill(length integer) returns void language plpgsql as $$
declare
  talk  uuid := private.uuid_v7();
  above uuid;
  last  uuid;
begin
  insert into public.conversations (id, owner_id, title, topic)
  values (talk, tests.get_supabase_uid('ada'), 'Long', 'conversation:' || talk);
  insert into public.conversation_participants (conversation_id, user_id, role, state, joined_at)
  values (talk, tests.get_supabase_uid('ada'), 'owner', 'joined', now());
  for n in 1 .. length loop
    if n % 10 = 0 then
      insert into public.messages (conversation_id, parent_id, role, content) values (talk, last, 'user', 'Another ' || n);
    end if;
    insert into public.messages (conversation_id, parent_id, role, content)
    values (talk, last, case n % 2 when 1 then 'assistant' else 'user' end, 'Message ' || n)
    returning id into last;
  end loop;
  update public.conversations set active_leaf_id = last where id = talk;
  insert into seen values (length, talk);
end;
$$;
select pg_temp.fill(100);
select pg_temp.fill(2000);
analyze public.messages;

-- Pages of the buffer cache that reading a page of messages touches; the first call of a session also
-- reads the catalogue.
create function pg_temp.pages(length integer, before uuid default null) returns integer language plpgsql as $$
declare
  query text := format(
    'select * from public.conversation_branch(%L, %L)', (select id from seen where seen.length = pages.length), before
  );
  plan  jsonb;
begin
  execute query;
  execute 'explain (analyze, buffers, format json) ' || query into plan;
  return (plan #>> '{0,Plan,Shared Hit Blocks}')::integer + (plan #>> '{0,Plan,Shared Read Blocks}')::integer;
end;
$$;
grant execute on all functions in schema pg_temp to authenticated;

select tests.authenticate_as('ada');
select is(
  (
    select array_agg(content order by depth) from public.conversation_branch((select id from seen where length = 2000), null, 3)
  ),
  '{Message 1998,Message 1999,Message 2000}', 'the newest messages are read'
);
select cmp_ok(pg_temp.pages(2000), '<', 1000, 'fifty messages are read in few pages');
select cmp_ok(
  pg_temp.pages(2000), '<', pg_temp.pages(100) * 3 / 2, 'about as many as of a conversation twenty times shorter'
);
select cmp_ok(
  pg_temp.pages(2000, (select id from public.messages where content = 'Message 1000' and depth = 999)), '<', 1000,
  'also in the middle of it'
);

select * from finish();
rollback;
