begin;
select plan(9);
select tests.create_supabase_user('alice');

create temporary table known as select (service.read_catalogue(null, null) ->> 'version')::bigint as version;
-- What a reader who remembers a version is told.
create function pg_temp.told() returns jsonb language sql volatile as $$
  select service.read_catalogue(tests.get_supabase_uid('alice'), (select version from known));
$$;
-- Whether it has to remember anew, which it then does.
create function pg_temp.renewed() returns boolean language plpgsql volatile as $$
declare
  told jsonb := pg_temp.told();
begin
  update known set version = (told ->> 'version')::bigint;
  return told ?& array['models', 'rules'];
end;
$$;

select is(
  pg_temp.told() - 'version', '{"plan": "free", "max_model_tier": 0, "is_active": true}',
  'who knows the version is told the plan of the moment and nothing else'
);
update public.ai_models set tier = 1 where id = 'gpt-4o-mini';
select ok(pg_temp.renewed(), 'a changed model is a new version');
select ok(not pg_temp.renewed(), 'which is told once');
update public.plans set max_model_tier = 1 where id = 'free';
select is(pg_temp.told() ->> 'max_model_tier', '1', 'a changed plan is told at once');
select ok(pg_temp.renewed(), 'and a new version');
insert into private.rate_rules (route, plan_id, capacity, refill_per_second) values ('chat/complete', 'free', 3, 1);
select ok(pg_temp.renewed(), 'so is a rule that was added');
delete from private.rate_rules where route = 'chat/complete';
select ok(pg_temp.renewed(), 'or taken away');
select admin.set_plan(tests.get_supabase_uid('alice'), 'pro');
select is(pg_temp.told() ->> 'plan', 'pro', 'another plan of the person is told at once');
select ok(not pg_temp.renewed(), 'and makes nobody remember anew');

select * from finish();
rollback;
