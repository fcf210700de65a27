-- idempotency_keys: what a request with a key answered, so that the same request again has the
-- same answer. Unique per person, operation and key.
create table private.idempotency_keys (
  owner_id     uuid not null references auth.users (id) on delete cascade,
  operation    text not null,
  key          text not null constraint idempotency_keys_key_has_bounds check (char_length(key) between 1 and 255),
  request_hash bytea not null,
  response     jsonb,
  created_at   timestamptz not null default now(),
  constraint idempotency_keys_pkey primary key (owner_id, operation, key)
);

create index idempotency_keys_by_age on private.idempotency_keys (created_at);

revoke all on table private.idempotency_keys from public, anon, authenticated, service_role;
comment on table private.idempotency_keys is 'Answers of requests that carried an idempotency key, kept for a week.';
comment on column private.idempotency_keys.owner_id is 'The user whose key it is.';
comment on column private.idempotency_keys.request_hash is 'SHA-256 of the request body as jsonb text.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('private', 'idempotency_keys', 'owner_id', 'delete', 'exclude');

-- Remembers a request. Null: it is new, the row is locked, do the work and call store_response in
-- the same transaction. Otherwise: the answer it had. A second session with the same key waits
-- here for the first one to end.
create function private.remember_request(user_id uuid, operation text, key text, body jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  hash bytea := sha256(convert_to(coalesce(remember_request.body, 'null')::text, 'UTF8'));
  seen private.idempotency_keys;
begin
  if remember_request.key is null or char_length(remember_request.key) not between 1 and 255 then
    raise sqlstate 'PT422' using
      message = 'idempotency_key_invalid',
      detail  = 'An idempotency key is 1 to 255 characters.';
  end if;

  insert into private.idempotency_keys (owner_id, operation, key, request_hash)
  values (remember_request.user_id, remember_request.operation, remember_request.key, hash)
  on conflict on constraint idempotency_keys_pkey do nothing;
  if found then
    return null;
  end if;

  select k.* into strict seen
  from private.idempotency_keys as k
  where k.owner_id = remember_request.user_id
    and k.operation = remember_request.operation
    and k.key = remember_request.key
  for update;

  if seen.request_hash <> hash then
    raise sqlstate 'PT409' using
      message = 'idempotency_key_reused',
      detail  = 'This idempotency key was used before with a different request.',
      hint    = 'Use a new key for a new request.';
  end if;
  return seen.response;
end;
$$;

revoke all on function private.remember_request(uuid, text, text, jsonb)
  from public, anon, authenticated, service_role;
comment on function private.remember_request(uuid, text, text, jsonb) is
'Null for a new request (its row is now locked), else the answer it had before. '
'Raises PT409 idempotency_key_reused, PT422 idempotency_key_invalid.';

-- Stores the answer of a remembered request.
create function private.store_response(user_id uuid, operation text, key text, response jsonb)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  update private.idempotency_keys as k
  set response = store_response.response
  where k.owner_id = store_response.user_id
    and k.operation = store_response.operation
    and k.key = store_response.key;
end;
$$;

revoke all on function private.store_response(uuid, text, text, jsonb) from public, anon, authenticated, service_role;
comment on function private.store_response(uuid, text, text, jsonb) is
'Stores the answer of a request remembered in this transaction.';

-- Drops keys of requests that nobody will repeat any more.
create function private.prune_idempotency_keys(before timestamptz default now() - interval '7 days')
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  with pruned as (
    delete from private.idempotency_keys as k
    where k.created_at < prune_idempotency_keys.before
    returning 1
  )
  select count(*) from pruned;
$$;

revoke all on function private.prune_idempotency_keys(timestamptz) from public, anon, authenticated, service_role;
comment on function private.prune_idempotency_keys(timestamptz) is 'Drops idempotency keys older than `before`; returns how many.';

select cron.schedule('prune-idempotency-keys', '17 3 * * *', 'select private.prune_idempotency_keys()');
