-- pg_cron's tables and functions; the platform child runs what is due. Idempotent.
create schema if not exists cron;

create sequence if not exists cron.jobid_seq;
create sequence if not exists cron.runid_seq;

create table if not exists cron.job (
  jobid bigint primary key default nextval('cron.jobid_seq'),
  schedule text not null,
  command text not null,
  nodename text not null default 'localhost',
  nodeport int not null default inet_server_port(),
  database text not null default current_database(),
  username text not null default current_user,
  active boolean not null default true,
  jobname text,
  constraint jobname_username_uniq unique (jobname, username)
);
create table if not exists cron.job_run_details (
  jobid bigint,
  runid bigint primary key default nextval('cron.runid_seq'),
  job_pid integer,
  database text,
  username text,
  command text,
  status text,
  return_message text,
  start_time timestamptz,
  end_time timestamptz
);
alter table cron.job enable row level security;
alter table cron.job_run_details enable row level security;
drop policy if exists cron_job_policy on cron.job;
create policy cron_job_policy on cron.job using (username = current_user);
drop policy if exists cron_job_run_details_policy on cron.job_run_details;
create policy cron_job_run_details_policy on cron.job_run_details using (username = current_user);

-- 'N seconds' with N from 1 to 59, or five fields; `$` is the last day of a month. Names of months and days are allowed.
create or replace function cron._check_schedule(schedule text) returns void
language plpgsql immutable set search_path = '' as $$
declare
  fields text[] := regexp_split_to_array(lower(btrim(schedule)), '\s+');
  least int[] := '{0, 0, 1, 1, 0}';
  most int[] := '{59, 23, 31, 12, 7}';
  names text[] := array['', '', '', '|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec', '|sun|mon|tue|wed|thu|fri|sat'];
begin
  if schedule ~* '^\s*([1-9]|[1-5][0-9])\s+seconds?\s*$' then
    return;
  end if;
  if cardinality(fields) = 5 and not exists (
    select
    from generate_series(1, 5) n, unnest(string_to_array(fields[n], ',')) part
    where not (n = 3 and fields[n] = '$')
      and (part !~ format('^(\*|(\d{1,2}%1$s)-(\d{1,2}%1$s))(/[1-9]\d?)?$|^(\d{1,2}%1$s)$', names[n])
        or exists (select from regexp_matches(split_part(part, '/', 1), '\d+', 'g') m
          where m[1]::int not between least[n] and most[n]))
  ) then
    return;
  end if;
  raise exception 'invalid schedule: %', schedule using
    errcode = '22023',
    hint = 'Use cron format (e.g. 5 4 * * *), or interval format ''[1-59] seconds''';
end
$$;

-- The caller is handed over by name: inside a definer function current_user would be the owner.
create or replace function cron._schedule(caller text, job_name text, schedule text, command text, database text, active boolean)
returns bigint language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
declare
  id bigint;
begin
  perform cron._check_schedule(_schedule.schedule);
  insert into cron.job as j (schedule, command, database, username, active, jobname)
  values (_schedule.schedule, _schedule.command, coalesce(_schedule.database, current_database()),
    _schedule.caller, _schedule.active, _schedule.job_name)
  on conflict on constraint jobname_username_uniq do update
    set schedule = excluded.schedule, command = excluded.command, database = excluded.database, active = excluded.active
  returning j.jobid into id;
  return id;
end
$$;

create or replace function cron.schedule(schedule text, command text) returns bigint
language sql volatile strict set search_path = '' as $$
  select cron._schedule(current_user, null, schedule.schedule, schedule.command, null, true)
$$;

create or replace function cron.schedule(job_name text, schedule text, command text) returns bigint
language sql volatile set search_path = '' as $$
  select cron._schedule(current_user, schedule.job_name, schedule.schedule, schedule.command, null, true)
$$;

create or replace function cron._caller_may_act_as(caller text, username text) returns text
language plpgsql stable security definer set search_path = '' as $$
begin
  if username is null or username = caller then
    return caller;
  end if;
  if not (select r.rolsuper from pg_catalog.pg_roles r where r.rolname = caller) then
    raise exception 'must be superuser to create a job for another role' using errcode = 'XX000';
  end if;
  return username;
end
$$;

create or replace function cron.schedule_in_database(
  job_name text, schedule text, command text, database text, username text default null, active boolean default true
) returns bigint language sql volatile set search_path = '' as $$
  select cron._schedule(cron._caller_may_act_as(current_user, schedule_in_database.username), job_name,
    schedule_in_database.schedule, schedule_in_database.command, schedule_in_database.database,
    schedule_in_database.active)
$$;

create or replace function cron._unschedule(caller text, job_id bigint, job_name text) returns boolean
language plpgsql security definer set search_path = '' as $$
begin
  delete from cron.job j
  where (j.jobid = _unschedule.job_id or j.jobname = _unschedule.job_name)
    and (j.username = caller or (select r.rolsuper from pg_catalog.pg_roles r where r.rolname = caller));
  if not found then
    raise exception 'could not find valid entry for job %', coalesce(format('''%s''', job_name), job_id::text)
      using errcode = 'XX000';
  end if;
  return true;
end
$$;

create or replace function cron.unschedule(job_id bigint) returns boolean
language sql volatile strict set search_path = '' as $$
  select cron._unschedule(current_user, unschedule.job_id, null)
$$;

create or replace function cron.unschedule(job_name text) returns boolean
language sql volatile strict set search_path = '' as $$
  select cron._unschedule(current_user, null, unschedule.job_name)
$$;

create or replace function cron._alter_job(
  caller text, job_id bigint, schedule text, command text, database text, username text, active boolean
) returns void language plpgsql security definer set search_path = '' as $$
begin
  if _alter_job.schedule is not null then
    perform cron._check_schedule(_alter_job.schedule);
  end if;
  update cron.job j set
    schedule = coalesce(_alter_job.schedule, j.schedule),
    command = coalesce(_alter_job.command, j.command),
    database = coalesce(_alter_job.database, j.database),
    username = coalesce(_alter_job.username, j.username),
    active = coalesce(_alter_job.active, j.active)
  where j.jobid = _alter_job.job_id
    and (j.username = caller or (select r.rolsuper from pg_catalog.pg_roles r where r.rolname = caller));
  if not found then
    raise exception 'Job % does not exist or you don''t own it', job_id using errcode = 'XX000';
  end if;
end
$$;

create or replace function cron.alter_job(
  job_id bigint, schedule text default null, command text default null, database text default null,
  username text default null, active boolean default null
) returns void language sql volatile set search_path = '' as $$
  select cron._alter_job(current_user, alter_job.job_id, alter_job.schedule, alter_job.command, alter_job.database,
    case when alter_job.username is null then null
      else cron._caller_may_act_as(current_user, alter_job.username) end,
    alter_job.active)
$$;

revoke all on all functions in schema cron from public;
grant usage on schema cron to postgres with grant option;
grant execute on all functions in schema cron to postgres with grant option;
grant select on cron.job to postgres with grant option;
grant select, insert, update, delete, truncate, references on cron.job_run_details to postgres with grant option;
