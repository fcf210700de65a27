begin;
select plan(9);
insert into public.ai_models (id, display_name, context_window, max_output) values ('words', 'Words', 8000, 2000);
insert into private.ai_routes (model, provider, provider_model) values ('words', 'openrouter', 'words');

create function pg_temp.route() returns bigint language sql as $$
  select r.id from private.ai_routes as r where r.model = 'words';
$$;
create function pg_temp.factor() returns numeric language sql as $$
  select round((private.usable_routes('words') #>> '{routes,0,token_factor}')::numeric, 3);
$$;

select is(pg_temp.factor(), 1.000, 'a route that nobody has asked counts as we do');
select private.learn_tokens(pg_temp.route(), 1000, 1400);
select is(pg_temp.factor(), 1.400, 'the first answer says how it counts');
select private.learn_tokens(pg_temp.route(), 1000, 1500);
select is(
  (select round(t.average::numeric, 3) from private.ai_route_tokens as t where t.route_id = pg_temp.route()), 1.450,
  'the average moves with each answer'
);
select is(pg_temp.factor(), 1.400, 'prompts are made as before while it is near');
select private.learn_tokens(pg_temp.route(), 1000, 1800) from generate_series(1, 30);
select is(pg_temp.factor() between 1.65 and 1.8, true, 'and follow when it has moved away');
select private.learn_tokens(pg_temp.route(), 1000, 90000) from generate_series(1, 60);
select is(pg_temp.factor() <= 2, true, 'a provider that counts nonsense moves it to the bound and no further');
select private.learn_tokens(pg_temp.route(), 1000, 1) from generate_series(1, 90);
select is(pg_temp.factor() between 0.5 and 0.53, true, 'in both directions');
select private.learn_tokens(pg_temp.route(), 99, 500), private.learn_tokens(pg_temp.route(), null, 500),
  private.learn_tokens(pg_temp.route(), 1000, null), private.learn_tokens(null, 1000, 500), private.learn_tokens(-1, 99, 1);
select is(
  (select t.samples from private.ai_route_tokens as t where t.route_id = pg_temp.route()), 182::bigint,
  'short prompts and unknown figures teach nothing'
);
delete from private.ai_routes where model = 'words';
select is((select count(*) from private.ai_route_tokens as t where t.route_id = pg_temp.route()), 0::bigint, 'what a route taught goes with it');

select * from finish();
rollback;
