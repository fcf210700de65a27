-- Roles with hosted's attributes, settings and memberships. Idempotent; runs as the superuser supabase_admin.
do $$
declare
  r record;
begin
  for r in
    select * from (values
      ('anon', 'nologin inherit'),
      ('authenticated', 'nologin inherit'),
      ('service_role', 'nologin inherit bypassrls'),
      ('authenticator', 'login noinherit'),
      ('postgres', 'login inherit createdb createrole replication bypassrls'),
      ('supabase_auth_admin', 'login noinherit createrole'),
      ('supabase_storage_admin', 'nologin noinherit'),
      ('supabase_realtime_admin', 'nologin noinherit'),
      ('supabase_functions_admin', 'nologin'),
      ('supabase_read_only_user', 'nologin inherit bypassrls'),
      ('dashboard_user', 'nologin createdb createrole replication'),
      -- Not on hosted: the gateway's own login, so that a forged role claim can never become more than an API role.
      -- By itself it may do nothing: a statement that ran outside a caller's role would be refused.
      ('rest', 'login noinherit')
    ) as wanted (name, attributes)
  loop
    if not exists (select from pg_roles where rolname = r.name) then
      execute format('create role %I with %s', r.name, r.attributes);
    end if;
  end loop;
end
$$;

alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';
alter role rest set statement_timeout = '8s';
alter role rest set lock_timeout = '8s';
alter role postgres set search_path = "$user", public, extensions;
alter role supabase_admin set search_path = "$user", public, auth, extensions;
alter role supabase_auth_admin set search_path = auth;
alter role supabase_auth_admin set idle_in_transaction_session_timeout = '60s';
alter role supabase_storage_admin set search_path = storage;
alter role supabase_realtime_admin set search_path = realtime;

grant anon, authenticated, service_role to authenticator;
grant anon, authenticated, service_role to rest;
grant authenticator to supabase_storage_admin;
grant anon, authenticated, service_role, authenticator, pg_monitor, pg_read_all_data, pg_signal_backend
  to postgres with admin option;
grant pg_create_subscription to postgres;
grant pg_read_all_data to supabase_read_only_user;
-- Stands in for supautils.policy_grants: lets postgres manage policies and triggers on the platform's tables, while it
-- can neither become these roles nor create anything in their schemas.
grant supabase_storage_admin, supabase_realtime_admin to postgres with inherit true, set false;
