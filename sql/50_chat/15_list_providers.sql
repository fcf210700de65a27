-- The providers of models with the names of their variables and the health of their routes, for
-- functions that say what is configured and what works. Runs as its owner: the tables are reached by
-- no API role.
create function private.list_providers(at timestamptz default clock_timestamp())
returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  select coalesce(
    jsonb_agg(
      jsonb_build_object(
        'provider', p.name, 'base_url_env', p.base_url_env, 'api_key_env', p.api_key_env,
        'default_base_url', p.default_base_url,
        'routes', (
          select coalesce(
            jsonb_agg(
              jsonb_build_object(
                'model', r.model, 'position', r.position,
                'state', private.route_state(h.open_until, list_providers.at),
                'code', h.code,
                'open_until', case when h.open_until > list_providers.at then h.open_until end
              ) order by r.model, r.position
            ),
            '[]'
          )
          from private.ai_routes as r
          join public.ai_models as m on m.id = r.model and m.is_enabled
          left join private.ai_route_health as h on h.route_id = r.id
          where r.provider = p.name and r.is_enabled
        )
      ) order by p.name
    ),
    '[]'
  )
  from private.ai_providers as p;
$$;

create function service.list_providers()
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select private.list_providers();
$$;

revoke all on function private.list_providers(timestamptz), service.list_providers()
  from public, anon, authenticated, service_role;
grant execute on function private.list_providers(timestamptz), service.list_providers() to service_role;
comment on function private.list_providers(timestamptz) is 'Body of service.list_providers.';
comment on function service.list_providers() is
'Providers as [{provider, base_url_env, api_key_env, default_base_url, routes: [{model, position, state, code, '
'open_until}]}]; names of variables, never their values. state is closed, open or half_open.';
