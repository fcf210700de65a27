-- A user deleted in the dashboard, by SQL or by Auth's admin API ends the same way: the tombstone
-- first, so that every domain can detach its rows, then the foreign keys, then the job for files.
-- Runs as its owner, since Auth's role has no rights here. An error keeps the user, on purpose:
-- half a deletion would be worse than none.
create function private.tg_users__erase()
returns trigger
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  if private.tombstone_user(old.id) then
    perform private.enqueue_erase(old.id);
  end if;
  return old;
end;
$$;

revoke all on function private.tg_users__erase() from public, anon, authenticated, service_role;
comment on function private.tg_users__erase() is 'Trigger: makes a tombstone of a user who is being deleted, and queues the erase job.';

create or replace trigger _100_parlor_erase before delete on auth.users
  for each row execute function private.tg_users__erase();
