-- What was discarded goes in parts, from the deepest message up.
begin;
select plan(8);
select tests.create_supabase_user('ada');
create temporary table talk as select private.uuid_v7() as id;

-- Ten messages, one below the other, each with a variant beside it that was chosen.
insert into public.conversations (id, owner_id, title, topic)
select id, tests.get_supabase_uid('ada'), 'Long', 'conversation:' || id from talk;
do $$
declare
  talk_id uuid := (select id from talk);
  above   uuid;
  shown   uuid;
begin
  for n in 1 .. 10 loop
    insert into public.messages (conversation_id, parent_id, role, content) values (talk_id, above, 'assistant', 'Variant');
    insert into public.messages (conversation_id, parent_id, role, content)
    values (talk_id, above, 'assistant', 'Message ' || n) returning id into shown;
    update public.messages set selected_child_id = shown where id = above;
    above := shown;
  end loop;
  update public.conversations set active_leaf_id = shown, deleted_at = now() where id = talk_id;
end;
$$;

select is(private.purge_messages((select id from talk), 5), 6, 'whole levels go, as many as hold the wanted messages');
select is((select max(depth) from public.messages where conversation_id = (select id from talk)), 6, 'the deepest first');
select is((select active_leaf_id from public.conversations where id = (select id from talk)), null, 'what was shown is not any more');
select is(private.purge_conversations('0'), 0, 'without time a conversation stays');
select is((select count(*)::int from public.messages where conversation_id = (select id from talk)), 0, 'but some of it goes');
select is(private.purge_conversations('1 second', gen_random_uuid()), 0, 'nor for somebody else');
select is(private.purge_conversations(), 1, 'and the next time it is gone');
select is(private.purge_conversations_of(tests.get_supabase_uid('ada')), false, 'which ends the wait of whoever erases an account');

select * from finish();
rollback;
