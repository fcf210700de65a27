-- The providers of models with the names of their variables, for functions that say which of them
-- are configured. Runs as its owner: the table is reached by no API role.
create function private.list_providers()
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
        'default_base_url', p.default_base_url
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

revoke all on function private.list_providers(), service.list_providers()
  from public, anon, authenticated, service_role;
grant execute on function private.list_providers(), service.list_providers() to service_role;
comment on function private.list_providers() is 'Body of service.list_providers.';
comment on function service.list_providers() is
'Providers as [{provider, base_url_env, api_key_env, default_base_url}]; names of variables, never their values.';
