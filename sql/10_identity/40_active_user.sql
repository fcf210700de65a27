-- Whether the caller is a user whose account is active, for policies on writes. A token outlives
-- a suspension or deletion by up to an hour; the row does not.
-- Runs as its owner, so that it costs one lookup and no policy.
create function private.is_active_user()
returns boolean
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  return exists (
    select from public.profiles as p where p.id = (select auth.uid()) and p.status = 'active'
  );
end;
$$;

revoke all on function private.is_active_user() from public, anon, authenticated, service_role;
grant execute on function private.is_active_user() to authenticated;
comment on function private.is_active_user() is 'True when the caller''s own account is active.';

-- The caller's id, or a refusal; the first line of functions that act for a user.
create function private.require_active_user()
returns uuid
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  if (select auth.uid()) is null then
    raise sqlstate 'PT401' using
      message = 'sign_in_required',
      detail  = 'This call needs a signed-in user.';
  end if;
  if not private.is_active_user() then
    raise sqlstate 'PT403' using
      message = 'account_not_active',
      detail  = 'This account is suspended or deleted.';
  end if;
  return (select auth.uid());
end;
$$;

revoke all on function private.require_active_user() from public, anon, authenticated, service_role;
grant execute on function private.require_active_user() to authenticated;
comment on function private.require_active_user() is
'The id of the caller. Raises PT401 sign_in_required, PT403 account_not_active.';
