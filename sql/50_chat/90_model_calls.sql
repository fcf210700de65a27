-- completions: text and analyses that belong to no conversation. Only what they cost is kept; neither
-- what was asked nor what was answered.
create table private.completions (
  id          uuid primary key default private.uuid_v7(),
  user_id     uuid references public.profiles (id) on delete set null,
  kind        text not null constraint completions_kind_known check (kind in ('complete', 'analyze')),
  model_id    text references public.ai_models (id) on update cascade on delete set null,
  outcome     text constraint completions_outcome_known check (outcome in ('completed', 'failed', 'cancelled', 'lost')),
  code        text,
  started_at  timestamptz not null default clock_timestamp(),
  finished_at timestamptz,
  constraint completions_finished_with_outcome check ((finished_at is null) = (outcome is null))
);

create index completions_by_user on private.completions (user_id);
create index completions_by_model on private.completions (model_id);
create index completions_open on private.completions (started_at) where finished_at is null;

revoke all on table private.completions from public, anon, authenticated, service_role;
comment on table private.completions is 'Requests of chat/complete and chat/analyze, without their text.';
comment on column private.completions.code is 'Why it failed.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('private', 'completions', 'user_id', 'detach', 'exclude');

-- model_calls: one row per call of a provider that no row of generation_attempts stands for: every call
-- for a completion, and the calls for answers that failed before the first word.
create table private.model_calls (
  id                  bigint generated always as identity primary key,
  completion_id       uuid references private.completions (id) on delete cascade,
  generation_id       uuid references public.generations (id) on delete cascade,
  route_id            bigint references private.ai_routes (id) on delete set null,
  code                text,
  usage               jsonb,
  cost_micro_usd      bigint constraint model_calls_cost_not_negative check (cost_micro_usd >= 0),
  price_version       integer,
  provider_request_id text,
  took_ms             integer,
  created_at          timestamptz not null default clock_timestamp(),
  constraint model_calls_serve_one check (num_nonnulls(completion_id, generation_id) = 1)
);

create index model_calls_by_completion on private.model_calls (completion_id) where completion_id is not null;
create index model_calls_by_generation on private.model_calls (generation_id) where generation_id is not null;
create index model_calls_by_route on private.model_calls (route_id);

revoke all on table private.model_calls from public, anon, authenticated, service_role;
comment on table private.model_calls is
'Calls of providers beside those of generation_attempts, with usage and cost in millionths of a dollar.';
comment on column private.model_calls.code is 'Why the call failed; null: it did not.';
comment on column private.model_calls.usage is 'The provider''s figures, or ours with estimated true; null: it used nothing.';

alter table private.generation_attempts add column price_version integer;
comment on column private.generation_attempts.price_version is 'Of the route''s prices, by which cost_micro_usd was computed.';

-- Computes what a call cost when its usage becomes known, by the prices of that moment.
create function private.tg_model_calls__cost()
returns trigger
language plpgsql
security invoker
set search_path = ''
as $$
begin
  select c.cost_micro_usd, c.price_version into new.cost_micro_usd, new.price_version
  from private.price_call(new.route_id, new.usage) as c;
  return new;
end;
$$;

create trigger _100_cost before insert on private.model_calls
  for each row when (new.usage is not null) execute function private.tg_model_calls__cost();
create trigger _100_cost before update of usage, route_id on private.generation_attempts
  for each row when (new.usage is not null and new.route_id is not null)
  execute function private.tg_model_calls__cost();

revoke all on function private.tg_model_calls__cost() from public, anon, authenticated, service_role;

-- What an answer has cost the operator so far, all its attempts and failed calls together.
create function private.spent_on(generation_id uuid)
returns bigint
language sql
stable
security invoker
set search_path = ''
as $$
  select coalesce(sum(c.cost), 0)::bigint
  from (
    select a.cost_micro_usd as cost from private.generation_attempts as a where a.generation_id = spent_on.generation_id
    union all
    select m.cost_micro_usd from private.model_calls as m where m.generation_id = spent_on.generation_id
  ) as c;
$$;

revoke all on function private.spent_on(uuid) from public, anon, authenticated, service_role;

-- Tells how a call of a provider ended: the route's circuit breaker hears of it, and where the call
-- belongs to a completion, or failed for an answer before its first word, it becomes a row.
-- Runs as its owner: runners reach no table.
create function private.report_call(call jsonb)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  perform private.report_route(
    (report_call.call ->> 'route_id')::bigint,
    report_call.call ->> 'code',
    (report_call.call ->> 'retry_after_seconds')::double precision
  );
  insert into private.model_calls
    (completion_id, generation_id, route_id, code, usage, provider_request_id, took_ms)
  select
    c.id, g.id, r.id, left(report_call.call ->> 'code', 100), nullif(report_call.call -> 'usage', 'null'),
    left(report_call.call ->> 'provider_request_id', 200), (report_call.call ->> 'took_ms')::integer
  -- A conversation or a route may be gone by now; then nobody asks what the call cost for it.
  from (select) as one
  left join private.completions as c on c.id = (report_call.call ->> 'completion_id')::uuid
  left join public.generations as g on g.id = (report_call.call ->> 'generation_id')::uuid
  left join private.ai_routes as r on r.id = (report_call.call ->> 'route_id')::bigint
  where num_nonnulls(c.id, g.id) = 1;
end;
$$;

create function service.report_call(call jsonb)
returns void
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.report_call(report_call.call);
$$;

revoke all on function private.report_call(jsonb), service.report_call(jsonb)
  from public, anon, authenticated, service_role;
grant execute on function private.report_call(jsonb), service.report_call(jsonb) to service_role;
comment on function service.report_call(jsonb) is
'Tells how a call of a provider ended: {route_id, code (null: well), retry_after_seconds, usage, provider_request_id, '
'took_ms, completion_id or generation_id}. Without either id only the route''s health hears of it.';

-- Begins a completion for a user and hands out the routes of the model, the default one without a
-- name. The place where plans and quotas will say no. Runs as its owner: functions reach no table.
create function private.begin_completion(user_id uuid, kind text, model text)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  chosen public.ai_models;
  begun  uuid;
begin
  perform from public.profiles as p where p.id = begin_completion.user_id for key share;
  if not exists (
    select
    from public.profiles as p
    join auth.users as u on u.id = p.id
    where p.id = begin_completion.user_id and p.status = 'active'
      and (u.banned_until is null or u.banned_until <= now())
  ) then
    raise sqlstate 'PT403' using
      message = 'account_not_active',
      detail  = 'This account is suspended, banned or deleted.';
  end if;
  select m.* into chosen
  from public.ai_models as m
  where m.is_enabled and (m.id = begin_completion.model or (begin_completion.model is null and m.is_default));
  if not found then
    raise sqlstate 'PT404' using message = 'model_not_found', detail = 'There is no model with this id.';
  end if;
  insert into private.completions (user_id, kind, model_id)
  values (begin_completion.user_id, begin_completion.kind, chosen.id)
  returning id into begun;
  return jsonb_build_object('completion_id', begun, 'model', chosen.id) || private.usable_routes(chosen.id);
end;
$$;

create function service.begin_completion(user_id uuid, kind text, model text)
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.begin_completion(begin_completion.user_id, begin_completion.kind, begin_completion.model);
$$;

-- Ends a completion; the first end counts. Answers the sum of tokens of its calls, null when there is none.
-- Runs as its owner: functions reach no table.
create function private.finish_completion(completion_id uuid, outcome text, code text)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  update private.completions as c
  set outcome = finish_completion.outcome, code = finish_completion.code, finished_at = clock_timestamp()
  where c.id = finish_completion.completion_id and c.finished_at is null;
  return (
    select jsonb_build_object(
      'prompt_tokens', coalesce(sum((m.usage ->> 'prompt_tokens')::bigint), 0),
      'completion_tokens', coalesce(sum((m.usage ->> 'completion_tokens')::bigint), 0),
      'cached_tokens', coalesce(sum((m.usage ->> 'cached_tokens')::bigint), 0),
      'estimated', coalesce(bool_or((m.usage ->> 'estimated')::boolean), false)
    )
    from private.model_calls as m
    where m.completion_id = finish_completion.completion_id and m.usage is not null and coalesce(m.code, 'cancelled') = 'cancelled'
    having count(*) > 0
  );
end;
$$;

create function service.finish_completion(completion_id uuid, outcome text, code text)
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.finish_completion(finish_completion.completion_id, finish_completion.outcome, finish_completion.code);
$$;

revoke all on function
  private.begin_completion(uuid, text, text), service.begin_completion(uuid, text, text),
  private.finish_completion(uuid, text, text), service.finish_completion(uuid, text, text)
  from public, anon, authenticated, service_role;
grant execute on function
  private.begin_completion(uuid, text, text), service.begin_completion(uuid, text, text),
  private.finish_completion(uuid, text, text), service.finish_completion(uuid, text, text)
  to service_role;
comment on function service.begin_completion(uuid, text, text) is
'Begins a completion (kind complete or analyze) for a user: {completion_id, model, routes, skipped}. '
'Raises PT403 account_not_active, PT404 model_not_found.';
comment on function service.finish_completion(uuid, text, text) is
'Ends a completion as completed, failed or cancelled, with the code of a failure; answers the tokens of its calls that said something.';

-- Ends completions whose function was ended by the platform: none lives for half an hour.
create function private.end_lost_completions(at timestamptz default clock_timestamp())
returns bigint
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  ended bigint;
begin
  update private.completions as c
  set outcome = 'lost', finished_at = end_lost_completions.at
  where c.finished_at is null and c.started_at < end_lost_completions.at - interval '30 minutes';
  get diagnostics ended = row_count;
  return ended;
end;
$$;

revoke all on function private.end_lost_completions(timestamptz) from public, anon, authenticated, service_role;
comment on function private.end_lost_completions(timestamptz) is 'Marks completions as lost that began half an hour ago and never ended.';

select cron.schedule('end-lost-completions', '*/10 * * * *', 'select private.end_lost_completions()');

-- What providers were paid, by day (UTC), purpose and route.
create view admin.model_costs
with (security_invoker = true)
as
select
  (c.at at time zone 'UTC')::date as day,
  c.purpose,
  r.model,
  r.provider,
  r.provider_model,
  count(*) as calls,
  count(*) filter (where c.failed) as failed_calls,
  sum((c.usage ->> 'prompt_tokens')::bigint) as prompt_tokens,
  sum((c.usage ->> 'cached_tokens')::bigint) as cached_tokens,
  sum((c.usage ->> 'completion_tokens')::bigint) as completion_tokens,
  sum(c.cost_micro_usd) as cost_micro_usd,
  count(*) filter (where c.usage is not null and c.cost_micro_usd is null) as calls_without_price,
  count(*) filter (where (c.usage ->> 'estimated')::boolean) as estimated_calls
from (
  select a.started_at as at, 'answer' as purpose, a.route_id, a.usage, a.cost_micro_usd, a.error is not null as failed
  from private.generation_attempts as a
  where a.route_id is not null
  union all
  select m.created_at, coalesce(k.kind, 'answer'), m.route_id, m.usage, m.cost_micro_usd, m.code is not null
  from private.model_calls as m
  left join private.completions as k on k.id = m.completion_id
) as c
left join private.ai_routes as r on r.id = c.route_id
group by 1, 2, 3, 4, 5;

revoke all on table admin.model_costs from public, anon, authenticated, service_role;
comment on view admin.model_costs is
'Calls, tokens and cost (millionths of a dollar) of each route by UTC day and purpose (answer, complete, analyze).';

insert into private.error_codes (code, status, meaning) values
  ('model_not_found', 404, 'There is no such model, or it is switched off.');
