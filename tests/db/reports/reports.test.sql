begin;
select plan(37);
select tests.create_supabase_user('owner');
select tests.create_supabase_user('reporter');
select tests.create_supabase_user('stranger');
select tests.create_supabase_user('moderator');
create temporary table seen (name text primary key, id uuid);
grant select, insert on seen to anon, authenticated;
select tests.become_postgres();
select admin.grant_role(tests.get_supabase_uid('moderator'), 'moderator');

select tests.authenticate_as('owner');
insert into public.characters (name, age, visibility, greeting) values
  ('Rude', 30, 'public', 'Something rude.'), ('Hidden', 30, 'private', '');
insert into seen select lower(name), id from public.characters;

select tests.authenticate_as('reporter');
insert into seen select 'talk', id from public.start_conversation((select id from seen where name = 'rude'));
insert into seen select 'message', id from public.messages;
prepare report (text, text, text) as
  select r.status, r.reason from seen as s, public.report_content($1, s.id, $3, 'It is.') as r where s.name = $2;

select results_eq($$ execute report ('character', 'rude', 'harassment') $$, $$ values ('open', 'harassment') $$, 'a character is reported');
select results_eq($$ execute report ('character', 'rude', 'spam') $$, $$ values ('open', 'harassment') $$,
  'once: a second report is the first');
select results_eq($$ execute report ('message', 'message', 'hate') $$, $$ values ('open', 'hate') $$, 'and so is a message');
select throws_ok($$ execute report ('character', 'hidden', 'spam') $$, 'PT404', 'character_not_found', 'what one cannot see is not there');
select throws_ok($$ execute report ('message', 'rude', 'spam') $$, 'PT404', 'message_not_found', 'nor a message that is none');
select throws_ok($$ execute report ('user', 'rude', 'spam') $$, 'PT422', 'report_invalid', 'a kind is known');
select throws_ok($$ execute report ('character', 'rude', 'dull') $$, 'PT422', 'report_invalid', 'a reason as well');
select throws_ok($$ execute report (null, 'rude', null) $$, 'PT422', 'report_invalid', 'both are given');
select throws_ok(
  $$ select public.report_content('character', id, 'spam', repeat('x', 2001)) from seen where name = 'rude' $$,
  'PT422', 'report_invalid', 'a detail has a length'
);
select is((select count(*) from public.reports), 2::bigint, 'people read their reports');
select throws_ok($$ select public.list_reports() $$, 'PT403', 'moderator_role_required', 'but not the moderators'' list');
select throws_ok($$ select public.resolve_report(id, 'dismissed') from public.reports $$, 'PT403', 'moderator_role_required',
  'and decide nothing');
select throws_ok($$ select public.hide_character(id) from seen where name = 'rude' $$, 'PT403', 'moderator_role_required', 'nor hide');
insert into public.blocks (blocked_id) values (tests.get_supabase_uid('owner'));
select lives_ok(
  $$ select public.report_content('character', id, 'spam') from seen where name = 'rude' $$, 'who has blocked can still report'
);

select tests.authenticate_as('stranger');
select throws_ok($$ execute report ('message', 'message', 'spam') $$, 'PT404', 'message_not_found', 'a message is reported by who reads it');
select is_empty($$ select 1 from public.reports $$, 'nobody reads another''s report');

-- What was reported stays as it was.
select tests.authenticate_as('owner');
select is_empty($$ select 1 from public.reports $$, 'not even who it is about');
update public.characters set greeting = 'Something nice.' where name = 'Rude';

select tests.authenticate_as('moderator');
insert into seen select 'report', (r ->> 'id')::uuid from public.list_reports() as r where r ->> 'kind' = 'character';
select results_eq(
  $$ select r ->> 'kind', r ->> 'detail', r #>> '{evidence,greeting}', (r ->> 'accused_id')::uuid, (r ->> 'reporter_id')::uuid, r -> 'reports_of_accused'
    from public.list_reports() as r where r ->> 'kind' = 'character' $$,
  $$ values ('character', 'It is.', 'Something rude.', tests.get_supabase_uid('owner'), tests.get_supabase_uid('reporter'), '2'::jsonb) $$,
  'moderators see what was reported as it was, by whom and of whom'
);
select results_eq(
  $$ select r #>> '{evidence,content}' from public.list_reports() as r where r ->> 'kind' = 'message' $$,
  $$ values ('Something rude.') $$, 'messages too'
);
select is((select count(*) from public.list_reports('open', (select id from seen where name = 'report'))), 1::bigint,
  'a page goes on after an id');
select is((select count(*) from public.list_reports(page_size => 1)), 1::bigint, 'and has a size');
select throws_ok($$ select public.list_reports('x') $$, 'PT422', 'report_status_unknown', 'reports are open, dismissed or upheld');
select throws_ok($$ select public.resolve_report(id, 'maybe') from seen where name = 'report' $$, 'PT422', 'resolution_invalid',
  'a report is dismissed or upheld');
select is(
  (select public.resolve_report(id, 'upheld', 'Rude indeed.') ->> 'note' from seen where name = 'report'), 'Rude indeed.',
  'with a note'
);
select lives_ok($$ select public.resolve_report(id, 'upheld') from seen where name = 'report' $$, 'the same again changes nothing');
select is((select r ->> 'note' from public.list_reports('upheld') as r), 'Rude indeed.', 'nothing at all');
select throws_ok($$ select public.resolve_report(id, 'dismissed') from seen where name = 'report' $$, 'PT409', 'report_resolved',
  'another decision is refused');
select throws_ok($$ select public.resolve_report(id, 'dismissed') from seen where name = 'rude' $$, 'PT404', 'report_not_found',
  'a report has to be there');
select lives_ok($$ select public.hide_character(id) from seen where name = 'rude' $$, 'a moderator hides a character');
select throws_ok($$ select public.get_character(id) from seen where name = 'rude' $$, 'PT404', 'character_not_found', 'which nobody sees then');
select is_empty($$ select 1 from public.search_characters('rude') as s join seen on seen.id = s.id $$, 'nor finds');

select tests.authenticate_as('reporter');
delete from public.blocks where blocker_id = auth.uid();
select throws_ok($$ select public.send_message(id, 'Hi') from seen where name = 'talk' $$, 'PT409', 'character_unavailable',
  'nor talks with');
select results_eq(
  $$ select status, resolved_at is not null from public.reports where kind = 'character' $$, $$ values ('upheld', true) $$,
  'the reporter learns how it ended'
);
select tests.authenticate_as('owner');
select isnt((select hidden_at from public.characters where name = 'Rude'), null, 'the owner sees it, and that it is hidden');

-- Twenty an hour.
select tests.become_postgres();
insert into public.characters (owner_id, name, age, visibility)
select tests.get_supabase_uid('owner'), 'Many ' || n, 30, 'public' from generate_series(1, 21) as n;
select tests.authenticate_as('stranger');
select throws_ok(
  $$ select public.report_content('character', id, 'spam') from public.characters where name like 'Many %' $$,
  'PT429', 'too_many_reports', 'nobody reports everything'
);

select tests.become_postgres();
update public.reports set created_at = now() - interval '2 years', resolved_at = now() - interval '181 days' where status = 'upheld';
select is(private.prune_report_evidence(), 1::bigint, 'evidence is kept for half a year');
select private.tombstone_user(tests.get_supabase_uid('reporter'));
select is((select count(*) from public.reports where reporter_id is null), 2::bigint, 'a deleted account leaves its reports without a name');

select * from finish();
rollback;
