-- What a person may do and has used, for the person.

-- Runs as its owner: plans and holds are internal.
create function private.my_entitlements(at timestamptz default clock_timestamp())
returns jsonb
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  caller uuid := private.require_active_user();
  rights private.entitlements := private.entitlements_of(caller, my_entitlements.at);
  today  date := (my_entitlements.at at time zone 'UTC')::date;
  this_month date := date_trunc('month', my_entitlements.at at time zone 'UTC')::date;
  month  public.usage_periods;
begin
  select p.* into month from public.usage_periods as p where p.user_id = caller and p.period = this_month;
  return jsonb_build_object(
    'plan', jsonb_build_object('id', rights.plan_id, 'name', rights.plan_name, 'until', rights.plan_until),
    'limits', to_jsonb(rights) - '{plan_id,plan_name,plan_until}'::text[],
    'used', jsonb_build_object(
      'requests_today', coalesce((select d.requests from public.usage_daily as d where d.user_id = caller and d.day = today), 0),
      'tokens_this_month', coalesce(month.prompt_tokens + month.completion_tokens, 0),
      'micro_usd_this_month', coalesce(month.cost_micro_usd, 0),
      'held_tokens', coalesce(month.held_tokens, 0),
      'held_micro_usd', coalesce(month.held_micro_usd, 0),
      'concurrent_generations', (
        select count(*) from private.usage_holds as h where h.is_request and h.owner_id = (select o.id from private.owners as o where o.user_id = caller)
      ),
      'characters', (select count(*) from public.characters as c where c.owner_id = caller and c.deleted_at is null),
      'storage_bytes', coalesce((select s.bytes from private.storage_usage as s where s.user_id = caller), 0)
    ),
    'day_ends_at', (today + 1)::timestamp at time zone 'UTC',
    'month_ends_at', (this_month + interval '1 month') at time zone 'UTC'
  );
end;
$$;

create function public.my_entitlements()
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select private.my_entitlements();
$$;

revoke all on function private.my_entitlements(timestamptz), public.my_entitlements()
  from public, anon, authenticated, service_role;
grant execute on function private.my_entitlements(timestamptz), public.my_entitlements() to authenticated;
comment on function public.my_entitlements() is
'What the caller may do and has used: {plan: {id, name, until}, limits: {max_model_tier, requests_per_minute, …} (null: no limit), '
'used: {requests_today, tokens_this_month, micro_usd_this_month, held_tokens, held_micro_usd, concurrent_generations, '
'characters, storage_bytes}, day_ends_at, month_ends_at}. Raises PT401 sign_in_required, PT403 account_not_active.';

-- Usage of the caller's last days, newest first, a row for each day. Runs as the caller.
create function public.my_usage(days integer default 30)
returns table (
  day date, requests bigint, prompt_tokens bigint, cached_tokens bigint, completion_tokens bigint, cost_micro_usd bigint
)
language sql
stable
security invoker
set search_path = ''
as $$
  select
    d.day::date, coalesce(u.requests, 0), coalesce(u.prompt_tokens, 0), coalesce(u.cached_tokens, 0),
    coalesce(u.completion_tokens, 0), coalesce(u.cost_micro_usd, 0)
  from (
    select (now() at time zone 'UTC')::date - n as day
    from generate_series(0, least(greatest(coalesce(my_usage.days, 30), 1), 366) - 1) as n
  ) as d
  left join public.usage_daily as u on u.user_id = (select auth.uid()) and u.day = d.day
  order by d.day desc;
$$;

-- Receipts of the caller, newest first; before: the id of the last one of the page before. Runs as the caller.
create function public.my_statement(before uuid default null, page_size integer default 50)
returns setof public.usage_receipts
language sql
stable
security invoker
set search_path = ''
as $$
  select r.*
  from public.usage_receipts as r
  where r.owner_id = (select private.my_owner_id())
    and (my_statement.before is null or r.id < my_statement.before)
  order by r.id desc
  limit least(greatest(coalesce(my_statement.page_size, 50), 1), 200);
$$;

revoke all on function public.my_usage(integer), public.my_statement(uuid, integer)
  from public, anon, authenticated, service_role;
grant execute on function public.my_usage(integer), public.my_statement(uuid, integer) to authenticated;
comment on function public.my_usage(integer) is
'The caller''s usage of the last 1 to 366 UTC days, newest first, one row for each day, also those without any.';
comment on function public.my_statement(uuid, integer) is
'The caller''s receipts, newest first, 1 to 200 a page; before is the id of the last row of the page before.';
