-- Whose key it is, for what it opens. The person's account decides as it does for their own token.
-- last_used_at is written once a minute, and by one of several requests at once: the others do not wait.
-- Runs as its owner: functions reach no table.
create function private.authenticate_api_key(hash bytea, scope text, at timestamptz default now())
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  found_key public.api_keys;
begin
  select k.* into found_key
  from private.api_key_hashes as h
  join public.api_keys as k on k.id = h.key_id
  where h.hash = authenticate_api_key.hash;
  if not found then
    raise sqlstate 'PT401' using message = 'api_key_unknown', detail = 'There is no such API key.';
  end if;
  if found_key.revoked_at is not null then
    raise sqlstate 'PT401' using message = 'api_key_revoked', detail = 'This API key was revoked.';
  end if;
  if found_key.expires_at <= authenticate_api_key.at then
    raise sqlstate 'PT401' using message = 'api_key_expired', detail = 'This API key has expired.';
  end if;
  if not private.is_account_active(found_key.user_id) then
    raise sqlstate 'PT403' using
      message = 'account_not_active',
      detail  = 'This account is suspended, banned or deleted.';
  end if;
  if not authenticate_api_key.scope = any (found_key.scopes) then
    raise sqlstate 'PT403' using
      message = 'api_key_scope_missing',
      detail  = 'This API key does not open this route.',
      hint    = 'Make a key with the scope ' || authenticate_api_key.scope || '.';
  end if;

  if found_key.last_used_at is null or found_key.last_used_at < authenticate_api_key.at - interval '1 minute' then
    update public.api_keys as k
    set last_used_at = authenticate_api_key.at
    where k.id = (
      select u.id
      from public.api_keys as u
      where u.id = found_key.id
      for no key update skip locked
    );
  end if;
  return jsonb_build_object('key_id', found_key.id, 'user_id', found_key.user_id);
end;
$$;

create function service.authenticate_api_key(hash bytea, scope text)
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.authenticate_api_key(authenticate_api_key.hash, authenticate_api_key.scope);
$$;

revoke all on function
  private.authenticate_api_key(bytea, text, timestamptz), service.authenticate_api_key(bytea, text)
  from public, anon, authenticated, service_role;
grant execute on function
  private.authenticate_api_key(bytea, text, timestamptz), service.authenticate_api_key(bytea, text)
  to service_role;
comment on function service.authenticate_api_key(bytea, text) is
'The key with this SHA-256 as {key_id, user_id}, when it opens the scope. Raises PT401 api_key_unknown, '
'api_key_revoked, api_key_expired, PT403 account_not_active, api_key_scope_missing.';

-- Forgets keys that ended three months ago: nobody asks any more what became of them.
create function private.prune_api_keys(before timestamptz default now() - interval '90 days')
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  with pruned as (
    delete from public.api_keys as k
    where least(k.revoked_at, k.expires_at) < prune_api_keys.before
    returning 1
  )
  select count(*) from pruned;
$$;

revoke all on function private.prune_api_keys(timestamptz) from public, anon, authenticated, service_role;
comment on function private.prune_api_keys(timestamptz) is 'Drops keys that ended before `before`; returns how many.';

select cron.schedule('prune-api-keys', '27 3 * * *', 'select private.prune_api_keys()');
