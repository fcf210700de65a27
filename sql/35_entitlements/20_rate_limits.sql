-- rate_buckets: token buckets, one row per key. A bucket is one moment: when it will be full again.
-- What is missing until then is what was taken, so a changed rule holds at once and a full bucket is a
-- row that can go. Unlogged: a crash of the server empties the table, which fills the buckets.
create unlogged table private.rate_buckets (
  key     text primary key constraint rate_buckets_key_has_bounds check (char_length(key) between 1 and 300),
  full_at timestamptz not null,
  taken   bigint not null default 0,
  refused bigint not null default 0
) with (fillfactor = 50);

revoke all on table private.rate_buckets from public, anon, authenticated, service_role;
comment on table private.rate_buckets is
'Token buckets. key is a route, a space, and whose bucket it is: user:<id> or address:<ip>.';
comment on column private.rate_buckets.full_at is 'When the bucket is full again; in the past: it is.';
comment on column private.rate_buckets.taken is 'Requests let through since the row was made; refused likewise. For admin.rate_hits.';

-- Takes cost tokens from the bucket of a key, which holds capacity and gets refill_per_second, or takes
-- nothing and says when to come back. retry_after: seconds until it would be allowed, null when never;
-- reset: seconds until the bucket is full.
create function private.take_token(
  key text,
  capacity integer,
  refill_per_second double precision,
  cost integer default 1,
  at timestamptz default clock_timestamp(),
  out allowed boolean,
  out remaining integer,
  out retry_after double precision,
  out reset double precision
)
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  price interval := make_interval(secs => take_token.cost / take_token.refill_per_second);
  span  interval := make_interval(secs => take_token.capacity / take_token.refill_per_second);
  ends  timestamptz;
begin
  insert into private.rate_buckets as b (key, full_at, taken)
  select take_token.key, take_token.at + price, 1
  where price <= span
  on conflict on constraint rate_buckets_pkey do update
  -- At least empty, at most full: also after the clock was set back.
  set full_at = greatest(least(b.full_at, take_token.at + span), take_token.at) + price, taken = b.taken + 1
  where greatest(least(b.full_at, take_token.at + span), take_token.at) + price <= take_token.at + span
  returning b.full_at into ends;
  allowed := found;
  if not allowed then
    update private.rate_buckets as b
    set refused = b.refused + 1
    where b.key = take_token.key
    returning greatest(least(b.full_at, take_token.at + span), take_token.at) into ends;
    ends := coalesce(ends, take_token.at);
    if price <= span then
      retry_after := extract(epoch from ends + price - take_token.at - span);
    end if;
  end if;
  reset := extract(epoch from ends - take_token.at);
  remaining := greatest(0, floor(take_token.capacity - reset * take_token.refill_per_second + 1e-6))::integer;
end;
$$;

revoke all on function private.take_token(text, integer, double precision, integer, timestamptz)
  from public, anon, authenticated, service_role;
comment on function private.take_token(text, integer, double precision, integer, timestamptz) is
'Takes cost tokens from a bucket: {allowed, remaining, retry_after, reset}, the last two in seconds.';

-- rate_rules: how often each plan may call each route of a function. The one place for it; `*` is every
-- route that is not named. Visitors who have not signed in have the plan free, by their address.
create table private.rate_rules (
  route             text not null constraint rate_rules_route_has_bounds check (route ~ '^(\*|[a-z0-9][a-zA-Z0-9/:_.-]{0,99})$'),
  plan_id           text not null references public.plans (id) on update cascade on delete cascade,
  capacity          integer not null constraint rate_rules_capacity_positive check (capacity > 0),
  refill_per_second double precision not null constraint rate_rules_refill_positive check (refill_per_second > 0),
  constraint rate_rules_pkey primary key (route, plan_id)
);

create index rate_rules_by_plan on private.rate_rules (plan_id);

revoke all on table private.rate_rules from public, anon, authenticated, service_role;
comment on table private.rate_rules is
'Token buckets of function routes by plan: capacity is the burst, refill_per_second the lasting rate. A plan without a rule '
'for a route has the one of *; without that, no limit.';
comment on column private.rate_rules.route is 'The function and its route as they are registered, for example chat/messages.';

insert into private.rate_rules (route, plan_id, capacity, refill_per_second) values
  ('*', 'free', 120, 4), ('*', 'plus', 240, 8), ('*', 'pro', 600, 20), ('*', 'enterprise', 3000, 100);

-- All rules, for what functions remember (private.read_catalogue).
create function private.list_rate_rules()
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select coalesce(
    jsonb_agg(
      jsonb_build_object(
        'route', r.route, 'plan', r.plan_id, 'capacity', r.capacity, 'refill_per_second', r.refill_per_second
      ) order by r.route, r.plan_id
    ),
    '[]'
  )
  from private.rate_rules as r;
$$;

-- Takes a token for a call of a route, by the rule of the user's plan: {allowed, limit, remaining,
-- reset_seconds, retry_after_seconds, refill_per_second, plan}; null when there is no rule. Without a user the bucket is
-- the address's. Runs as its owner: functions reach no table.
create function private.take_rate(route text, user_id uuid, address text)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  plan  text := (private.entitlements_of(take_rate.user_id)).plan_id;
  rule  private.rate_rules;
  taken record;
begin
  select r.* into rule
  from private.rate_rules as r
  where r.plan_id = plan and r.route in (take_rate.route, '*')
  order by r.route = '*'
  limit 1;
  if not found then
    return null;
  end if;
  -- Routes without a rule of their own share one bucket.
  select t.* into taken
  from private.take_token(
    rule.route || coalesce(' user:' || take_rate.user_id, ' address:' || coalesce(nullif(left(take_rate.address, 64), ''), 'unknown')),
    rule.capacity, rule.refill_per_second
  ) as t;
  return jsonb_build_object(
    'allowed', taken.allowed, 'limit', rule.capacity, 'remaining', taken.remaining, 'plan', plan,
    'reset_seconds', ceil(taken.reset), 'retry_after_seconds', ceil(taken.retry_after),
    'refill_per_second', rule.refill_per_second
  );
end;
$$;

create function service.take_rate(route text, user_id uuid, address text)
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.take_rate(take_rate.route, take_rate.user_id, take_rate.address);
$$;

revoke all on function
  private.list_rate_rules(), private.take_rate(text, uuid, text), service.take_rate(text, uuid, text)
  from public, anon, authenticated, service_role;
grant execute on function private.take_rate(text, uuid, text), service.take_rate(text, uuid, text) to service_role;
comment on function service.take_rate(text, uuid, text) is
'Takes a token for one call of a route by a user, or without one by an address: {allowed, limit, remaining, plan, reset_seconds, '
'retry_after_seconds (null when allowed), refill_per_second}; null: no limit.';
