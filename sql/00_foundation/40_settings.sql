-- settings: what one installation decides once. One row per setting.
create table private.settings (
  key        text primary key constraint settings_key_is_snake_case check (key ~ '^[a-z][a-z0-9_]+$'),
  value      jsonb not null,
  updated_at timestamptz not null default now()
);

revoke all on table private.settings from public, anon, authenticated, service_role;
comment on table private.settings is
'What one installation decides once. `project_url`: the public origin of the project, part of every did. '
'`realtime_events_per_second`: the limit of the project''s plan, 100 when absent; '
'deltas of answers are sent while everything together stays within half of it.';

-- On hosted and locally `[db.vault]` is written before migrations run. A value that is no origin
-- (for example an unset variable) is left out; admin.set_project_url sets it later.
insert into private.settings (key, value)
select 'project_url', to_jsonb(rtrim(s.decrypted_secret, '/'))
from vault.decrypted_secrets as s
where s.name = 'project_url'
  and s.decrypted_secret ~ '^https?://[^/?#\s]+/?$';
