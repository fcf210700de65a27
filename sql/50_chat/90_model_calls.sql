-- completions: texts, analyses and embeddings that belong to no conversation. Only what they cost is
-- kept; neither what was asked nor, save for who asked with an idempotency key, what was answered.
create table private.completions (
  id          uuid primary key default private.uuid_v7(),
  user_id     uuid references public.profiles (id) on delete set null,
  kind        text not null constraint completions_kind_known check (kind in ('complete', 'analyze', 'openai', 'embed', 'summarise')),
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
comment on table private.completions is
'Requests to models beside the answers in conversations, without their text: chat/complete, chat/analyze, chat '
'completions and embeddings of the OpenAI-compatible routes, summaries of conversations.';
comment on column private.completions.code is 'Why it failed.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('private', 'completions', 'user_id', 'detach', 'exclude');

-- completion_answers: what a request with an idempotency key answered, for its repetition. Kept for a day.
create table private.completion_answers (
  completion_id uuid primary key references private.completions (id) on delete cascade,
  user_id       uuid not null references public.profiles (id) on delete cascade,
  answer        jsonb not null,
  created_at    timestamptz not null default clock_timestamp()
);

create index completion_answers_by_user on private.completion_answers (user_id);
create index completion_answers_by_age on private.completion_answers (created_at);

revoke all on table private.completion_answers from public, anon, authenticated, service_role;
comment on table private.completion_answers is 'Answers of completions that were asked for with an idempotency key.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('private', 'completion_answers', 'user_id', 'delete', 'exclude');

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
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return (
    select coalesce(sum(c.cost), 0)::bigint
    from (
      select a.cost_micro_usd as cost from private.generation_attempts as a where a.generation_id = spent_on.generation_id
      union all
      select m.cost_micro_usd from private.model_calls as m where m.generation_id = spent_on.generation_id
    ) as c
  );
end;
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
-- name. The place where plans and quotas will say no, by prompt_tokens and max_tokens.
-- With an idempotency key the same request again begins nothing: it is answered what it was answered,
-- or told that it is under way; one that failed begins anew.
-- Runs as its owner: functions reach no table.
create function private.begin_completion(user_id uuid, request jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  what       constant text := begin_completion.request ->> 'kind';
  model      constant text := begin_completion.request ->> 'model';
  key        constant text := begin_completion.request ->> 'idempotency_key';
  partner    constant uuid := (begin_completion.request ->> 'character_id')::uuid;
  material   jsonb := '{}'::jsonb;
  chosen     public.ai_models;
  remembered jsonb;
  begun      uuid;
begin
  perform private.hold_active_account(begin_completion.user_id);
  select m.* into chosen
  from public.ai_models as m
  where m.is_enabled and (m.id = model or (model is null and m.is_default))
    and m.kind = case what when 'embed' then 'embedding' else 'chat' end;
  if not found then
    raise sqlstate 'PT404' using message = 'model_not_found', detail = 'There is no model with this id.';
  end if;
  if (begin_completion.request ->> 'dimensions')::integer > chosen.dimensions then
    raise sqlstate 'PT422' using
      message = 'dimensions_too_many',
      detail  = 'The vectors of this model have ' || chosen.dimensions || ' dimensions.';
  end if;

  if partner is not null then
    material := jsonb_build_object('prompt', private.character_material(partner, begin_completion.user_id));
  end if;

  if key is not null then
    perform private.remember_request(begin_completion.user_id, 'completion_or_talk', key, '"completion"');
    remembered := private.remember_request(
      begin_completion.user_id, 'completion', key, begin_completion.request -> 'body_hash'
    );
    remembered := private.replay_completion((remembered ->> 'completion_id')::uuid);
    if remembered is not null then
      return remembered;
    end if;
  end if;

  insert into private.completions (user_id, kind, model_id)
  values (begin_completion.user_id, what, chosen.id)
  returning id into begun;
  perform private.hold_usage(
    begin_completion.user_id, chosen.id, coalesce((begin_completion.request ->> 'prompt_tokens')::bigint, 0),
    least(
      coalesce((begin_completion.request ->> 'max_tokens')::bigint, 0),
      -- An analysis may ask its model a second time.
      chosen.max_output * case what when 'analyze' then 2 else 1 end
    ),
    completion_id => begun
  );
  if key is not null then
    perform private.store_response(
      begin_completion.user_id, 'completion', key, jsonb_build_object('completion_id', begun)
    );
  end if;
  return jsonb_build_object('completion_id', begun, 'model', chosen.id, 'dimensions', chosen.dimensions)
    || material || private.budget_of(begun) || private.usable_routes(chosen.id);
end;
$$;

-- What to tell a request that comes again: its answer, or a refusal while it is under way. Null: it
-- ended without an answer that is still there. No function lives for ten minutes.
create function private.replay_completion(completion_id uuid)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  before record;
begin
  select c.model_id, c.finished_at, c.started_at, a.answer into before
  from private.completions as c
  left join private.completion_answers as a on a.completion_id = c.id
  where c.id = replay_completion.completion_id;
  if before.finished_at is null and before.started_at > clock_timestamp() - interval '10 minutes' then
    raise sqlstate 'PT409' using
      message = 'request_in_progress',
      detail  = 'The same request is being answered; repeat it a little later.';
  end if;
  if before.answer is null then
    return null;
  end if;
  return jsonb_build_object(
    'completion_id', replay_completion.completion_id, 'model', before.model_id, 'routes', '[]'::jsonb,
    'skipped', '[]'::jsonb, 'answer', before.answer
  );
end;
$$;

create function service.begin_completion(user_id uuid, request jsonb)
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.begin_completion(begin_completion.user_id, begin_completion.request);
$$;

-- Ends a completion; the first end counts. Answers the sum of tokens of its calls, null when there is none.
-- Runs as its owner: functions reach no table.
create function private.finish_completion(completion_id uuid, result jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  ended private.completions;
begin
  -- The account first, as its deletion has it, then the completion, then usage.
  perform
  from public.profiles as p
  where p.id = (select c.user_id from private.completions as c where c.id = finish_completion.completion_id)
  for key share;
  update private.completions as c
  set outcome = finish_completion.result ->> 'outcome', code = finish_completion.result ->> 'code',
    finished_at = clock_timestamp()
  where c.id = finish_completion.completion_id and c.finished_at is null
  returning c.* into ended;
  if jsonb_typeof(finish_completion.result -> 'answer') = 'object' then
    -- An account that is being deleted has lost its rows by the time that the lock is given.
    insert into private.completion_answers (completion_id, user_id, answer)
    select ended.id, p.id, finish_completion.result -> 'answer'
    from public.profiles as p
    where p.id = ended.user_id and p.status <> 'deleted'
    for key share;
  end if;
  if ended.id is not null then
    perform private.settle_completion(ended.id, ended.kind);
  end if;
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

create function service.finish_completion(completion_id uuid, result jsonb)
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.finish_completion(finish_completion.completion_id, finish_completion.result);
$$;

revoke all on function
  private.begin_completion(uuid, jsonb), service.begin_completion(uuid, jsonb),
  private.replay_completion(uuid),
  private.finish_completion(uuid, jsonb), service.finish_completion(uuid, jsonb)
  from public, anon, authenticated, service_role;
grant execute on function
  private.begin_completion(uuid, jsonb), service.begin_completion(uuid, jsonb),
  private.finish_completion(uuid, jsonb), service.finish_completion(uuid, jsonb)
  to service_role;
comment on function service.begin_completion(uuid, jsonb) is
'Begins a completion for a user: request {kind (complete, analyze, openai, embed), model, prompt_tokens, max_tokens, dimensions, '
'character_id, idempotency_key, body_hash}, answer {completion_id, model, dimensions, budget_tokens, budget_micro_usd, routes, skipped}, '
'`prompt` with what a character is made of, and `answer` when the same request was answered before. What it may use is held. Raises what private.hold_usage raises, and'
' PT403 account_not_active, PT404 model_not_found, PT404 character_not_found, PT403 mature_confirmation_required, PT409 idempotency_key_reused, '
'request_in_progress, PT422 idempotency_key_invalid, dimensions_too_many.';
comment on function service.finish_completion(uuid, jsonb) is
'Ends a completion: result {outcome (completed, failed, cancelled), code of a failure, answer to keep for a repetition}. '
'Answers the tokens of its calls that said something.';

-- Forgets answers after a day; the same request begins anew then.
create function private.prune_completion_answers(before timestamptz default now() - interval '1 day')
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  with pruned as (
    delete from private.completion_answers as a
    where a.created_at < prune_completion_answers.before
    returning 1
  )
  select count(*) from pruned;
$$;

revoke all on function private.prune_completion_answers(timestamptz) from public, anon, authenticated, service_role;
comment on function private.prune_completion_answers(timestamptz) is 'Drops answers older than `before`; returns how many.';

select cron.schedule('prune-completion-answers', '37 * * * *', 'select private.prune_completion_answers()');

-- Ends completions whose function was ended by the platform: none lives for half an hour. One whose person's
-- usage somebody holds is left for the next time, since this transaction may hold another person's.
create function private.end_lost_completions(at timestamptz default clock_timestamp())
returns bigint
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  lost  record;
  ended bigint := 0;
begin
  for lost in
    select c.id, c.kind
    from private.completions as c
    where c.finished_at is null and c.started_at < end_lost_completions.at - interval '30 minutes'
    order by c.id
    for update skip locked
  loop
    continue when not private.try_lock_usage(lost.id);
    update private.completions as c set outcome = 'lost', finished_at = end_lost_completions.at where c.id = lost.id;
    perform private.settle_completion(lost.id, lost.kind, is_lost => true);
    ended := ended + 1;
  end loop;
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
'Calls, tokens and cost (millionths of a dollar) of each route by UTC day and purpose (answer, complete, analyze, openai, embed, summarise).';

insert into private.error_codes (code, status, meaning) values
  ('model_not_found', 404, 'There is no such model, or it is switched off.'),
  ('dimensions_too_many', 422, 'The model gives vectors of fewer dimensions.'),
  ('request_in_progress', 409, 'The same request, by its idempotency key, is being answered.');
