-- What of a branch goes into prompts and summaries, and what of a trace is shown to whom.
begin;
select plan(17);
select tests.create_supabase_user('ada');
create temporary table talk as select private.uuid_v7() as id;
insert into public.conversations (id, owner_id, title, topic)
select id, tests.get_supabase_uid('ada'), 'Talk', 'conversation:' || id from talk;
create temporary table said (nth integer primary key, id uuid default private.uuid_v7());
insert into said (nth) select n from generate_series(1, 6) as n order by n;
insert into public.messages (id, conversation_id, parent_id, role, author_id, content)
select s.id, t.id, a.id, case s.nth % 2 when 1 then 'user' else 'assistant' end,
  case s.nth % 2 when 1 then tests.get_supabase_uid('ada') end, 'Text ' || s.nth
from said as s
cross join talk as t
left join said as a on a.nth = s.nth - 1
order by s.nth;
create function pg_temp.said(nth integer) returns uuid language sql as $$ select s.id from said as s where s.nth = said.nth; $$;
prepare branch (bigint) as select content, is_first from private.branch_above(pg_temp.said(6), $1);

select results_eq(
  $$ execute branch (1000) $$,
  $$ values ('Text 6', false), ('Text 5', false), ('Text 4', false), ('Text 3', false), ('Text 2', false), ('Text 1', true) $$,
  'a branch goes up to its root, newest first'
);
select results_eq(
  $$ execute branch (13) $$, $$ values ('Text 6', false), ('Text 5', false), ('Text 4', false) $$,
  'or as far as so many characters reach'
);
update public.messages set content = '', deleted_at = now() where id = pg_temp.said(4);
select results_eq(
  $$ select content from private.branch_above(pg_temp.said(6), 1000) limit 3 $$,
  $$ values ('Text 6'), ('Text 5'), ('Text 3') $$, 'without what was deleted'
);

-- Summaries tell what the one above them does not.
prepare untold as
  select jsonb_path_query_array(p, '$.messages[*].content'), p -> 'summary'
  from private.untold_part((select id from talk), pg_temp.said(6), 1000) as p;
select results_eq(
  $$ execute untold $$, $$ values ('["Text 1", "Text 2", "Text 3", "Text 5", "Text 6"]'::jsonb, 'null'::jsonb) $$,
  'at first everything is untold'
);
select private.request_summary((select id from talk), pg_temp.said(3)::text);
select is((select count(*)::int from public.jobs where kind = 'summarise'), 1, 'a summary is asked for');
delete from public.jobs where kind = 'summarise';
insert into public.conversation_summaries (conversation_id, message_id, content) select id, pg_temp.said(3), 'Told.' from talk;
select results_eq(
  $$ execute untold $$, $$ values ('["Text 5", "Text 6"]'::jsonb, '"Told."'::jsonb) $$, 'then what came since the last summary'
);
select private.request_summary((select id from talk), pg_temp.said(3)::text);
select private.request_summary((select id from talk), gen_random_uuid()::text);
select private.request_summary((select id from talk), 'no id');
select is((select count(*)::int from public.jobs where kind = 'summarise'), 0, 'what is told, or is no message here, is not asked for');

-- Lore has as much text as a prompt can surely hold; switched-off entries count for nothing.
insert into public.lorebooks (conversation_id, owner_id) select id, tests.get_supabase_uid('ada') from talk;
insert into public.lore_entries (lorebook_id, owner_id, position_in_book, is_enabled, content)
select b.id, b.owner_id, n, n > 1, repeat('x', 32000)
from public.lorebooks as b, generate_series(0, 127) as n
where b.conversation_id = (select id from talk);
select results_eq(
  $$ select (e ->> 'position')::int from talk, jsonb_path_query(private.lore_material(null, talk.id), '$[0].entries[*]') as e
    where e -> 'content' = 'null' order by 1 $$,
  $$ values (0), (1), (127) $$, 'a book too large gives what its first entries say'
);

-- Each sees of a trace what is theirs.
create temporary table trace as select jsonb_build_object(
  'tokens', 10,
  'character_version', 1,
  'sections', '[
    {"name": "instruction", "source": "parlor", "outcome": "in", "chars": 1, "tokens": 1},
    {"name": "personality", "source": "character", "outcome": "in", "chars": 2, "tokens": 1, "reason": "secret"},
    {"name": "lore", "source": "lore", "book": "character", "outcome": "in", "chars": 3, "tokens": 1, "reason": "key"},
    {"name": "lore", "source": "lore", "book": "conversation", "outcome": "in", "chars": 4, "tokens": 1, "reason": "key"}
  ]'::jsonb,
  'left_out_lore', '{"character": {"no_key": [1]}, "conversation": {"no_key": [2]}}'::jsonb
) as seen;
create function pg_temp.shown(owns_character boolean, owns_conversation boolean, path jsonpath) returns jsonb language sql as $$
  select jsonb_path_query_array(private.readable_trace(t.seen, owns_character, owns_conversation, null), path) from trace as t;
$$;
select is(pg_temp.shown(true, true, '$.sections[*].reason'), '["secret", "key", "key"]', 'both owners see why each part is there');
select is(pg_temp.shown(true, false, '$.sections[*].reason'), '["secret", "key"]', 'the character''s owner of its parts');
select is(pg_temp.shown(false, true, '$.sections[*].reason'), '["key"]', 'the conversation''s owner of its lore');
select is(pg_temp.shown(false, false, '$.sections[*].reason'), '[]', 'others of none');
select is(pg_temp.shown(false, false, '$.sections[*].chars'), '[1, 2, 3, 4]', 'but how large each is');
select is(pg_temp.shown(false, false, '$.sections[*].book'), '[]', 'and not from which book');
select is(pg_temp.shown(true, false, '$.left_out_lore.*'), '[{"no_key": [1]}]', 'lore that was left out is its owner''s');
select is(pg_temp.shown(false, true, '$.left_out_lore.*'), '[{"no_key": [2]}]', 'each book''s');
select is(pg_temp.shown(false, false, '$.tokens'), '[10]', 'everybody sees the size of it all');

select * from finish();
rollback;
