-- Schemas, their grants and the untrusted contrib extensions, in one database. Idempotent.
do $$
begin
  execute format('alter database %I owner to postgres', current_database());
end
$$;

grant usage on schema public to anon, authenticated, service_role, postgres;
grant create on schema public to postgres;

create schema if not exists extensions;
create schema if not exists auth;
create schema if not exists storage;
create schema if not exists realtime;
create schema if not exists graphql_public;

grant usage on schema extensions, auth, storage, realtime, graphql_public to anon, authenticated, service_role;
grant usage on schema extensions, auth, storage, realtime to dashboard_user;
grant usage on schema auth, graphql_public to postgres;
grant usage on schema storage, realtime to postgres with grant option;
grant all on schema extensions to postgres with grant option;
grant all on schema auth to supabase_auth_admin;
grant usage on schema storage to supabase_storage_admin;
grant usage on schema realtime to supabase_realtime_admin;

create extension if not exists pgcrypto with schema extensions;
create extension if not exists "uuid-ossp" with schema extensions;

-- postgres may not create these itself, as they are not trusted; on hosted it may.
do $$
declare
  extension text;
begin
  foreach extension in array array['pg_stat_statements', 'moddatetime', 'plpgsql_check'] loop
    if exists (select from pg_available_extensions e where e.name = extension) then
      execute format('create extension if not exists %I with schema extensions', extension);
    end if;
  end loop;
end
$$;

alter default privileges for role postgres in schema extensions
  grant all on tables to postgres with grant option;
alter default privileges for role supabase_admin in schema extensions
  grant all on functions to postgres with grant option;
