-- The caller's id, with their account held as it is until the transaction ends: a deletion of the
-- account waits, and what this transaction writes is there for it to detach. Taken before any
-- conversation is locked, as the deletion does.
create function private.hold_active_user()
returns uuid
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  caller uuid := auth.uid();
begin
  perform from public.profiles as p where p.id = caller for key share;
  -- Every write asks, so it asks the rule itself; who is refused hears why.
  if not private.is_account_active(caller) then
    return private.require_active_user();
  end if;
  return caller;
end;
$$;

revoke all on function private.hold_active_user() from public, anon, authenticated, service_role;
comment on function private.hold_active_user() is
'The id of the caller, whose account cannot be deleted before this transaction ends. '
'Raises PT401 sign_in_required, PT403 account_not_active.';
