-- app_roles: who may do more than others. Granted by admins; the first one in the dashboard.
create table private.app_roles (
  user_id    uuid not null references public.profiles (id) on delete cascade,
  role       text not null constraint app_roles_role_known check (role in ('admin', 'moderator', 'creator')),
  granted_by uuid references public.profiles (id) on delete set null,
  granted_at timestamptz not null default now(),
  constraint app_roles_pkey primary key (user_id, role)
);

create index app_roles_by_granter on private.app_roles (granted_by);

revoke all on table private.app_roles from public, anon, authenticated, service_role;
comment on table private.app_roles is 'App roles: admin, moderator, creator.';
comment on column private.app_roles.granted_by is 'The admin who granted it; null when granted in the dashboard.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export) values
  ('private', 'app_roles', 'user_id', 'delete', 'include'),
  ('private', 'app_roles', 'granted_by', 'detach', 'exclude');

-- Whether the caller holds a role now. Read from the table, since a token remembers what was.
-- Runs as its owner, because nobody reads the table.
create function private.has_role(role text)
returns boolean
language sql
stable
security definer
set search_path = ''
as $$
  select private.is_active_user() and exists (
    select from private.app_roles as r
    where r.user_id = (select auth.uid()) and r.role = has_role.role
  );
$$;

revoke all on function private.has_role(text) from public, anon, authenticated, service_role;
grant execute on function private.has_role(text) to authenticated;
comment on function private.has_role(text) is 'True when the caller holds the app role now and is active.';

-- The caller's id when they are an admin, or a refusal.
create function private.require_admin()
returns uuid
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  perform private.require_active_user();
  if not private.has_role('admin') then
    raise sqlstate 'PT403' using
      message = 'admin_role_required',
      detail  = 'This call needs the app role admin.';
  end if;
  return (select auth.uid());
end;
$$;

revoke all on function private.require_admin() from public, anon, authenticated, service_role;
comment on function private.require_admin() is
'The id of the caller. Raises PT401 sign_in_required, PT403 account_not_active, PT403 admin_role_required.';

-- Grants a role in the dashboard. The token carries it from its next refresh on.
create function admin.grant_role(user_id uuid, role text)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  if grant_role.role is null or grant_role.role not in ('admin', 'moderator', 'creator') then
    raise sqlstate 'PT422' using
      message = 'role_unknown',
      detail  = 'An app role is admin, moderator or creator.';
  end if;
  if not exists (select from public.profiles as p where p.id = grant_role.user_id and p.status <> 'deleted') then
    raise sqlstate 'PT404' using
      message = 'user_not_found',
      detail  = 'There is no such user.';
  end if;

  insert into private.app_roles (user_id, role, granted_by)
  values (grant_role.user_id, grant_role.role, (select auth.uid()))
  on conflict on constraint app_roles_pkey do nothing;
end;
$$;

revoke all on function admin.grant_role(uuid, text) from public, anon, authenticated, service_role;
comment on function admin.grant_role(uuid, text) is
'Grants an app role; granting it again changes nothing. Raises PT422 role_unknown, PT404 user_not_found.';

create function admin.revoke_role(user_id uuid, role text)
returns void
language sql
volatile
security invoker
set search_path = ''
as $$
  delete from private.app_roles as r where r.user_id = revoke_role.user_id and r.role = revoke_role.role;
$$;

revoke all on function admin.revoke_role(uuid, text) from public, anon, authenticated, service_role;
comment on function admin.revoke_role(uuid, text) is 'Takes an app role away; it ends at once where it matters.';

-- The same two for admins who use the API. Definer, since the table is nobody's to write.
create function private.grant_role(user_id uuid, role text)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  perform private.require_admin();
  perform admin.grant_role(grant_role.user_id, grant_role.role);
end;
$$;

revoke all on function private.grant_role(uuid, text) from public, anon, authenticated, service_role;
grant execute on function private.grant_role(uuid, text) to authenticated;
comment on function private.grant_role(uuid, text) is 'Body of public.grant_role.';

create function private.revoke_role(user_id uuid, role text)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  perform private.require_admin();
  perform admin.revoke_role(revoke_role.user_id, revoke_role.role);
end;
$$;

revoke all on function private.revoke_role(uuid, text) from public, anon, authenticated, service_role;
grant execute on function private.revoke_role(uuid, text) to authenticated;
comment on function private.revoke_role(uuid, text) is 'Body of public.revoke_role.';

create function public.grant_role(user_id uuid, role text)
returns void
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.grant_role(grant_role.user_id, grant_role.role);
$$;

revoke all on function public.grant_role(uuid, text) from public, anon, authenticated, service_role;
grant execute on function public.grant_role(uuid, text) to authenticated;
comment on function public.grant_role(uuid, text) is
'Admins only: grants an app role. Granting it again changes nothing. '
'Raises PT403 admin_role_required, PT422 role_unknown, PT404 user_not_found.';

create function public.revoke_role(user_id uuid, role text)
returns void
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.revoke_role(revoke_role.user_id, revoke_role.role);
$$;

revoke all on function public.revoke_role(uuid, text) from public, anon, authenticated, service_role;
grant execute on function public.revoke_role(uuid, text) to authenticated;
comment on function public.revoke_role(uuid, text) is
'Admins only: takes an app role away. Raises PT403 admin_role_required.';
