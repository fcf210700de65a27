begin;
select plan(31);
select tests.create_supabase_user('owner');
select tests.create_supabase_user('guest');
create temporary table seen (name text primary key, id uuid);
grant select, insert on seen to anon, authenticated;

select tests.authenticate_as('owner');
insert into public.characters (name, age, visibility) values ('Ada', 36, 'public'), ('Eve', 30, 'public');
insert into seen select lower(name), id from public.characters;
insert into seen select 'talk', id from public.start_conversation((select id from seen where name = 'ada'));
insert into public.lorebooks (character_id, name) select id, 'Engines' from seen where name = 'ada';
insert into public.lorebooks (conversation_id) select id from seen where name = 'talk';
insert into seen select case when character_id is null then 'talk book' else 'ada book' end, id from public.lorebooks;

select throws_ok(
  $$ insert into public.lorebooks (character_id) select id from seen where name = 'ada' $$, '23505', null,
  'a character has one book at most'
);
select throws_ok(
  $$ insert into public.lorebooks (conversation_id) select id from seen where name = 'talk' $$, '23505', null,
  'and so has a conversation'
);
select throws_ok(
  $$ insert into public.lorebooks (character_id, conversation_id) select e.id, t.id from seen as e, seen as t
    where e.name = 'eve' and t.name = 'talk' $$,
  '23514', null, 'a book belongs to one of the two'
);
select throws_ok($$ insert into public.lorebooks (name) values ('Of nobody') $$, '42501', null, 'and not to neither');

prepare add (text[], boolean) as
  insert into public.lore_entries (lorebook_id, keys, uses_regex, content)
  select id, $1, $2, 'Lore.' from seen where name = 'ada book';
select lives_ok($$ execute add (array['engine', 'Analytical Engine'], false) $$, 'keys are words');
select lives_ok($$ execute add (array['(?=a)\1'], false) $$, 'in which nothing is special');
select lives_ok($$ execute add (array['\bengines?\b', '(?i)loom|weav(e|ing)', '[(]x{2,99}', '(?P<n>a)', '\(?=', '\\1'], true) $$, 'or patterns');
select throws_ok($$ execute add (array['a(?=b)'], true) $$, '23514', null, 'without look-ahead');
select throws_ok($$ execute add (array['a(?!b)'], true) $$, '23514', null, 'negative or not');
select throws_ok($$ execute add (array['(?<=a)b'], true) $$, '23514', null, 'look-behind');
select throws_ok($$ execute add (array['(?<!a)b'], true) $$, '23514', null, 'negative or not');
select throws_ok($$ execute add (array['(a)\1'], true) $$, '23514', null, 'back-references');
select throws_ok($$ execute add (array['(?<n>a)\k<n>'], true) $$, '23514', null, 'by name or number');
select throws_ok($$ execute add (array['(?>a+)b'], true) $$, '23514', null, 'atomic groups');
select throws_ok($$ execute add (array['a{1,1000}'], true) $$, '23514', null, 'and great counts');
select throws_ok($$ execute add (array[repeat('x', 201)], false) $$, '23514', null, 'a key has a length');
select throws_ok($$ execute add (array_fill('k'::text, array[65]), false) $$, '23514', null, 'an entry has a number of keys');
select throws_ok($$ execute add (array[' '], false) $$, '23514', null, 'a key is not blank');
select throws_ok(
  $$ insert into public.lore_entries (lorebook_id, placement) select id, 'at_depth' from seen where name = 'ada book' $$,
  '23514', null, 'an entry at a depth says which'
);
select lives_ok(
  $$ insert into public.lore_entries (lorebook_id, content) select s.id, 'Lore ' || n from seen as s, generate_series(1, 1997) as n
    where s.name = 'ada book' $$,
  'a book holds two thousand entries'
);
select throws_ok($$ execute add (array['one more'], false) $$, 'PT409', 'lorebook_full', 'and no more');

select public.invite_participant((select id from seen where name = 'talk'), tests.get_supabase_uid('guest'));
select tests.authenticate_as('guest');
select public.accept_invitation((select id from seen where name = 'talk'));
select is_empty($$ select 1 from public.lorebooks $$, 'a participant reads no lore of the conversation');
select throws_ok(
  $$ insert into public.lorebooks (conversation_id) select id from seen where name = 'talk' $$, '42501', null,
  'nor brings their own'
);

select tests.authenticate_as('owner');
insert into public.lore_entries (lorebook_id, content) select id, 'Of this talk.' from seen where name = 'talk book';
select public.leave_conversation((select id from seen where name = 'talk'));
select is_empty(
  $$ select 1 from public.lorebooks where conversation_id is not null $$, 'who leaves a conversation leaves its book'
);
select tests.authenticate_as('guest');
select results_eq(
  $$ select e.content from public.lorebooks as b join public.lore_entries as e on e.lorebook_id = b.id $$,
  $$ values ('Of this talk.') $$, 'to whoever owns it next'
);

select tests.authenticate_as('owner');
select is(
  (public.replace_lorebook(
    '{"name": "Looms", "entries": [{"keys": ["loom"], "content": "Weaves."}]}', character_id => (select id from seen where name = 'ada')
  )).name,
  'Looms', 'a book is replaced as a whole'
);
select results_eq(
  $$ select e.content from public.lore_entries as e join public.lorebooks as b on b.id = e.lorebook_id
    where b.character_id = (select id from seen where name = 'ada') $$,
  $$ values ('Weaves.') $$, 'with its entries'
);
select throws_ok($$ select public.replace_lorebook('{}') $$, 'PT422', 'lorebook_place_invalid', 'it has a place');
select throws_ok(
  $$ select public.replace_lorebook('{}', conversation_id => (select id from seen where name = 'talk')) $$,
  'PT404', 'conversation_not_found', 'of one''s own'
);
select throws_ok(
  $$ select public.replace_lorebook('{"entries": [{"keys": ["(?=x)"], "uses_regex": true}]}', character_id => (select id from seen where name = 'ada')) $$,
  '23514', null, 'the constraints hold'
);
select results_eq(
  $$ select name from public.lorebooks where character_id = (select id from seen where name = 'ada') $$,
  $$ values ('Looms') $$, 'and what is refused leaves the book as it was'
);

select * from finish();
rollback;
