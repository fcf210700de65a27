-- Auth calls this for each token it mints; roles go into claims.app_metadata.roles, where clients
-- may read them. Rules never trust the token: they ask private.has_role.
-- Runs as its owner: Auth's role has no rights on our tables.
create function private.custom_access_token(event jsonb)
returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  select jsonb_build_object('claims', (event -> 'claims') || jsonb_build_object(
    'app_metadata',
    case when jsonb_typeof(event #> '{claims,app_metadata}') = 'object'
      then event #> '{claims,app_metadata}' else '{}'::jsonb end
    || jsonb_build_object('roles', coalesce((
      select jsonb_agg(r.role order by r.role)
      from private.app_roles as r
      join public.profiles as p on p.id = r.user_id
      where r.user_id = (event ->> 'user_id')::uuid and p.status = 'active'
    ), '[]'::jsonb))
  ));
$$;

revoke all on function private.custom_access_token(jsonb) from public, anon, authenticated, service_role;
grant execute on function private.custom_access_token(jsonb) to supabase_auth_admin;
comment on function private.custom_access_token(jsonb) is
'Custom access token hook of Auth: puts app roles into claims.app_metadata.roles.';
