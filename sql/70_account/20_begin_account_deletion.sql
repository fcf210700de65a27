-- Deletes an account for the function `account`, which has checked who asks. Definer, since it
-- writes Auth's tables and everything the person owns. Calling it again changes nothing, and starts
-- the job anew should it have failed for good.
create function private.begin_account_deletion(user_id uuid)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  -- The user before the profile, as a deletion in the dashboard locks them: so the two cannot deadlock.
  perform from auth.users as u where u.id = begin_account_deletion.user_id for update;
  if not found then
    return jsonb_build_object('status', 'deleted', 'job_id', null);
  end if;

  -- A user whose profile never came about is deleted like any other.
  perform private.ensure_profile(begin_account_deletion.user_id);
  perform private.tombstone_user(begin_account_deletion.user_id);
  -- Auth mints no token for a banned user; the row itself goes with the job.
  update auth.users as u
  set banned_until = now() + interval '100 years'
  where u.id = begin_account_deletion.user_id;
  return jsonb_build_object('status', 'deleted', 'job_id', private.enqueue_erase(begin_account_deletion.user_id));
end;
$$;

revoke all on function private.begin_account_deletion(uuid) from public, anon, authenticated, service_role;
grant execute on function private.begin_account_deletion(uuid) to service_role;
comment on function private.begin_account_deletion(uuid) is 'Body of service.begin_account_deletion.';

create function service.begin_account_deletion(user_id uuid)
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.begin_account_deletion(begin_account_deletion.user_id);
$$;

revoke all on function service.begin_account_deletion(uuid) from public, anon, authenticated, service_role;
grant execute on function service.begin_account_deletion(uuid) to service_role;
comment on function service.begin_account_deletion(uuid) is
'Deletes an account: afterwards nobody sees the person and no session of theirs works; the job erases '
'the rest. Returns {status: deleted, job_id}. Idempotent; job_id is null once the user is gone.';
