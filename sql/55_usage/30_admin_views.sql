-- What operators see of usage. Costs are millionths of a dollar.

create view admin.usage_by_model
with (security_invoker = true)
as
select
  r.day, r.model_id, r.route, r.kind,
  count(*) as answers,
  count(distinct r.owner_id) as people,
  sum(r.calls) as calls,
  sum(r.prompt_tokens)::bigint as prompt_tokens,
  sum(r.cached_tokens)::bigint as cached_tokens,
  sum(r.completion_tokens)::bigint as completion_tokens,
  sum(r.cost_micro_usd)::bigint as cost_micro_usd,
  count(*) filter (where r.cost_micro_usd is null) as answers_without_price,
  count(*) filter (where r.estimated) as estimated_answers
from public.usage_receipts as r
group by 1, 2, 3, 4;

create view admin.usage_by_user
with (security_invoker = true)
as
select
  p.period, p.user_id, u.email, e.plan_id, p.requests, p.prompt_tokens, p.cached_tokens, p.completion_tokens, p.cost_micro_usd,
  p.held_tokens, p.held_micro_usd, e.tokens_per_month, e.micro_usd_per_month,
  round((p.prompt_tokens + p.completion_tokens + p.held_tokens) / nullif(e.tokens_per_month, 0)::numeric, 4) as tokens_share,
  round((p.cost_micro_usd + p.held_micro_usd) / nullif(e.micro_usd_per_month, 0)::numeric, 4) as micro_usd_share
from public.usage_periods as p
left join auth.users as u on u.id = p.user_id
cross join lateral private.entitlements_of(p.user_id) as e;

-- What a plan's people cost in a month, against what the plan lets them cost: how much of what it promises is used.
create view admin.plan_margins
with (security_invoker = true)
as
select
  m.period, m.plan_id, p.name as plan_name,
  count(*) as people,
  sum(m.answers)::bigint as answers,
  sum(m.cost_micro_usd)::bigint as cost_micro_usd,
  round(avg(m.cost_micro_usd))::bigint as cost_per_person_micro_usd,
  max(m.cost_micro_usd)::bigint as dearest_person_micro_usd,
  (count(*) * p.micro_usd_per_month)::bigint as allowed_micro_usd,
  (count(*) * p.micro_usd_per_month - sum(m.cost_micro_usd))::bigint as margin_micro_usd
from (
  select
    date_trunc('month', r.day)::date as period, r.plan_id, r.owner_id, count(*) as answers,
    coalesce(sum(r.cost_micro_usd), 0)::bigint as cost_micro_usd
  from public.usage_receipts as r
  group by 1, 2, 3
) as m
left join public.plans as p on p.id = m.plan_id
group by 1, 2, 3, p.micro_usd_per_month;

-- Counters that differ from the receipts and open holds they are the sums of: always empty. Receipts count for
-- people who are still there, since counters go with the account.
create view admin.usage_drift
with (security_invoker = true)
as
select
  o.user_id, x.period,
  coalesce(p.prompt_tokens + p.completion_tokens, 0) as counted_tokens, coalesce(r.tokens, 0) as receipt_tokens,
  coalesce(p.cost_micro_usd, 0) as counted_micro_usd, coalesce(r.micro_usd, 0) as receipt_micro_usd,
  coalesce(p.held_tokens, 0) as counted_held_tokens, coalesce(h.tokens, 0) as held_tokens,
  coalesce(p.held_micro_usd, 0) as counted_held_micro_usd, coalesce(h.micro_usd, 0) as held_micro_usd,
  coalesce(d.tokens, 0) as daily_tokens, coalesce(p.requests, 0) as counted_requests, coalesce(d.requests, 0) as daily_requests
from private.owners as o
join public.profiles as f on f.id = o.user_id and f.status <> 'deleted'
cross join lateral (
  select u.period from public.usage_periods as u where u.user_id = o.user_id
  union
  select date_trunc('month', c.day)::date from public.usage_receipts as c where c.owner_id = o.id
) as x
left join public.usage_periods as p on p.user_id = o.user_id and p.period = x.period
left join lateral (
  select sum(c.prompt_tokens + c.completion_tokens) as tokens, sum(c.cost_micro_usd) as micro_usd
  from public.usage_receipts as c
  where c.owner_id = o.id and date_trunc('month', c.day)::date = x.period
) as r on true
left join lateral (
  select sum(c.tokens) as tokens, sum(c.micro_usd) as micro_usd
  from private.usage_holds as c
  where c.owner_id = o.id and date_trunc('month', c.day)::date = x.period
) as h on true
left join lateral (
  select sum(c.prompt_tokens + c.completion_tokens) as tokens, sum(c.requests) as requests
  from public.usage_daily as c
  where c.user_id = o.user_id and date_trunc('month', c.day)::date = x.period
) as d on true
where (
  coalesce(p.prompt_tokens + p.completion_tokens, 0), coalesce(p.cost_micro_usd, 0), coalesce(p.held_tokens, 0),
  coalesce(p.held_micro_usd, 0), coalesce(p.prompt_tokens + p.completion_tokens, 0), coalesce(p.requests, 0)
) is distinct from (
  coalesce(r.tokens, 0), coalesce(r.micro_usd, 0), coalesce(h.tokens, 0), coalesce(h.micro_usd, 0), coalesce(d.tokens, 0),
  coalesce(d.requests, 0)
);

revoke all on table admin.usage_by_model, admin.usage_by_user, admin.plan_margins, admin.usage_drift
  from public, anon, authenticated, service_role;
comment on view admin.usage_by_model is 'What answers used by UTC day, model, route and kind.';
comment on view admin.usage_by_user is 'Usage of each person by UTC month, with the share of the caps that they have now; 1 is all of it.';
comment on view admin.plan_margins is
'What the people of each plan cost in a UTC month beside what the plan allows them to cost (null: no cap).';
comment on view admin.usage_drift is 'Counters that are not the sums of receipts and open holds; always empty, a row is a bug.';
