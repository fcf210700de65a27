-- Holding what an answer may use, before anybody is asked for it.

insert into private.error_codes (code, status, meaning) values
  ('model_not_in_plan', 403, 'The model belongs to a larger plan; the hint names the smallest that has it.'),
  ('requests_per_minute_exceeded', 429, 'More answers were asked for in a minute than the plan allows; the hint says when the next one may be.'),
  ('requests_per_day_exceeded', 429, 'As many answers were asked for today (UTC) as the plan allows; the hint says when the day ends.'),
  ('tokens_per_month_exceeded', 429, 'The answer may need more tokens than the plan has left this month (UTC); the hint says when it ends.'),
  ('budget_per_month_exceeded', 429, 'The answer may cost more than the plan has left this month (UTC); the hint says when it ends.'),
  ('too_many_generations', 429, 'As many answers of this person are on their way as the plan allows at once.');

-- A moment as hints say it; clients read it from there.
create function private.hint_time(at timestamptz)
returns text
language sql
stable
security invoker
set search_path = ''
as $$
  select 'Try again after ' || to_char(hint_time.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') || '.';
$$;

-- The person's row in the books, locked: see the lock order in 30_usage.sql.
create function private.lock_usage(user_id uuid)
returns uuid
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  owner uuid;
begin
  select o.id into owner from private.owners as o where o.user_id = lock_usage.user_id for no key update;
  if not found then
    perform private.owner_of(lock_usage.user_id);
    select o.id into strict owner from private.owners as o where o.user_id = lock_usage.user_id for no key update;
  end if;
  return owner;
end;
$$;

-- Refuses what would go beyond what is left of a month: used, held and wanted together stay within the
-- caps. month: its counters, of nulls while there are none; the caller has locked the person's usage.
create function private.require_budget(
  rights private.entitlements,
  month public.usage_periods,
  period date,
  tokens bigint,
  micro_usd bigint
)
returns void
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  if coalesce(month.prompt_tokens + month.completion_tokens + month.held_tokens, 0) + require_budget.tokens
    > rights.tokens_per_month
  then
    raise sqlstate 'PT429' using
      message = 'tokens_per_month_exceeded',
      detail  = 'The answer may need more tokens than your plan has left this month.',
      hint    = private.hint_time((require_budget.period + interval '1 month') at time zone 'UTC');
  end if;
  if coalesce(month.cost_micro_usd + month.held_micro_usd, 0) + require_budget.micro_usd > rights.micro_usd_per_month then
    raise sqlstate 'PT429' using
      message = 'budget_per_month_exceeded',
      detail  = 'The answer may cost more than your plan has left this month.',
      hint    = private.hint_time((require_budget.period + interval '1 month') at time zone 'UTC');
  end if;
end;
$$;

-- Checks what a plan allows and holds the most that one answer may use, for a generation or a completion.
-- Call it after everything else that can refuse, since it counts the request, and after every lock but
-- seats. The caller has made sure of the account. The price is the dearest route's, so that each may be used.
-- What is no request of the person stays within tokens and money alone.
create function private.hold_usage(
  user_id uuid,
  model_id text,
  prompt_tokens bigint,
  max_tokens bigint,
  generation_id uuid default null,
  completion_id uuid default null,
  is_request boolean default true,
  at timestamptz default clock_timestamp()
)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  rights  private.entitlements := private.entitlements_of(hold_usage.user_id, hold_usage.at);
  today   date := (hold_usage.at at time zone 'UTC')::date;
  month   date := date_trunc('month', hold_usage.at at time zone 'UTC')::date;
  tokens  bigint := hold_usage.prompt_tokens + hold_usage.max_tokens;
  dearest bigint := private.dearest_call(hold_usage.model_id, hold_usage.prompt_tokens, hold_usage.max_tokens);
  owner   uuid;
  bucket  record;
  counted record;
begin
  if rights.max_model_tier is not null then
    perform private.require_model(rights, hold_usage.model_id);
  end if;

  if hold_usage.is_request and rights.requests_per_minute is not null then
    select t.* into bucket
    from private.take_token(
      'requests user:' || hold_usage.user_id, rights.requests_per_minute, rights.requests_per_minute / 60.0, at => hold_usage.at
    ) as t;
    if not bucket.allowed then
      raise sqlstate 'PT429' using
        message = 'requests_per_minute_exceeded',
        detail  = 'You asked for more answers in a minute than your plan allows.',
        hint    = private.hint_time(hold_usage.at + make_interval(secs => bucket.retry_after));
    end if;
  end if;

  -- Counted in a statement of its own, after the lock: it has to see what others have committed meanwhile. What has no
  -- limit is not counted.
  owner := private.lock_usage(hold_usage.user_id);
  select
    p as month,
    case when rights.concurrent_generations is not null then
      (select count(*) from private.usage_holds as h where h.owner_id = owner and h.is_request)
    end as open,
    case when rights.requests_per_day is not null then
      (select d.requests from public.usage_daily as d where d.user_id = hold_usage.user_id and d.day = today)
    end as asked
  into counted
  from (select) as one
  left join public.usage_periods as p on p.user_id = hold_usage.user_id and p.period = month;
  if hold_usage.is_request and counted.open >= rights.concurrent_generations then
    raise sqlstate 'PT429' using
      message = 'too_many_generations',
      detail  = 'As many answers of yours are on their way as your plan allows at once.',
      hint    = 'Wait for the end of one, or cancel one.';
  end if;
  if hold_usage.is_request and coalesce(counted.asked, 0) >= rights.requests_per_day then
    raise sqlstate 'PT429' using
      message = 'requests_per_day_exceeded',
      detail  = 'You asked for as many answers today as your plan allows.',
      hint    = private.hint_time((today + 1)::timestamp at time zone 'UTC');
  end if;
  perform private.require_budget(rights, counted.month, month, tokens, dearest);

  with counted_day as (
    insert into public.usage_daily as d (user_id, day, requests)
    values (hold_usage.user_id, today, hold_usage.is_request::integer)
    on conflict on constraint usage_daily_pkey do update set requests = d.requests + excluded.requests
  ),
  counted_month as (
    insert into public.usage_periods as p (user_id, period, requests, held_tokens, held_micro_usd)
    values (hold_usage.user_id, month, hold_usage.is_request::integer, tokens, dearest)
    on conflict on constraint usage_periods_pkey do update
    set requests = p.requests + excluded.requests, held_tokens = p.held_tokens + excluded.held_tokens,
      held_micro_usd = p.held_micro_usd + excluded.held_micro_usd
  )
  insert into private.usage_holds
    (owner_id, generation_id, completion_id, plan_id, model_id, day, prompt_tokens, tokens, micro_usd, is_request, created_at)
  values (
    owner, hold_usage.generation_id, hold_usage.completion_id, rights.plan_id, hold_usage.model_id, today,
    hold_usage.prompt_tokens, tokens, dearest, hold_usage.is_request, hold_usage.at
  );
end;
$$;

-- Refuses a model above the tier of a plan.
create function private.require_model(rights private.entitlements, model_id text)
returns void
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  tier smallint;
begin
  select m.tier into tier from public.ai_models as m where m.id = require_model.model_id;
  if tier > rights.max_model_tier then
    raise sqlstate 'PT403' using
      message = 'model_not_in_plan',
      detail  = 'Your plan does not include this model.',
      hint    = (
        select 'The plan ' || p.name || ' includes it.'
        from public.plans as p
        where p.max_model_tier is null or p.max_model_tier >= tier
        order by p.position
        limit 1
      );
  end if;
end;
$$;

-- Raises what is held for an answer to at least these amounts, all its calls together, because a retry or
-- another route may need more. Answers what is held then: {budget_tokens, budget_micro_usd}; null when
-- the answer has ended. Runs as its owner: functions reach no table.
create function private.raise_hold(answer_id uuid, tokens bigint, micro_usd bigint)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  owner  uuid;
  person uuid;
  hold   private.usage_holds;
  more_tokens    bigint;
  more_micro_usd bigint;
  month  date;
  counted public.usage_periods;
begin
  select h.owner_id into owner
  from private.usage_holds as h
  where h.generation_id = raise_hold.answer_id or h.completion_id = raise_hold.answer_id;
  select o.user_id into person from private.owners as o where o.id = owner for no key update;
  select h.* into hold
  from private.usage_holds as h
  where h.generation_id = raise_hold.answer_id or h.completion_id = raise_hold.answer_id;
  if not found then
    return null;
  end if;
  more_tokens := greatest(0, raise_hold.tokens - hold.tokens);
  more_micro_usd := greatest(0, raise_hold.micro_usd - hold.micro_usd);
  month := date_trunc('month', hold.day)::date;
  -- A person who deleted the account has no counters any more: the answer goes on for the others.
  select p.* into counted from public.usage_periods as p where p.user_id = person and p.period = month;
  if found then
    perform private.require_budget(private.entitlements_of(person), counted, month, more_tokens, more_micro_usd);
  end if;
  update public.usage_periods as p
  set held_tokens = p.held_tokens + more_tokens, held_micro_usd = p.held_micro_usd + more_micro_usd
  where p.user_id = person and p.period = month;
  update private.usage_holds as h
  set tokens = h.tokens + more_tokens, micro_usd = h.micro_usd + more_micro_usd
  where h.id = hold.id
  returning h.* into hold;
  return jsonb_build_object('budget_tokens', hold.tokens, 'budget_micro_usd', hold.micro_usd);
end;
$$;

create function service.raise_hold(answer_id uuid, tokens bigint, micro_usd bigint)
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.raise_hold(raise_hold.answer_id, raise_hold.tokens, raise_hold.micro_usd);
$$;

-- What an answer may use in all, for whoever calls providers: {budget_tokens, budget_micro_usd}.
create function private.budget_of(answer_id uuid)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return coalesce(
    (
      select jsonb_build_object('budget_tokens', h.tokens, 'budget_micro_usd', h.micro_usd)
      from private.usage_holds as h
      where h.generation_id = budget_of.answer_id or h.completion_id = budget_of.answer_id
    ),
    '{}'
  );
end;
$$;

revoke all on function
  private.hint_time(timestamptz), private.lock_usage(uuid),
  private.require_budget(private.entitlements, public.usage_periods, date, bigint, bigint),
  private.hold_usage(uuid, text, bigint, bigint, uuid, uuid, boolean, timestamptz),
  private.require_model(private.entitlements, text),
  private.raise_hold(uuid, bigint, bigint), service.raise_hold(uuid, bigint, bigint), private.budget_of(uuid)
  from public, anon, authenticated, service_role;
grant execute on function private.raise_hold(uuid, bigint, bigint), service.raise_hold(uuid, bigint, bigint) to service_role;
comment on function private.hold_usage(uuid, text, bigint, bigint, uuid, uuid, boolean, timestamptz) is
'Checks plan and counters and holds the most that an answer may use. Raises PT403 model_not_in_plan, PT429 '
'requests_per_minute_exceeded, PT429 requests_per_day_exceeded, PT429 tokens_per_month_exceeded, '
'PT429 budget_per_month_exceeded, PT429 too_many_generations.';
comment on function service.raise_hold(uuid, bigint, bigint) is
'Raises the hold of a generation or completion to these amounts in all: {budget_tokens, budget_micro_usd}; null when it has '
'ended. Raises PT429 tokens_per_month_exceeded, PT429 budget_per_month_exceeded.';
