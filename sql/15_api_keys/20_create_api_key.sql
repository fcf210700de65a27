-- Makes a key for the caller and answers it, for the only time. A person has at most 20 that work;
-- their row is locked against other new keys, so that two at once cannot make one too many.
-- Runs as its owner: no API role writes the tables.
create function private.create_api_key(name text, scopes text[], expires_in_days integer)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  caller uuid;
  secret text := 'pk_parlor_' || replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '');
  made   public.api_keys;
begin
  perform from public.profiles as p where p.id = (select auth.uid()) for no key update;
  caller := private.require_active_user();
  if not coalesce(private.is_line(create_api_key.name, 100), false) then
    raise sqlstate 'PT422' using
      message = 'api_key_name_invalid',
      detail  = 'A key has a name of one line and at most 100 characters.';
  end if;
  if not coalesce(
    create_api_key.scopes <@ array['chat', 'models', 'embeddings'] and cardinality(create_api_key.scopes) > 0, false
  ) then
    raise sqlstate 'PT422' using
      message = 'api_key_scope_unknown',
      detail  = 'The scopes of a key are some of chat, models, embeddings.';
  end if;
  if create_api_key.expires_in_days not between 1 and 3650 then
    raise sqlstate 'PT422' using
      message = 'api_key_expiry_invalid',
      detail  = 'A key expires after 1 to 3650 days, or never.';
  end if;
  if (
    select count(*)
    from public.api_keys as k
    where k.user_id = caller and k.revoked_at is null and (k.expires_at is null or k.expires_at > now())
  ) >= 20 then
    raise sqlstate 'PT409' using
      message = 'api_key_limit_reached',
      detail  = 'There are 20 keys of this account that work.',
      hint    = 'Revoke one that is not used any more.';
  end if;

  insert into public.api_keys (user_id, name, prefix, scopes, expires_at)
  values (
    caller, create_api_key.name, left(secret, 18),
    array(select distinct s.scope from unnest(create_api_key.scopes) as s (scope) order by s.scope),
    now() + make_interval(days => create_api_key.expires_in_days)
  )
  returning * into made;
  insert into private.api_key_hashes (hash, key_id) values (sha256(convert_to(secret, 'UTF8')), made.id);
  return to_jsonb(made) || jsonb_build_object('key', secret);
end;
$$;

create function public.create_api_key(
  name text,
  scopes text[] default array['chat', 'models', 'embeddings'],
  expires_in_days integer default null
)
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.create_api_key(create_api_key.name, create_api_key.scopes, create_api_key.expires_in_days);
$$;

revoke all on function
  private.create_api_key(text, text[], integer), public.create_api_key(text, text[], integer)
  from public, anon, authenticated, service_role;
grant execute on function
  private.create_api_key(text, text[], integer), public.create_api_key(text, text[], integer)
  to authenticated;
comment on function public.create_api_key(text, text[], integer) is
'Makes a personal API key and answers its row with `key`, the key itself, which is shown this once. expires_in_days '
'null: it does not expire. Raises PT422 api_key_name_invalid, api_key_scope_unknown, api_key_expiry_invalid, '
'PT409 api_key_limit_reached.';

-- Ends a key of the caller at once; calling it again changes nothing.
-- Runs as its owner: no API role writes the table.
create function private.revoke_api_key(key_id uuid)
returns public.api_keys
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  caller  uuid := private.require_active_user();
  revoked public.api_keys;
begin
  update public.api_keys as k
  set revoked_at = coalesce(k.revoked_at, now())
  where k.id = revoke_api_key.key_id and k.user_id = caller
  returning k.* into revoked;
  if not found then
    raise sqlstate 'PT404' using message = 'api_key_not_found', detail = 'There is no such key.';
  end if;
  return revoked;
end;
$$;

create function public.revoke_api_key(key_id uuid)
returns public.api_keys
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.revoke_api_key(revoke_api_key.key_id);
$$;

revoke all on function private.revoke_api_key(uuid), public.revoke_api_key(uuid)
  from public, anon, authenticated, service_role;
grant execute on function private.revoke_api_key(uuid), public.revoke_api_key(uuid) to authenticated;
comment on function public.revoke_api_key(uuid) is
'Ends one of the caller''s keys for its next request and returns it; safe to repeat. Raises PT404 api_key_not_found.';
