-- api_keys: personal keys, with which a program acts for a person on the OpenAI-compatible routes.
-- The key itself is shown once; what is kept is its hash, in a table that no API role reads.
create table public.api_keys (
  id           uuid primary key default private.uuid_v7(),
  user_id      uuid not null references public.profiles (id) on delete cascade,
  name         text not null constraint api_keys_name_is_line check (private.is_line(name, 100)),
  prefix       text not null,
  scopes       text[] not null
    constraint api_keys_scopes_known check (scopes <@ array['chat', 'models', 'embeddings'] and cardinality(scopes) > 0),
  expires_at   timestamptz,
  last_used_at timestamptz,
  revoked_at   timestamptz,
  created_at   timestamptz not null default now()
);

create index api_keys_by_user on public.api_keys (user_id, id);
alter table public.api_keys enable row level security;

-- No insert and no update: keys are made and revoked by rpc alone.
revoke all on table public.api_keys from public, anon, authenticated, service_role;
grant select on table public.api_keys to authenticated, service_role;
comment on table public.api_keys is
'Personal API keys, without the key itself. Made by rpc create_api_key, ended by rpc revoke_api_key.';
comment on column public.api_keys.prefix is 'How the key begins, to tell one from another.';
comment on column public.api_keys.scopes is 'What the key opens: chat, models, embeddings.';
comment on column public.api_keys.expires_at is 'Null: it does not expire.';
comment on column public.api_keys.last_used_at is 'To the minute.';

create policy "owners can read their API keys" on public.api_keys
  for select to authenticated
  using (user_id = (select auth.uid()));

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('public', 'api_keys', 'user_id', 'delete', 'include');

create table private.api_key_hashes (
  hash   bytea primary key,
  key_id uuid not null constraint api_key_hashes_one_per_key unique references public.api_keys (id) on delete cascade
);

revoke all on table private.api_key_hashes from public, anon, authenticated, service_role;
comment on table private.api_key_hashes is
'SHA-256 of each key. A key is 244 random bits, so that no salt and no slow hash would make it safer.';

insert into private.error_codes (code, status, meaning) values
  ('api_key_name_invalid', 422, 'A key has a name of one line and at most 100 characters.'),
  ('api_key_scope_unknown', 422, 'The scopes of a key are some of chat, models, embeddings.'),
  ('api_key_expiry_invalid', 422, 'A key expires after 1 to 3650 days, or never.'),
  ('api_key_limit_reached', 409, 'A person has as many keys as they can have; revoke one.'),
  ('api_key_not_found', 404, 'There is no such key among the caller''s own.'),
  ('api_key_unknown', 401, 'There is no such key, or it is gone.'),
  ('api_key_revoked', 401, 'The key was revoked.'),
  ('api_key_expired', 401, 'The key has expired.'),
  ('api_key_scope_missing', 403, 'The key does not open this.');
