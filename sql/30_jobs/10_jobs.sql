-- jobs: any work that outlives a request, with the state that its owner sees. What only the queue
-- needs to know (payload, lease, message) stands in private.job_work.
create table private.job_kinds (
  kind         text primary key constraint job_kinds_kind_is_snake_case check (kind ~ '^[a-z][a-z0-9_]+$'),
  max_attempts smallint not null constraint job_kinds_attempts_positive check (max_attempts > 0),
  is_alarm     boolean not null default false,
  meaning      text not null
);

revoke all on table private.job_kinds from public, anon, authenticated, service_role;
comment on table private.job_kinds is 'Every kind of job; a domain that brings a kind inserts its row.';
comment on column private.job_kinds.is_alarm is
'True where another table holds the truth about lease, attempts and state: the queue only rings.';

insert into private.job_kinds (kind, max_attempts, is_alarm, meaning) values
  ('erase', 10, false, 'Removes what an erased account leaves outside of the tables.');

create table public.jobs (
  id           uuid primary key default private.uuid_v7(),
  owner_id     uuid references public.profiles (id) on delete set null,
  kind         text not null references private.job_kinds (kind),
  status       text not null default 'waiting' constraint jobs_status_known
    check (status in ('waiting', 'active', 'completed', 'failed', 'cancelled')),
  progress     smallint not null default 0 constraint jobs_progress_is_percent check (progress between 0 and 100),
  attempts     smallint not null default 0 constraint jobs_attempts_not_negative check (attempts >= 0),
  max_attempts smallint not null constraint jobs_max_attempts_positive check (max_attempts > 0),
  result       jsonb constraint jobs_result_is_object check (private.is_json_object(result, 65536, 16)),
  error        jsonb constraint jobs_error_is_object check (private.is_json_object(error, 8192, 8)),
  created_at   timestamptz not null default now(),
  started_at   timestamptz,
  finished_at  timestamptz,
  constraint jobs_finished_when_ended
    check ((finished_at is not null) = (status in ('completed', 'failed', 'cancelled')))
);

create index jobs_by_owner on public.jobs (owner_id, id desc);
create index jobs_by_kind on public.jobs (kind);
create index jobs_by_end on public.jobs (finished_at) where finished_at is not null;
alter table public.jobs enable row level security;

revoke all on table public.jobs from public, anon, authenticated, service_role;
grant select on table public.jobs to authenticated, service_role;
comment on table public.jobs is 'Work that outlives a request: state, progress, result or error, shown to its owner.';
comment on column public.jobs.progress is 'Percent done, as far as the work can tell.';
comment on column public.jobs.error is 'Last error as {code, detail}; also present while a retry waits.';

create policy "owners can read their jobs" on public.jobs
  for select to authenticated
  using (owner_id = (select auth.uid()));

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('public', 'jobs', 'owner_id', 'detach', 'include');

insert into private.error_codes (code, status, meaning) values
  ('status_edge_forbidden', 409, 'The row cannot go from its present status to that one.'),
  ('job_not_found', 404, 'There is no such job.'),
  ('job_not_failed', 409, 'Only a failed job can be sent again.');

-- Keeps states on their edges, whoever writes.
create function private.tg_jobs__edges()
returns trigger
language plpgsql
security invoker
set search_path = ''
as $$
begin
  if (old.status, new.status) not in (
    ('waiting', 'active'), ('waiting', 'completed'), ('waiting', 'failed'), ('waiting', 'cancelled'),
    ('active', 'waiting'), ('active', 'completed'), ('active', 'failed'), ('active', 'cancelled'),
    ('failed', 'waiting')
  ) then
    raise sqlstate 'PT409' using
      message = 'status_edge_forbidden',
      detail  = 'A job cannot go from ' || old.status || ' to ' || new.status || '.';
  end if;
  return new;
end;
$$;

create trigger _200_edges before update of status on public.jobs
  for each row when (old.status is distinct from new.status)
  execute function private.tg_jobs__edges();

-- Tells the owner, on their own topic.
create function private.tg_jobs__announce()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform private.send_user_event(
    new.owner_id, 'job.updated', to_jsonb(new) - 'result' || jsonb_build_object('job_id', new.id)
  );
  return null;
end;
$$;

create trigger _900_announce after update of status, progress on public.jobs
  for each row when (
    new.owner_id is not null
    and (old.status, old.progress) is distinct from (new.status, new.progress)
  )
  execute function private.tg_jobs__announce();

revoke all on function private.tg_jobs__edges() from public, anon, authenticated, service_role;
revoke all on function private.tg_jobs__announce() from public, anon, authenticated, service_role;

-- What the queue needs to know of a job. Kept after the end, so that a dead letter can be sent again.
create table private.job_work (
  job_id      uuid primary key references public.jobs (id) on delete cascade,
  payload     jsonb not null constraint job_work_payload_is_object check (private.is_json_object(payload, 65536, 16)),
  dedupe_key  text,
  is_open     boolean not null default true,
  msg_id      bigint constraint job_work_one_per_message unique,
  worker_id   uuid,
  lease_token uuid,
  constraint job_work_message_while_open check (not is_open or msg_id is not null)
);

create unique index job_work_one_open_per_dedupe_key on private.job_work (dedupe_key)
  where is_open and dedupe_key is not null;
create index job_work_by_worker on private.job_work (worker_id) where worker_id is not null;

revoke all on table private.job_work from public, anon, authenticated, service_role;
comment on table private.job_work is 'The queue''s side of a job: payload, message, lease.';
comment on column private.job_work.dedupe_key is '<kind>:<key>; at most one open job has it.';
comment on column private.job_work.lease_token is 'Whoever holds this token may extend and finish the job; a stale one changes nothing.';

-- Workers that are alive, and how far into the queue each has seen.
create table private.workers (
  id         uuid primary key,
  floor      bigint not null default 0,
  seen_at    timestamptz not null,
  swept_at   timestamptz not null,
  started_at timestamptz not null default now()
);

revoke all on table private.workers from public, anon, authenticated, service_role;
comment on table private.workers is 'Heartbeats of workers, renewed once a second by private.claim_jobs.';
comment on column private.workers.floor is 'No visible message is thought to have a lower id; only a hint, see private.claim_jobs.';

-- One row, so that a burst of jobs without a worker makes one wake-up call.
create table private.worker_wake_up (
  only_row  boolean primary key default true constraint worker_wake_up_one_row check (only_row),
  called_at timestamptz not null
);

revoke all on table private.worker_wake_up from public, anon, authenticated, service_role;
comment on table private.worker_wake_up is 'When a worker was last called through pg_net.';

insert into private.worker_wake_up (called_at) values ('-infinity');
