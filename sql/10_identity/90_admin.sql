-- users: every account in one row, for the dashboard.
create view admin.users
with (security_invoker = true)
as
select
  u.id,
  u.email,
  u.phone,
  u.is_anonymous,
  p.username,
  p.display_name,
  p.status,
  p.did,
  p.locale,
  coalesce(
    (select array_agg(r.role order by r.role) from private.app_roles as r where r.user_id = u.id),
    array[]::text[]
  ) as roles,
  u.created_at,
  u.email_confirmed_at,
  u.last_sign_in_at,
  p.last_seen_at,
  u.banned_until
from auth.users as u
left join public.profiles as p on p.id = u.id;

revoke all on table admin.users from public, anon, authenticated, service_role;
comment on view admin.users is 'Every account with its profile, roles and sign-in times.';

-- Suspends an account or lifts that. A deleted account stays deleted.
create function admin.set_account_status(user_id uuid, status text)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  if set_account_status.status is null or set_account_status.status not in ('active', 'suspended') then
    raise sqlstate 'PT422' using
      message = 'account_status_unknown',
      detail  = 'An account is set to active or suspended; deletion has its own way.';
  end if;
  update public.profiles as p
  set status = set_account_status.status
  where p.id = set_account_status.user_id and p.status <> 'deleted';
  if not found then
    raise sqlstate 'PT404' using
      message = 'user_not_found',
      detail  = 'There is no such user.';
  end if;
end;
$$;

revoke all on function admin.set_account_status(uuid, text) from public, anon, authenticated, service_role;
comment on function admin.set_account_status(uuid, text) is
'Suspends an account or lifts that. Raises PT422 account_status_unknown, PT404 user_not_found.';

-- Any user by id, for admins. Definer, since it reads Auth's table.
create function private.admin_get_user(user_id uuid)
returns jsonb
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  answer jsonb;
begin
  perform private.require_admin();

  select to_jsonb(u) into answer from admin.users as u where u.id = admin_get_user.user_id;
  if answer is null then
    raise sqlstate 'PT404' using
      message = 'user_not_found',
      detail  = 'There is no such user.';
  end if;
  return answer;
end;
$$;

revoke all on function private.admin_get_user(uuid) from public, anon, authenticated, service_role;
grant execute on function private.admin_get_user(uuid) to authenticated;
comment on function private.admin_get_user(uuid) is 'Body of public.admin_get_user.';

create function public.admin_get_user(user_id uuid)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select private.admin_get_user(admin_get_user.user_id);
$$;

revoke all on function public.admin_get_user(uuid) from public, anon, authenticated, service_role;
grant execute on function public.admin_get_user(uuid) to authenticated;
comment on function public.admin_get_user(uuid) is
'Admins only: a row of admin.users. Raises PT403 admin_role_required, PT404 user_not_found.';
