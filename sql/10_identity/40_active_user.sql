-- Whether an account is active: neither suspended, nor deleted, nor banned in Auth. For functions that
-- act for somebody whom they name.
create function private.is_account_active(user_id uuid)
returns boolean
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return exists (
    select from public.profiles as p
    join auth.users as u on u.id = p.id
    where p.id = is_account_active.user_id
      and p.status = 'active'
      and (u.banned_until is null or u.banned_until <= now())
  );
end;
$$;

revoke all on function private.is_account_active(uuid) from public, anon, authenticated, service_role;
comment on function private.is_account_active(uuid) is 'True when this account is active and not banned.';

-- Whether the caller is a user whose account is active, for policies on writes. A token outlives
-- a suspension, a ban in Auth or a deletion by up to an hour; the rows do not.
-- Runs as its owner, so that it costs two lookups and no policy, and since it reads Auth's table.
create function private.is_active_user()
returns boolean
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  return private.is_account_active(auth.uid());
end;
$$;

revoke all on function private.is_active_user() from public, anon, authenticated, service_role;
grant execute on function private.is_active_user() to authenticated;
comment on function private.is_active_user() is 'True when the caller''s own account is active and not banned.';

-- The same for policies on inserts: the account stays as it is until the transaction ends. Otherwise
-- a row that was allowed before a deletion could arrive after it, and nothing would take it away.
-- Runs as its owner, since a lock asks for more than a policy on reading gives.
create function private.holds_active_account()
returns boolean
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  perform from public.profiles as p where p.id = (select auth.uid()) for key share;
  return private.is_active_user();
end;
$$;

revoke all on function private.holds_active_account() from public, anon, authenticated, service_role;
grant execute on function private.holds_active_account() to authenticated;
comment on function private.holds_active_account() is
'True when the caller''s own account is active, which it then stays until the transaction ends.';

-- The caller's id, or a refusal; the first line of functions that act for a user.
create function private.require_active_user()
returns uuid
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  caller uuid := auth.uid();
begin
  if caller is null then
    raise sqlstate 'PT401' using
      message = 'sign_in_required',
      detail  = 'This call needs a signed-in user.';
  end if;
  if not private.is_active_user() then
    raise sqlstate 'PT403' using
      message = 'account_not_active',
      detail  = 'This account is suspended, banned or deleted.';
  end if;
  return caller;
end;
$$;

revoke all on function private.require_active_user() from public, anon, authenticated, service_role;
grant execute on function private.require_active_user() to authenticated;
comment on function private.require_active_user() is
'The id of the caller. Raises PT401 sign_in_required, PT403 account_not_active.';

-- What a function that acts for a user reads for them; one that writes holds the account, below.
create function private.require_active_account(user_id uuid)
returns void
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  if not private.is_account_active(require_active_account.user_id) then
    raise sqlstate 'PT403' using
      message = 'account_not_active',
      detail  = 'This account is suspended, banned or deleted.';
  end if;
end;
$$;

revoke all on function private.require_active_account(uuid) from public, anon, authenticated, service_role;
comment on function private.require_active_account(uuid) is 'Raises PT403 account_not_active unless this account is active.';

-- Refuses unless the account of somebody for whom a function acts is active, which it then stays until
-- the transaction ends.
create function private.hold_active_account(user_id uuid)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  perform from public.profiles as p where p.id = hold_active_account.user_id for key share;
  perform private.require_active_account(hold_active_account.user_id);
end;
$$;

revoke all on function private.hold_active_account(uuid) from public, anon, authenticated, service_role;
comment on function private.hold_active_account(uuid) is
'Holds an account active until the transaction ends. Raises PT403 account_not_active.';
