-- A page of a long list of conversations costs what a page of a short one costs.
begin;
select plan(7);
select tests.create_supabase_user('ada');
select tests.create_supabase_user('ben');

-- Somebody's conversations, each of five messages of others; the newest is read up to the end, the next one up to the
-- fourth message, and so on.
create function pg_temp.fill(identifier text, count integer) returns void language plpgsql as $$
declare
  person uuid := tests.get_supabase_uid(identifier);
begin
  create temporary table talks on commit drop as
  select private.uuid_v7() as id, n, array[
    private.uuid_v7(), private.uuid_v7(), private.uuid_v7(), private.uuid_v7(), private.uuid_v7()
  ] as messages
  from generate_series(1, count) as n;
  insert into public.conversations (id, owner_id, title, topic, last_message_at)
  select id, person, 'Talk ' || n, 'conversation:' || id, now() - make_interval(mins => n) from talks;
  insert into public.conversation_participants (conversation_id, user_id, role, state, joined_at)
  select id, person, 'owner', 'joined', now() from talks;
  insert into public.messages (id, conversation_id, parent_id, role, content)
  select t.messages[d], t.id, t.messages[d - 1], 'assistant', 'Message ' || d
  from generate_series(1, 5) as d, talks as t
  order by d;
  update public.conversations as c
  set active_leaf_id = t.messages[5], last_message_at = now() - make_interval(mins => t.n)
  from talks as t where t.id = c.id;
  update public.inbox_entries as e
  set last_message_at = now() - make_interval(mins => t.n), last_read_message_id = t.messages[6 - t.n]
  from talks as t where t.id = e.conversation_id and e.user_id = person;
  drop table talks;
end;
$$;
select pg_temp.fill('ada', 3000);
select pg_temp.fill('ben', 40);
analyze public.messages, public.conversations, public.conversation_participants, public.inbox_entries;

-- Rows that a statement reads of the tables that grow: one after the other, and by an index.
create function pg_temp.rows_read(out scanned bigint, out looked_up bigint) language sql volatile as $$
  select sum(t.seq_tup_read), sum(t.idx_tup_fetch)
  from pg_stat_xact_user_tables as t
  where t.schemaname = 'public'
    and t.relname in ('messages', 'conversations', 'conversation_participants', 'inbox_entries');
$$;
create function pg_temp.reads(query text, out scanned bigint, out looked_up bigint) language plpgsql volatile as $$
declare
  before record := pg_temp.rows_read();
  after  record;
begin
  execute query;
  after := pg_temp.rows_read();
  scanned := after.scanned - before.scanned;
  looked_up := after.looked_up - before.looked_up;
end;
$$;
grant execute on all functions in schema pg_temp to authenticated;

select tests.authenticate_as('ada');
select results_eq(
  $$ select title, unread_count, my_role, participant_count, last_message ->> 'preview'
    from public.list_conversations(page_size => 7) $$,
  $$ values ('Talk 1', 0, 'owner', 1, 'Message 5'), ('Talk 2', 1, 'owner', 1, 'Message 5'), ('Talk 3', 2, 'owner', 1, 'Message 5'),
    ('Talk 4', 3, 'owner', 1, 'Message 5'), ('Talk 5', 4, 'owner', 1, 'Message 5'), ('Talk 6', 5, 'owner', 1, 'Message 5'),
    ('Talk 7', 5, 'owner', 1, 'Message 5') $$,
  'the list tells what is unread of each conversation, none of it where everything is read'
);
create temporary table reads as
select 'ada' as whose, r.* from pg_temp.reads('select public.list_conversations()') as r
union all
select 'ada later', r.*
from pg_temp.reads(format('select public.list_conversations(%L)', (
  select cursor from public.list_conversations(page_size => 100) offset 99
))) as r;
select tests.authenticate_as('ben');
insert into reads select 'ben', r.* from pg_temp.reads('select public.list_conversations()') as r;

select results_eq($$ select scanned from reads where whose = 'ada' $$, $$ values (0::bigint) $$, 'no table is read through');
select results_eq($$ select scanned from reads where whose = 'ada later' $$, $$ values (0::bigint) $$, 'nor for another page');
select results_eq(
  $$ select looked_up from reads where whose = 'ada' $$, $$ select looked_up from reads where whose = 'ben' $$,
  'thirty of 3,000 are as many rows as thirty of forty'
);
select cmp_ok((select looked_up from reads where whose = 'ada'), '<', 400::bigint, 'which are few');
select cmp_ok((select looked_up from reads where whose = 'ada later'), '<', 400::bigint, 'from anywhere');
select cmp_ok((select looked_up from reads where whose = 'ada'), '>', 100::bigint, 'and they are counted at all');

select * from finish();
rollback;
