-- Calls a worker through pg_net when nobody seems to be at work. Never more than one call in
-- `pause`, however many jobs arrive at once: sessions that find the row locked go on without it.
-- A lost call costs nothing but time, because private.sweep_jobs calls again.
create function private.wake_worker(pause interval default '5 seconds')
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  target text;
  secret text;
begin
  if exists (select from private.workers as w where w.seen_at > clock_timestamp() - interval '10 seconds')
    or exists (select from private.worker_wake_up as u where u.called_at > clock_timestamp() - wake_worker.pause)
  then
    return false;
  end if;

  perform from private.worker_wake_up as u
  where u.called_at <= clock_timestamp() - wake_worker.pause
  for update skip locked;
  if not found then
    return false;
  end if;

  select max(s.decrypted_secret) filter (where s.name = 'worker_url'),
    max(s.decrypted_secret) filter (where s.name = 'worker_secret')
  into target, secret
  from vault.decrypted_secrets as s
  where s.name in ('worker_url', 'worker_secret');
  -- An installation without these runs its worker by other means.
  if target is null or target !~ '^https?://' or secret is null then
    return false;
  end if;

  update private.worker_wake_up as u set called_at = clock_timestamp() where u.only_row;
  perform net.http_post(
    url                  => target,
    body                 => '{}'::jsonb,
    headers              => jsonb_build_object(
      'content-type', 'application/json',
      'authorization', 'Bearer ' || secret
    ),
    timeout_milliseconds => 5000
  );
  return true;
end;
$$;

revoke all on function private.wake_worker(interval) from public, anon, authenticated, service_role;
comment on function private.wake_worker(interval) is
'Calls the worker function (Vault: worker_url, worker_secret) unless a worker is alive or was called just now. '
'True when it called.';

-- Finds work that nobody is at, for example after a lost wake-up, and whoever was not admitted in
-- time. Run by cron.
create function private.sweep_jobs()
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  delete from private.workers as w where w.seen_at < clock_timestamp() - interval '1 hour';
  perform private.admit_due_jobs(batch => 10000);
  perform private.repair_admission();
  return true = any (private.queue_visible()) and private.wake_worker();
end;
$$;

revoke all on function private.sweep_jobs() from public, anon, authenticated, service_role;
comment on function private.sweep_jobs() is 'Admits jobs that are due, and calls a worker when a message waits and none is alive; true when it called.';
