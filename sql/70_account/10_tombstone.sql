-- Deleting an account, first half: one transaction after which nobody sees the person any more and
-- no credential of theirs works. What SQL cannot remove (files, the Auth user) is the job's.

-- Makes a profile a tombstone. True: done now; false: it was one already, or there is none.
-- Rows marked `delete` in private.owned_data go here; each domain whose rows live on detaches them
-- itself.
create function private.tombstone_user(user_id uuid)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  owned record;
begin
  perform 1 from public.profiles as p
  where p.id = tombstone_user.user_id and p.status <> 'deleted'
  for update;
  if not found then
    return false;
  end if;

  perform private.detach_user_from_chat(tombstone_user.user_id);
  perform private.detach_user_from_usage(tombstone_user.user_id);
  perform private.detach_user_from_reports(tombstone_user.user_id);
  for owned in
    select d.schema_name, d.table_name, d.owner_column
    from private.owned_data as d
    where d.on_delete = 'delete'
    order by d.schema_name, d.table_name, d.owner_column
  loop
    execute format('delete from %I.%I where %I = $1', owned.schema_name, owned.table_name, owned.owner_column)
    using tombstone_user.user_id;
  end loop;

  delete from public.profile_private as s where s.id = tombstone_user.user_id;
  -- The old username becomes reserved by the trigger on profiles.
  update public.profiles as p
  set username = 'deleted_' || left(replace(gen_random_uuid()::text, '-', ''), 20),
    display_name = 'Deleted user', avatar_path = default, bio = default, status = 'deleted',
    status_message = default, locale = default, did = null, last_seen_at = null
  where p.id = tombstone_user.user_id;

  -- Refresh tokens go with their sessions.
  delete from auth.sessions as s where s.user_id = tombstone_user.user_id;

  -- Last, since the events of the rows above went with their owner.
  delete from private.outbox as o where o.user_id = tombstone_user.user_id;
  perform private.emit_event(
    'user.deleted', tombstone_user.user_id, jsonb_build_object('user_id', tombstone_user.user_id)
  );
  return true;
end;
$$;

revoke all on function private.tombstone_user(uuid) from public, anon, authenticated, service_role;
comment on function private.tombstone_user(uuid) is
'Makes a profile a nameless tombstone and ends all sessions; emits user.deleted. False when it was one already.';

-- Queues the second half. The same user has one open job at a time, and a second one for later:
-- Storage asks the policies when an upload begins, and an address that was signed for one is good for
-- two hours, so a file may arrive after the first job has looked.
create function private.enqueue_erase(user_id uuid)
returns uuid
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  payload jsonb := jsonb_build_object('user_id', enqueue_erase.user_id);
begin
  perform private.enqueue_job(
    kind       => 'erase',
    owner_id   => null,
    payload    => payload,
    delay      => interval '3 hours',
    dedupe_key => enqueue_erase.user_id::text || ' late files'
  );
  return private.enqueue_job(
    kind       => 'erase',
    owner_id   => null,
    payload    => payload,
    dedupe_key => enqueue_erase.user_id::text
  );
end;
$$;

revoke all on function private.enqueue_erase(uuid) from public, anon, authenticated, service_role;
comment on function private.enqueue_erase(uuid) is 'Queues the erase job of a user, and one for files that arrive late; returns the first, or the open one.';
