-- ai_route_health: the circuit breaker of each route, shared by every isolate. No row, or no
-- open_until: closed. open_until in the future: open, the route is not asked. In the past: half open,
-- one claim at a time probes it. Written only when something changes, so a route that works costs
-- nothing. Held per route, not per provider: an account without credit still has free models.
create table private.ai_route_health (
  route_id    bigint primary key references private.ai_routes (id) on delete cascade,
  failures    integer not null default 0,
  openings    integer not null default 0,
  open_until  timestamptz,
  probe_until timestamptz,
  code        text,
  changed_at  timestamptz not null default clock_timestamp()
);

revoke all on table private.ai_route_health from public, anon, authenticated, service_role;
comment on table private.ai_route_health is 'Circuit breakers of routes; a route without a row is closed.';
comment on column private.ai_route_health.failures is 'Consecutive failures while closed; the fifth opens.';
comment on column private.ai_route_health.openings is 'Consecutive openings; each lasts twice as long as the one before.';
comment on column private.ai_route_health.probe_until is 'Somebody is probing the half-open route until then.';
comment on column private.ai_route_health.code is 'The last failure.';

create function private.route_state(open_until timestamptz, at timestamptz)
returns text
language sql
immutable
security invoker
set search_path = ''
as $$
  select case
    when route_state.open_until is null then 'closed'
    when route_state.open_until > route_state.at then 'open'
    else 'half_open'
  end;
$$;

-- Routes of a model in their order: those to ask, and those left out with the reason and the seconds
-- until they may be asked again. A half-open route goes to one caller, who probes it within 30 seconds.
create function private.usable_routes(model text, at timestamptz default clock_timestamp())
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  probes bigint[] := array[]::bigint[];
begin
  if exists (
    select
    from private.ai_route_health as h
    join private.ai_routes as r on r.id = h.route_id
    where r.model = usable_routes.model and r.is_enabled and h.open_until <= usable_routes.at
  ) then
    with half_open as (
      select h.route_id
      from private.ai_route_health as h
      join private.ai_routes as r on r.id = h.route_id
      where r.model = usable_routes.model and r.is_enabled and h.open_until <= usable_routes.at
        and (h.probe_until is null or h.probe_until <= usable_routes.at)
      order by h.route_id
      for update of h skip locked
    ),
    taken as (
      update private.ai_route_health as h
      set probe_until = usable_routes.at + interval '30 seconds'
      from half_open as o
      where h.route_id = o.route_id
      returning h.route_id
    )
    select coalesce(array_agg(t.route_id), '{}') into probes from taken as t;
  end if;

  return (
    select jsonb_build_object(
      'routes', coalesce(jsonb_agg(c.route order by c.position) filter (where c.usable), '[]'),
      'skipped', coalesce(
        jsonb_agg(
          jsonb_build_object(
            'route_id', c.route_id, 'provider', c.provider, 'code', c.code,
            'retry_after_seconds', ceil(extract(epoch from c.until - usable_routes.at))::integer
          ) order by c.position
        ) filter (where not c.usable), '[]'
      )
    )
    from (
      select r.position, r.id::text as route_id, p.name as provider, h.code,
        -- A route that somebody else probes is known to be well or ill soon.
        case when h.open_until > usable_routes.at then h.open_until else usable_routes.at + interval '2 seconds' end as until,
        h.open_until is null or r.id = any (probes) as usable,
        jsonb_build_object(
          'route_id', r.id::text, 'provider', p.name, 'dialect', p.dialect, 'model', r.provider_model,
          'base_url_env', p.base_url_env, 'api_key_env', p.api_key_env, 'default_base_url', p.default_base_url,
          'streams', coalesce(r.streams, p.streams), 'takes_system', r.takes_system,
          'takes_temperature', r.takes_temperature, 'takes_json_schema', r.takes_json_schema,
          'continues', p.continues, 'context_window', coalesce(r.context_window, m.context_window),
          'max_output', coalesce(r.max_output, m.max_output), 'prompt_price', r.prompt_price,
          'completion_price', r.completion_price, 'token_factor', coalesce(t.factor, 1),
          'ceiling_micro_usd', coalesce(r.ceiling_micro_usd, s.ceiling),
          'is_suspect', h.failures > 0 or h.open_until is not null
        ) as route
      from private.ai_routes as r
      join private.ai_providers as p on p.name = r.provider
      join public.ai_models as m on m.id = r.model
      left join private.ai_route_health as h on h.route_id = r.id
      left join private.ai_route_tokens as t on t.route_id = r.id
      left join (
        select (g.value #>> '{}')::bigint as ceiling from private.settings as g where g.key = 'generation_ceiling_micro_usd'
      ) as s on true
      where r.model = usable_routes.model and r.is_enabled
    ) as c
  );
end;
$$;

revoke all on function
  private.route_state(timestamptz, timestamptz), private.usable_routes(text, timestamptz)
  from public, anon, authenticated, service_role;

-- Tells how a route did: code null after a success, else the failure. An empty account, a refused key
-- and a Retry-After open the breaker at once, other failures of the route when five come in a row, for
-- 30 seconds, then twice as long each time, 10 minutes at most. What a request brought on itself
-- (content, length, form) says nothing about the route.
create function private.report_route(
  route_id bigint,
  code text,
  retry_after_seconds double precision,
  at timestamptz default clock_timestamp()
)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  health private.ai_route_health;
  pause  interval := case
    when report_route.code = 'provider_quota_exhausted' then interval '1 hour'
    when report_route.code = 'provider_refused_key' then interval '5 minutes'
    when report_route.code in ('provider_rate_limited', 'provider_unavailable')
      and report_route.retry_after_seconds is not null
    then
      make_interval(secs => least(report_route.retry_after_seconds, 3600))
  end;
  counts boolean := coalesce(report_route.code in (
    'provider_rate_limited', 'provider_unavailable', 'provider_timeout', 'answer_interrupted', 'answer_empty'
  ), false);
begin
  if report_route.code is null then
    -- A success that began before the breaker opened does not close it.
    update private.ai_route_health as h
    set failures = 0, openings = 0, open_until = null, probe_until = null, code = null, changed_at = report_route.at
    where h.route_id = report_route.route_id
      and (h.failures > 0 or h.open_until is not null)
      and (h.open_until is null or h.open_until <= report_route.at);
    return;
  end if;
  if pause is null and not counts then
    update private.ai_route_health as h
    set probe_until = null
    where h.route_id = report_route.route_id and h.probe_until is not null;
    return;
  end if;

  insert into private.ai_route_health (route_id)
  select r.id from private.ai_routes as r where r.id = report_route.route_id
  on conflict on constraint ai_route_health_pkey do nothing;
  select h.* into health from private.ai_route_health as h where h.route_id = report_route.route_id for update;
  if not found then
    return;
  end if;
  if pause is null then
    -- Requests that began before it opened say nothing new.
    if health.open_until > report_route.at then
      return;
    end if;
    if health.open_until is not null or health.failures >= 4 then
      pause := least(interval '30 seconds' * power(2, least(health.openings, 10)), interval '10 minutes');
      health.openings := health.openings + 1;
    end if;
  end if;
  update private.ai_route_health as h
  set failures = h.failures + 1,
    openings = health.openings,
    open_until = greatest(h.open_until, report_route.at + pause),
    probe_until = null,
    code = report_route.code,
    changed_at = report_route.at
  where h.route_id = report_route.route_id;
end;
$$;

revoke all on function private.report_route(bigint, text, double precision, timestamptz)
  from public, anon, authenticated, service_role;

-- Puts a route back into use at once, for an operator who filled the account up or replaced the key.
create function admin.close_route(route_id bigint)
returns void
language sql
volatile
security invoker
set search_path = ''
as $$
  delete from private.ai_route_health as h where h.route_id = close_route.route_id;
$$;

-- Sets the most that one answer may cost, in millionths of a dollar; null takes the ceiling away.
create function admin.set_generation_ceiling(micro_usd bigint)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  if set_generation_ceiling.micro_usd <= 0 then
    raise sqlstate 'PT422' using
      message = 'ceiling_invalid',
      detail  = 'A ceiling is more than nothing; null takes it away.';
  end if;
  delete from private.settings as s where s.key = 'generation_ceiling_micro_usd';
  insert into private.settings (key, value)
  select 'generation_ceiling_micro_usd', to_jsonb(set_generation_ceiling.micro_usd)
  where set_generation_ceiling.micro_usd is not null;
end;
$$;

revoke all on function admin.close_route(bigint), admin.set_generation_ceiling(bigint)
  from public, anon, authenticated, service_role;
comment on function admin.close_route(bigint) is 'Closes the circuit breaker of a route, so that it is asked again at once.';
comment on function admin.set_generation_ceiling(bigint) is
'Sets the most that one answer may cost in millionths of a dollar, where the route has no ceiling of its own; '
'null takes it away. Routes without prices are not used under a ceiling. Raises PT422 ceiling_invalid.';

insert into private.error_codes (code, status, meaning) values
  ('ceiling_invalid', 422, 'A cost ceiling is a positive number of millionths of a dollar.');
