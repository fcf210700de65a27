-- Holds, settlement and receipts, below what asks for answers. Times are arguments.
begin;
select plan(47);
select tests.create_supabase_user('alice');
select tests.create_supabase_user('bob');
create temporary table people as select name, tests.get_supabase_uid(name) as id from unnest(array['alice', 'bob']) as name;
grant select on people to public;
create function pg_temp.id_of(who text) returns uuid language sql stable as $$ select p.id from people as p where p.name = who $$;
insert into public.ai_models (id, display_name, context_window, max_output, tier) values ('priced', 'Priced', 8000, 2000, 1);
-- Two routes: the first is cheaper, the second is what a hold reckons with.
insert into private.ai_routes (model, provider, provider_model, position, prompt_price, completion_price)
values ('priced', 'openai', 'cheap', 1, 1000000, 2000000), ('priced', 'openai', 'dear', 2, 3000000, 6000000),
  ('priced', 'openai', 'unknown', 3, null, null);
update public.plans set requests_per_minute = 3, requests_per_day = 4, tokens_per_month = 1000, micro_usd_per_month = 2000,
  concurrent_generations = 2, max_model_tier = 1 where id = 'free';

-- Asks for an answer of alice at a moment; says what came of it.
create function pg_temp.ask(at timestamptz, tokens integer default 100, completion uuid default gen_random_uuid(), model text default 'dolphin-mistral-24b-venice')
returns text language plpgsql as $$
declare
  hint text;
  was  text;
begin
  perform private.hold_usage(pg_temp.id_of('alice'), model, tokens / 2, tokens / 2, completion_id => completion, at => at);
  return 'held';
exception when others then
  get stacked diagnostics hint = pg_exception_hint, was = returned_sqlstate;
  return was || ' ' || sqlerrm || coalesce(' ' || hint, '');
end;
$$;
-- Settles one by what a provider told.
create function pg_temp.settle(completion uuid, prompt integer, answer integer, cost integer default 0)
returns void language plpgsql as $$
declare
  hold private.usage_holds := private.take_hold(completion);
begin
  if hold.id is not null then
    perform private.book_usage(hold, row(case when prompt is null then 0 else 1 end, prompt, 0, answer, cost, 1, 'openai/cheap', false), 'complete');
  end if;
end;
$$;
create function pg_temp.month(month date) returns text language sql stable as $$
  select format('%s requests, %s tokens, %s held, $%s, $%s held', p.requests, p.prompt_tokens + p.completion_tokens, p.held_tokens, p.cost_micro_usd, p.held_micro_usd)
  from public.usage_periods as p where p.user_id = pg_temp.id_of('alice') and p.period = month;
$$;
create function pg_temp.id(n integer) returns uuid language sql immutable as $$ select lpad(n::text, 32, '0')::uuid $$;

-- Concurrency.
select is(pg_temp.ask('2026-11-30T12:00:00Z', 100, pg_temp.id(1)), 'held', 'an answer is held');
select is(pg_temp.month('2026-11-01'), '1 requests, 0 tokens, 100 held, $0, $0 held', 'in the counters of the month');
select is(pg_temp.ask('2026-11-30T12:00:01Z', 100, pg_temp.id(2)), 'held', 'and a second one');
select is(
  pg_temp.ask('2026-11-30T12:00:02Z'), 'PT429 too_many_generations Wait for the end of one, or cancel one.',
  'a third at the same time is one too many'
);
select is(pg_temp.month('2026-11-01'), '2 requests, 0 tokens, 200 held, $0, $0 held', 'and is not counted');

select lives_ok(
  $$ select private.hold_usage(pg_temp.id_of('alice'), 'dolphin-mistral-24b-venice', 10, 10, completion_id => pg_temp.id(90),
    is_request => false, at => '2026-11-30T12:00:02Z') $$, 'work behind the scenes is no request'
);
select is(pg_temp.month('2026-11-01'), '2 requests, 0 tokens, 220 held, $0, $0 held', 'and is held all the same');
select pg_temp.settle(pg_temp.id(90), null, null);

-- Settlement.
select pg_temp.settle(pg_temp.id(1), 40, 30);
select is(pg_temp.month('2026-11-01'), '2 requests, 70 tokens, 100 held, $0, $0 held', 'an ended answer counts what it used instead');
select pg_temp.settle(pg_temp.id(1), 40, 30);
select is(pg_temp.month('2026-11-01'), '2 requests, 70 tokens, 100 held, $0, $0 held', 'once');
select results_eq(
  $$ select kind, completion_id, plan_id, model_id, route, day, calls, prompt_tokens, completion_tokens, cost_micro_usd, estimated
    from public.usage_receipts where owner_id = private.owner_of(pg_temp.id_of('alice')) $$,
  $$ values ('complete', pg_temp.id(1), 'free', 'dolphin-mistral-24b-venice', 'openai/cheap', '2026-11-30'::date, 1, 40::bigint, 30::bigint, 0::bigint, false) $$,
  'with a receipt'
);
select pg_temp.settle(pg_temp.id(2), null, null);
select is(pg_temp.month('2026-11-01'), '2 requests, 70 tokens, 0 held, $0, $0 held', 'one that used nothing gives everything back');
select is(
  (select count(*) from public.usage_receipts where owner_id = private.owner_of(pg_temp.id_of('alice'))), 1::bigint, 'without a receipt'
);

-- Requests per minute and per day.
select is(pg_temp.ask('2026-11-30T12:00:03Z', 100, pg_temp.id(3)), 'held', 'the third request of a minute');
select pg_temp.settle(pg_temp.id(3), 40, 30);
select is(
  pg_temp.ask('2026-11-30T12:00:04Z'), 'PT429 requests_per_minute_exceeded Try again after 2026-11-30T12:00:20.000Z.',
  'the fourth has to wait'
);
select is(pg_temp.ask('2026-11-30T12:00:20Z', 100, pg_temp.id(4)), 'held', 'until the moment that was said');
select pg_temp.settle(pg_temp.id(4), 40, 30);
select is(
  pg_temp.ask('2026-11-30T23:59:59.999Z'), 'PT429 requests_per_day_exceeded Try again after 2026-12-01T00:00:00.000Z.',
  'the fifth request of a day is one too many, to its last moment'
);
select is(pg_temp.ask('2026-12-01T00:00:00Z', 100, pg_temp.id(5)), 'held', 'the next day has its own');
select is(
  (select string_agg(day || ': ' || requests, ', ' order by day) from public.usage_daily where user_id = pg_temp.id_of('alice')),
  '2026-11-30: 4, 2026-12-01: 1', 'days are counted apart'
);

-- The border of months.
select is(pg_temp.month('2026-11-01'), '4 requests, 210 tokens, 0 held, $0, $0 held', 'so are months');
select is(pg_temp.month('2026-12-01'), '1 requests, 0 tokens, 100 held, $0, $0 held', 'each from its first moment');
update public.usage_periods set prompt_tokens = prompt_tokens + 700 where period = '2026-11-01' and user_id = pg_temp.id_of('alice');
update public.plans set requests_per_day = null, requests_per_minute = null, concurrent_generations = null where id = 'free';
select is(
  pg_temp.ask('2026-11-30T23:59:59.999Z', 92), 'PT429 tokens_per_month_exceeded Try again after 2026-12-01T00:00:00.000Z.',
  'used and wanted may not be more than the month''s tokens'
);
select is(pg_temp.ask('2026-11-30T23:59:59.999Z', 90, pg_temp.id(6)), 'held', 'the last of them may be had');
select is(
  pg_temp.ask('2026-11-30T23:59:59.999Z', 2), 'PT429 tokens_per_month_exceeded Try again after 2026-12-01T00:00:00.000Z.',
  'and what is held is not there for another'
);
select is(pg_temp.ask('2026-12-01T00:00:00Z', 900, pg_temp.id(7)), 'held', 'the new month has all of its own');
select pg_temp.settle(pg_temp.id(6), 40, 10);
select is(
  pg_temp.month('2026-11-01'), '5 requests, 960 tokens, 0 held, $0, $0 held', 'an answer that ends in December counts for November, when it was asked for'
);
select pg_temp.settle(pg_temp.id(7), 0, 0);
select pg_temp.settle(pg_temp.id(5), 0, 0);

-- Money: the dearest route's, a price that nobody knows is nothing.
select is(pg_temp.ask('2026-12-02T12:00:00Z', 200, pg_temp.id(8), 'priced'), 'held', 'an answer for money');
select is(
  pg_temp.month('2026-12-01'), '3 requests, 0 tokens, 200 held, $0, $900 held', 'is held at the price of the dearest route'
);
select is(
  pg_temp.ask('2026-12-02T12:00:00Z', 246, pg_temp.id(9), 'priced'),
  'PT429 budget_per_month_exceeded Try again after 2027-01-01T00:00:00.000Z.', 'the month''s money is not overspent either'
);
select is(
  (select b.r from (select service.raise_hold(pg_temp.id(8), 300, 1500) as r) as b),
  '{"budget_tokens": 300, "budget_micro_usd": 1500}', 'a hold can be raised'
);
select is(service.raise_hold(pg_temp.id(8), 100, 100), '{"budget_tokens": 300, "budget_micro_usd": 1500}', 'never lowered');
select throws_ok(
  $$ select service.raise_hold(pg_temp.id(8), 1001, 0) $$, 'PT429', 'tokens_per_month_exceeded', 'not beyond the tokens'
);
select throws_ok(
  $$ select service.raise_hold(pg_temp.id(8), 0, 2001) $$, 'PT429', 'budget_per_month_exceeded', 'nor beyond the money'
);
select is(
  pg_temp.month('2026-12-01'), '3 requests, 0 tokens, 300 held, $0, $1500 held', 'and the counters follow'
);
select pg_temp.settle(pg_temp.id(8), 100, 100, 300);
select is(pg_temp.month('2026-12-01'), '3 requests, 200 tokens, 0 held, $300, $0 held', 'until the answer ends');
select is(service.raise_hold(pg_temp.id(8), 1, 1), null, 'after which there is nothing to raise');

-- Models.
update public.plans set max_model_tier = 0 where id = 'free';
select is(
  pg_temp.ask('2026-12-03T12:00:00Z', 2, gen_random_uuid(), 'priced'),
  'PT403 model_not_in_plan The plan Plus includes it.', 'a model of a larger plan is refused by name'
);
insert into private.plan_overrides (user_id, unlimited)
values (pg_temp.id_of('alice'), '{max_model_tier,tokens_per_month,micro_usd_per_month,requests_per_day,requests_per_minute,concurrent_generations}');
select is(pg_temp.ask('2026-12-03T12:00:00Z', 100000000, pg_temp.id(10), 'priced'), 'held', 'who has no limits is held too');
select pg_temp.settle(pg_temp.id(10), 0, 0);
update private.plan_overrides set unlimited = '{}', requests_per_day = 0, max_model_tier = 5;
select is(
  pg_temp.ask('2026-12-03T12:00:00Z', 2), 'PT429 requests_per_day_exceeded Try again after 2026-12-04T00:00:00.000Z.', 'a limit of none is a limit'
);

-- What the person sees.
select tests.authenticate_as('alice');
select is(
  (select e -> 'used' from private.my_entitlements('2026-12-02T12:00:00Z') as e),
  '{"characters": 0, "held_tokens": 0, "storage_bytes": 0, "held_micro_usd": 0, "requests_today": 1, "tokens_this_month": 200, "micro_usd_this_month": 300, "concurrent_generations": 0}',
  'a person sees what they have used'
);
select is(
  (select (e -> 'plan' ->> 'id') || ' ' || (e ->> 'month_ends_at') from private.my_entitlements('2026-12-02T12:00:00Z') as e),
  'free 2027-01-01T00:00:00+00:00', 'under which plan, until when'
);
select is((select count(*) from public.my_usage(7)), 7::bigint, 'days without use are days too');
select is((select array_agg(completion_id order by id desc) from public.usage_receipts),
  (select array_agg(completion_id) from public.my_statement()), 'a statement is the receipts, newest first');
select is(
  (select array_agg(completion_id) from public.my_statement((select id from public.my_statement(page_size => 2) offset 1), 2)),
  (select array_agg(completion_id) from (select completion_id from public.my_statement() offset 2 limit 2) as p), 'page by page'
);
select tests.authenticate_as('bob');
select is_empty($$ select from public.my_statement() $$, 'of oneself only');

-- The end of an account: counters go, receipts stay, a hold waits for its answer.
select tests.become_postgres();
update private.plan_overrides set requests_per_day = null;
select is(pg_temp.ask('2026-12-04T12:00:00Z', 100, pg_temp.id(11)), 'held', 'an answer on its way');
create temporary table books as select private.owner_of(pg_temp.id_of('alice')) as id;
select private.tombstone_user(pg_temp.id_of('alice'));
select is_empty($$ select from public.usage_periods where user_id = pg_temp.id_of('alice') $$, 'when the account goes, so do the counters');
delete from auth.users where id = pg_temp.id_of('alice');
select pg_temp.settle(pg_temp.id(11), 5, 6);
select is(
  (select (count(*), sum(prompt_tokens + completion_tokens))::text from public.usage_receipts where owner_id = (select id from books)),
  '(9,471)', 'receipts stay, and the last answer gets its own'
);

select * from finish();
rollback;
