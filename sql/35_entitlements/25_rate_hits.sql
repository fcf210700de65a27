-- rate_hits: what buckets have let through and refused, by UTC day, once their rows are gone. People
-- by their id; visitors together.
create table private.rate_hits (
  day     date not null,
  route   text not null,
  subject text not null,
  taken   bigint not null default 0,
  refused bigint not null default 0,
  constraint rate_hits_pkey primary key (day, route, subject)
);

revoke all on table private.rate_hits from public, anon, authenticated, service_role;
comment on table private.rate_hits is 'Requests let through and refused by rate limits, by UTC day, route and user; kept for thirty days.';
comment on column private.rate_hits.subject is 'user:<id>, or visitors for everybody who had not signed in.';

-- Adds counts of [{key, taken, refused}] to a day: of buckets that go, and of a store outside.
create function private.add_rate_hits(batch jsonb, at timestamptz default clock_timestamp())
returns void
language sql
volatile
security definer
set search_path = ''
as $$
  insert into private.rate_hits as h (day, route, subject, taken, refused)
  select
    (add_rate_hits.at at time zone 'UTC')::date, left(split_part(b.key, ' ', 1), 100),
    case when split_part(b.key, ' ', 2) like 'user:%' then left(split_part(b.key, ' ', 2), 50) else 'visitors' end,
    sum(coalesce(b.taken, 0)), sum(coalesce(b.refused, 0))
  from jsonb_to_recordset(add_rate_hits.batch) as b (key text, taken bigint, refused bigint)
  group by 1, 2, 3
  order by 1, 2, 3
  on conflict on constraint rate_hits_pkey do update
  set taken = h.taken + excluded.taken, refused = h.refused + excluded.refused;
$$;

create function service.add_rate_hits(batch jsonb)
returns void
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.add_rate_hits(add_rate_hits.batch);
$$;

-- Drops buckets that are full again, keeping their counts, and counts older than thirty days. A bucket
-- that somebody is taking from stays.
create function private.prune_rate_buckets(at timestamptz default clock_timestamp())
returns bigint
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  gone   jsonb;
  pruned bigint;
begin
  with idle as (
    select b.key
    from private.rate_buckets as b
    where b.full_at <= prune_rate_buckets.at
    order by b.key
    for update skip locked
  ),
  dropped as (
    delete from private.rate_buckets as b using idle as i where b.key = i.key returning b.key, b.taken, b.refused
  )
  select jsonb_agg(to_jsonb(d)), count(*) into gone, pruned from dropped as d;
  perform private.add_rate_hits(gone, prune_rate_buckets.at) where gone is not null;
  delete from private.rate_hits as h where h.day < (prune_rate_buckets.at at time zone 'UTC')::date - 30;
  return pruned;
end;
$$;

revoke all on function
  private.add_rate_hits(jsonb, timestamptz), service.add_rate_hits(jsonb), private.prune_rate_buckets(timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function private.add_rate_hits(jsonb, timestamptz), service.add_rate_hits(jsonb) to service_role;
comment on function service.add_rate_hits(jsonb) is
'Adds [{key, taken, refused}] of a limiter outside the database to today''s counts; key as in private.rate_buckets.';
comment on function private.prune_rate_buckets(timestamptz) is 'Drops full buckets and keeps their counts by day; returns how many.';

select cron.schedule('prune-rate-buckets', '*/5 * * * *', 'select private.prune_rate_buckets()');

create view admin.rate_hits
with (security_invoker = true)
as
select
  h.day, h.route, h.subject, u.email, sum(h.taken)::bigint as taken, sum(h.refused)::bigint as refused,
  round(sum(h.refused) / nullif(sum(h.taken) + sum(h.refused), 0), 4) as refused_share
from (
  select r.day, r.route, r.subject, r.taken, r.refused
  from private.rate_hits as r
  union all
  select
    (clock_timestamp() at time zone 'UTC')::date, split_part(b.key, ' ', 1),
    case when split_part(b.key, ' ', 2) like 'user:%' then split_part(b.key, ' ', 2) else 'visitors' end,
    b.taken, b.refused
  from private.rate_buckets as b
) as h
left join auth.users as u on 'user:' || u.id = h.subject
group by 1, 2, 3, 4;

revoke all on table admin.rate_hits from public, anon, authenticated, service_role;
comment on view admin.rate_hits is
'Requests that rate limits let through and refused, by UTC day, route and user. `requests` is the plans'' requests_per_minute.';
