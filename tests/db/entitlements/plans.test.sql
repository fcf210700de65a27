begin;
select plan(16);
select tests.create_supabase_user('alice');
select tests.create_supabase_user('bob');
create temporary table people as
select name, tests.get_supabase_uid(name) as id from unnest(array['alice', 'bob']) as name;
grant select on people to public;
create function pg_temp.id_of(who text) returns uuid language sql stable as $$ select p.id from people as p where p.name = who $$;

select is((private.entitlements_of(pg_temp.id_of('alice'))).plan_id, 'free', 'a person without a plan has the plan free');
select is((private.entitlements_of(null)).plan_id, 'free', 'and so has a visitor');

select admin.set_plan(pg_temp.id_of('alice'), 'plus', '2031-01-01T00:00:00Z');
select is(
  (private.entitlements_of(pg_temp.id_of('alice'))).tokens_per_month, (select tokens_per_month from public.plans where id = 'plus'),
  'a plan holds from the next statement on'
);
select is(
  (private.entitlements_of(pg_temp.id_of('alice'), '2030-12-31T23:59:59.999Z')).plan_id, 'plus', 'until the moment before its end'
);
select is((private.entitlements_of(pg_temp.id_of('alice'), '2031-01-01T00:00:00Z')).plan_id, 'free', 'and not at its end');
select is((private.entitlements_of(pg_temp.id_of('bob'))).plan_id, 'free', 'of nobody else');

update public.plans set requests_per_day = 7 where id = 'plus';
select is((private.entitlements_of(pg_temp.id_of('alice'))).requests_per_day, 7, 'a changed plan holds from the next statement on');

insert into private.plan_overrides (user_id, requests_per_day, can_use_voice, unlimited)
values (pg_temp.id_of('alice'), 9, false, '{tokens_per_month,max_model_tier}');
select is(
  (select (e.requests_per_day, e.tokens_per_month, e.max_model_tier, e.can_use_voice, e.max_characters)::text
    from private.entitlements_of(pg_temp.id_of('alice')) as e),
  format('(9,,,f,%s)', (select max_characters from public.plans where id = 'plus')),
  'an override replaces a limit or takes it away, and leaves the others'
);
select throws_ok(
  $$ update private.plan_overrides set unlimited = '{can_use_voice}' $$, '23514', null, 'unlimited names limits only'
);

select throws_ok(
  $$ select admin.set_plan(pg_temp.id_of('alice'), 'gold') $$, 'PT404', 'plan_not_found', 'a plan has to exist'
);
select throws_ok($$ select admin.set_plan(gen_random_uuid(), 'plus') $$, 'PT404', 'user_not_found', 'so has the person');

select tests.authenticate_as('bob');
select results_eq(
  $$ select id, is_included, smallest_plan_id from public.my_models() where id in ('gpt-4o-mini', 'gemini-2.5-flash', 'claude-haiku-4-5') order by id $$,
  $$ values ('claude-haiku-4-5', false, 'pro'), ('gemini-2.5-flash', false, 'plus'), ('gpt-4o-mini', true, 'free') $$,
  'a person sees the models of larger plans too, and which are theirs'
);
select is((select count(*) from public.ai_models), (select count(*) from public.my_models()), 'as many as the table shows');
select tests.become_postgres();
select admin.set_plan(pg_temp.id_of('bob'), 'pro');
select tests.authenticate_as('bob');
select is_empty($$ select from public.my_models() where not is_included $$, 'a larger plan includes them');

select tests.clear_authentication();
select isnt_empty($$ select from public.plans where id = 'free' $$, 'visitors read the plans');
select throws_ok($$ select public.my_models() $$, '42501', null, 'and have no models');

select * from finish();
rollback;
