-- The four schemas of the product; DESIGN section 2 says what stands in which.
--   public   what clients may reach, under row level security
--   service  functions for Edge Functions, exposed to the API, granted to service_role alone
--   admin    views and functions for the dashboard, exposed to nobody
--   private  helpers, predicates, triggers, internals; API roles execute function by function
create schema if not exists service;
create schema if not exists admin;
create schema if not exists private;

revoke all on schema service, admin, private from public;
grant usage on schema service to service_role;
grant usage on schema private to anon, authenticated, service_role;
-- Auth runs the access token hook as its own role.
grant usage on schema private to supabase_auth_admin;

comment on schema service is 'Functions for Edge Functions. Exposed to the API, callable with the secret key only.';
comment on schema admin is 'Views and functions for people in the dashboard. Exposed to no API role.';
comment on schema private is 'Internals: predicates, triggers, definer functions, ledgers and queues. Never exposed.';

create extension if not exists pg_cron;
