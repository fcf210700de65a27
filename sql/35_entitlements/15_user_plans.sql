-- Who has which plan. No row, or one that has run out: the plan `free`.
create table private.user_plans (
  user_id uuid primary key references public.profiles (id) on delete cascade,
  plan_id text not null references public.plans (id) on update cascade,
  since   timestamptz not null default clock_timestamp(),
  until   timestamptz
);

create index user_plans_by_plan on private.user_plans (plan_id);

revoke all on table private.user_plans from public, anon, authenticated, service_role;
comment on table private.user_plans is 'Plans of people; without a row, or after until, a person has the plan free.';
comment on column private.user_plans.until is 'Null: for good.';

-- What one person may do beside or instead of their plan, as agreed with an Enterprise customer.
create table private.plan_overrides (
  user_id                uuid primary key references public.profiles (id) on delete cascade,
  max_model_tier         smallint constraint plan_overrides_max_model_tier_not_negative check (max_model_tier >= 0),
  requests_per_minute    integer constraint plan_overrides_requests_per_minute_positive check (requests_per_minute > 0),
  requests_per_day       integer constraint plan_overrides_requests_per_day_not_negative check (requests_per_day >= 0),
  tokens_per_month       bigint constraint plan_overrides_tokens_per_month_not_negative check (tokens_per_month >= 0),
  micro_usd_per_month    bigint constraint plan_overrides_micro_usd_per_month_not_negative check (micro_usd_per_month >= 0),
  concurrent_generations integer
    constraint plan_overrides_concurrent_generations_not_negative check (concurrent_generations >= 0),
  storage_bytes          bigint constraint plan_overrides_storage_bytes_not_negative check (storage_bytes >= 0),
  max_characters         integer constraint plan_overrides_max_characters_not_negative check (max_characters >= 0),
  can_use_voice          boolean,
  unlimited              text[] not null default '{}' constraint plan_overrides_unlimited_are_limits check (
    unlimited <@ array[
      'max_model_tier', 'requests_per_minute', 'requests_per_day', 'tokens_per_month', 'micro_usd_per_month',
      'concurrent_generations', 'storage_bytes', 'max_characters'
    ]
  ),
  note                   text not null default '',
  updated_at             timestamptz not null default clock_timestamp()
);

revoke all on table private.plan_overrides from public, anon, authenticated, service_role;
comment on table private.plan_overrides is 'Limits of single people that differ from their plan; null in a column is as the plan says.';
comment on column private.plan_overrides.unlimited is 'Names of limits that this person does not have.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export) values
  ('private', 'user_plans', 'user_id', 'delete', 'include'),
  ('private', 'plan_overrides', 'user_id', 'delete', 'exclude');

insert into private.error_codes (code, status, meaning) values
  ('plan_not_found', 404, 'There is no plan with this id.');

create type private.entitlements as (
  plan_id                text,
  plan_name              text,
  plan_until             timestamptz,
  max_model_tier         smallint,
  requests_per_minute    integer,
  requests_per_day       integer,
  tokens_per_month       bigint,
  micro_usd_per_month    bigint,
  concurrent_generations integer,
  storage_bytes          bigint,
  max_characters         integer,
  can_use_voice          boolean
);
comment on type private.entitlements is 'What one person may do at a moment: their plan, with their overrides. Null in a limit is no limit.';

-- What a person may do at the moment `at`, in one statement of three index lookups; nobody has what the
-- plan free allows.
create function private.entitlements_of(user_id uuid, at timestamptz default clock_timestamp())
returns private.entitlements
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  found_rights private.entitlements;
begin
  select
    p.id, p.name, u.until,
    case when 'max_model_tier' = any (o.unlimited) then null else coalesce(o.max_model_tier, p.max_model_tier) end,
    case when 'requests_per_minute' = any (o.unlimited) then null else coalesce(o.requests_per_minute, p.requests_per_minute) end,
    case when 'requests_per_day' = any (o.unlimited) then null else coalesce(o.requests_per_day, p.requests_per_day) end,
    case when 'tokens_per_month' = any (o.unlimited) then null else coalesce(o.tokens_per_month, p.tokens_per_month) end,
    case when 'micro_usd_per_month' = any (o.unlimited) then null else coalesce(o.micro_usd_per_month, p.micro_usd_per_month) end,
    case
      when 'concurrent_generations' = any (o.unlimited) then null
      else coalesce(o.concurrent_generations, p.concurrent_generations)
    end,
    case when 'storage_bytes' = any (o.unlimited) then null else coalesce(o.storage_bytes, p.storage_bytes) end,
    case when 'max_characters' = any (o.unlimited) then null else coalesce(o.max_characters, p.max_characters) end,
    coalesce(o.can_use_voice, p.can_use_voice)
  into strict found_rights
  from (select) as one
  left join private.user_plans as u
    on u.user_id = entitlements_of.user_id and (u.until is null or u.until > entitlements_of.at)
  join public.plans as p on p.id = coalesce(u.plan_id, 'free')
  left join private.plan_overrides as o on o.user_id = entitlements_of.user_id;
  return found_rights;
end;
$$;

revoke all on function private.entitlements_of(uuid, timestamptz) from public, anon, authenticated, service_role;
comment on function private.entitlements_of(uuid, timestamptz) is
'Plan and limits of a person at a moment, overrides applied; null in a limit is no limit.';

-- Gives a person a plan, until a moment or for good; whatever they had is replaced. It holds for their
-- next request. Payments call this too.
create function private.set_plan(user_id uuid, plan_id text, until timestamptz default null)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  if not exists (select from public.plans as p where p.id = set_plan.plan_id) then
    raise sqlstate 'PT404' using message = 'plan_not_found', detail = 'There is no plan with this id.';
  end if;
  if not exists (select from public.profiles as p where p.id = set_plan.user_id and p.status <> 'deleted') then
    raise sqlstate 'PT404' using message = 'user_not_found', detail = 'There is no such user.';
  end if;
  insert into private.user_plans as u (user_id, plan_id, until)
  values (set_plan.user_id, set_plan.plan_id, set_plan.until)
  on conflict on constraint user_plans_pkey do update
  set plan_id = excluded.plan_id,
    until = excluded.until,
    since = case when u.plan_id = excluded.plan_id then u.since else excluded.since end;
end;
$$;

create function admin.set_plan(user_id uuid, plan_id text, until timestamptz default null)
returns void
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.set_plan(set_plan.user_id, set_plan.plan_id, set_plan.until);
$$;

revoke all on function private.set_plan(uuid, text, timestamptz), admin.set_plan(uuid, text, timestamptz)
  from public, anon, authenticated, service_role;
comment on function private.set_plan(uuid, text, timestamptz) is 'Body of admin.set_plan, for domains that sell plans.';
comment on function admin.set_plan(uuid, text, timestamptz) is
'Gives a person a plan until a moment (null: for good); holds for the next request. Raises PT404 plan_not_found, '
'PT404 user_not_found.';
