-- Event triggers of the superuser: postgres inherits the owners of storage and realtime so that it may write policies
-- there, and these refuse the rest that inheritance brings, with hosted's error. Idempotent.
create or replace function extensions.supabase_local_guard() returns event_trigger
language plpgsql set search_path = '' as $$
declare
  r record;
begin
  if (select rolsuper from pg_catalog.pg_roles where rolname = current_user) then
    return;
  end if;
  if tg_event = 'ddl_command_end' then
    for r in select * from pg_event_trigger_ddl_commands() loop
      if r.object_type in ('policy', 'trigger') or r.command_tag in ('GRANT', 'REVOKE', 'COMMENT') then
        continue;
      end if;
      if r.schema_name in ('auth', 'storage', 'realtime') or exists (
        -- Moved out of its schema by this very command.
        select from pg_catalog.pg_class c join pg_catalog.pg_roles o on o.oid = c.relowner
        where r.classid = 'pg_catalog.pg_class'::regclass and c.oid = r.objid
          and o.rolname in ('supabase_storage_admin', 'supabase_realtime_admin')
      ) or exists (
        select from pg_catalog.pg_proc p join pg_catalog.pg_roles o on o.oid = p.proowner
        where r.classid = 'pg_catalog.pg_proc'::regclass and p.oid = r.objid
          and o.rolname in ('supabase_storage_admin', 'supabase_realtime_admin')
      ) then
        raise exception 'must be owner of % %', r.object_type, r.object_identity using errcode = '42501';
      end if;
    end loop;
  else
    for r in select * from pg_event_trigger_dropped_objects() where original loop
      if r.schema_name in ('auth', 'storage', 'realtime') and r.object_type not in ('policy', 'trigger') then
        raise exception 'must be owner of % %', r.object_type, r.object_identity using errcode = '42501';
      end if;
    end loop;
  end if;
end
$$;

-- As on hosted: the Data API learns of a changed schema at once.
create or replace function extensions.pgrst_ddl_watch() returns event_trigger language plpgsql as $$
declare
  r record;
begin
  for r in select * from pg_event_trigger_ddl_commands() loop
    if r.command_tag in (
      'CREATE SCHEMA', 'ALTER SCHEMA', 'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE',
      'CREATE FOREIGN TABLE', 'ALTER FOREIGN TABLE', 'CREATE VIEW', 'ALTER VIEW', 'CREATE MATERIALIZED VIEW',
      'ALTER MATERIALIZED VIEW', 'CREATE FUNCTION', 'ALTER FUNCTION', 'CREATE TRIGGER', 'CREATE TYPE', 'ALTER TYPE',
      'CREATE RULE', 'COMMENT'
    ) and r.schema_name is distinct from 'pg_temp' then
      notify pgrst, 'reload schema';
    end if;
  end loop;
end
$$;

create or replace function extensions.pgrst_drop_watch() returns event_trigger language plpgsql as $$
declare
  r record;
begin
  for r in select * from pg_event_trigger_dropped_objects() loop
    if r.object_type in (
      'schema', 'table', 'foreign table', 'view', 'materialized view', 'function', 'trigger', 'type', 'rule'
    ) and not r.is_temporary then
      notify pgrst, 'reload schema';
    end if;
  end loop;
end
$$;

drop event trigger if exists supabase_local_guard;
drop event trigger if exists supabase_local_guard_drop;
drop event trigger if exists pgrst_ddl_watch;
drop event trigger if exists pgrst_drop_watch;
create event trigger supabase_local_guard on ddl_command_end execute function extensions.supabase_local_guard();
create event trigger supabase_local_guard_drop on sql_drop execute function extensions.supabase_local_guard();
create event trigger pgrst_ddl_watch on ddl_command_end execute function extensions.pgrst_ddl_watch();
create event trigger pgrst_drop_watch on sql_drop execute function extensions.pgrst_drop_watch();
