begin;
select plan(26);
select tests.become_postgres();
insert into public.ai_models (id, display_name, context_window, max_output) values ('m', 'M', 1000, 100);
insert into private.ai_routes (model, provider, provider_model, position, prompt_price, cached_price, completion_price)
values ('m', 'openai', 'one', 1, 150000, 75000, 600000), ('m', 'groq', 'two', 2, null, null, null);
create temporary table t as select clock_timestamp() as at, (select id from private.ai_routes where model = 'm' and position = 1) as route;
create function pg_temp.usable(after interval default '0') returns text language sql as $$
  select string_agg(r ->> 'model', ',') from t, jsonb_array_elements(private.usable_routes('m', t.at + after) -> 'routes') as r;
$$;
create function pg_temp.report(code text, retry double precision default null, after interval default '0') returns void language sql as $$
  select private.report_route(t.route, code, retry, t.at + after) from t;
$$;

-- Prices.
select is(
  (select array[c.cost_micro_usd, c.price_version] from t, private.price_call(t.route, '{"prompt_tokens": 1000, "cached_tokens": 400, "completion_tokens": 10}') as c),
  array[126::bigint, 1], 'cached tokens have a price of their own'
);
select is((select c.cost_micro_usd from t, private.price_call(t.route, '{"prompt_tokens": 1, "completion_tokens": 0}') as c), 1::bigint, 'a part of a millionth is rounded up');
select is((select c.cost_micro_usd from t, private.price_call(t.route, null) as c), null, 'without usage there is no cost');
select is(
  (select c.cost_micro_usd from private.price_call((select id from private.ai_routes where model = 'm' and position = 2), '{"prompt_tokens": 1, "completion_tokens": 1}') as c),
  null, 'a price that is not known makes no cost'
);
update private.ai_routes set position = 5 where model = 'm' and position = 1;
select is((select price_version from private.ai_routes as r, t where r.id = t.route), 1, 'another change leaves the version');
update private.ai_routes set prompt_price = 1 where model = 'm' and position = 5;
update private.ai_routes set position = 1 where model = 'm' and position = 5;
select is((select price_version from private.ai_routes as r, t where r.id = t.route), 2, 'a change of a price raises it');
select throws_ok('update private.ai_routes set completion_price = null where model = ''m'' and position = 1', '23514', null, 'half a price is none');

-- The breaker.
select is(pg_temp.usable(), 'one,two', 'routes come in their order');
select pg_temp.report(null);
select is_empty('select 1 from private.ai_route_health as h, t where h.route_id = t.route', 'a success of a route that was well writes nothing');
select pg_temp.report('context_too_long');
select is_empty('select 1 from private.ai_route_health as h, t where h.route_id = t.route', 'nor does a failure that is the request''s own');
select pg_temp.report('provider_unavailable') from generate_series(1, 4);
select is(pg_temp.usable(), 'one,two', 'four failures leave it in');
select pg_temp.report('provider_timeout');
select is(pg_temp.usable(), 'two', 'the fifth takes it out');
select pg_temp.report('provider_timeout', after => '1 second');
select is(pg_temp.usable('29 seconds'), 'two', 'for thirty seconds');
select is(pg_temp.usable('31 seconds'), 'one,two', 'then one caller probes it, not put off by failures that began before');
select is(pg_temp.usable('32 seconds'), 'two', 'and only one');
select is(pg_temp.usable('62 seconds'), 'one,two', 'until the probe is given up');
select pg_temp.report('answer_interrupted', after => '63 seconds');
select is(pg_temp.usable('122 seconds'), 'two', 'a probe that fails leaves it out for twice as long');
select is(pg_temp.usable('124 seconds'), 'one,two', 'and not longer');
select pg_temp.report(null, after => '125 seconds');
select is((select array[h.failures, h.openings] from private.ai_route_health as h, t where h.route_id = t.route), array[0, 0], 'a probe that succeeds closes it');
select pg_temp.report('provider_rate_limited', 7, '200 seconds');
select is(
  (select private.usable_routes('m', t.at + interval '202 seconds') #>> '{skipped,0,retry_after_seconds}' from t), '5', 'Retry-After opens at once'
);
select pg_temp.report('provider_quota_exhausted', after => '201 seconds');
select is(pg_temp.usable('3600 seconds'), 'two', 'an empty account is left out for an hour');
select admin.close_route(t.route) from t;
select is(pg_temp.usable('300 seconds'), 'one,two', 'an operator closes it at once');

-- Settings.
select throws_ok('select admin.set_generation_ceiling(0)', 'PT422', 'ceiling_invalid', 'a ceiling is more than nothing');
select admin.set_generation_ceiling(5);
select is(private.usable_routes('m') #>> '{routes,0,ceiling_micro_usd}', '5', 'the ceiling goes out with each route');
select throws_ok('select admin.set_moderation(''nobody'')', 'PT404', 'provider_not_found', 'moderation wants a provider that is there');
select throws_ok('select admin.set_moderation(''openai'', ''x'', ''maybe'')', 'PT422', 'moderation_invalid', 'and a choice');
select * from finish();
rollback;
