-- jobs: any work that outlives a request, with the state that its owner sees. What only the queue
-- needs to know (payload, stage, lease, message) stands in private.job_work.
create table private.job_kinds (
  kind         text primary key constraint job_kinds_kind_is_snake_case check (kind ~ '^[a-z][a-z0-9_]+$'),
  max_attempts smallint not null constraint job_kinds_attempts_positive check (max_attempts > 0),
  is_alarm     boolean not null default false,
  priority     text not null default 'normal' constraint job_kinds_priority_known
    check (priority in ('high', 'normal', 'low')),
  meaning      text not null
);

revoke all on table private.job_kinds from public, anon, authenticated, service_role;
comment on table private.job_kinds is 'Every kind of job; a domain that brings a kind inserts its row.';
comment on column private.job_kinds.is_alarm is
'True where another table holds the truth about lease, attempts and state: the queue only rings.';
comment on column private.job_kinds.priority is 'Priority of a job of this kind unless enqueue_job is told another.';

insert into private.job_kinds (kind, max_attempts, is_alarm, meaning) values
  ('erase', 10, false, 'Removes what an erased account leaves outside of the tables.');

-- What one value has to be is a domain's to say: it is asked when the value is written, while each check of a
-- table is parsed anew by every statement that changes a row, and a job takes six of them.
create domain private.job_status as text
  constraint jobs_status_known check (value in ('waiting', 'active', 'completed', 'failed', 'cancelled'));
create domain private.job_progress as smallint
  constraint jobs_progress_is_percent check (value between 0 and 100);
create domain private.job_attempts as smallint
  constraint jobs_attempts_not_negative check (value >= 0);
create domain private.job_max_attempts as smallint
  constraint jobs_max_attempts_positive check (value > 0);
create domain private.job_payload as jsonb
  constraint job_work_payload_is_object check (value is null or private.is_json_object(value, 65536, 16));
create domain private.job_result as jsonb
  constraint jobs_result_is_object check (value is null or private.is_json_object(value, 65536, 16));
create domain private.job_error as jsonb
  constraint jobs_error_is_object check (value is null or private.is_json_object(value, 8192, 8));
create domain private.job_priority as smallint
  constraint job_work_priority_known check (value between 1 and 3);
create domain private.job_stage as text
  constraint job_work_stage_known check (value in ('delayed', 'waiting', 'queued', 'dead'));
comment on domain private.job_payload is 'What a job is to do: an object of at most 64 KiB.';
comment on domain private.job_result is 'What came of a job: an object of at most 64 KiB.';
comment on domain private.job_error is 'What went wrong with a job: an object of at most 8 KiB.';

create table public.jobs (
  id           uuid primary key default private.uuid_v7(),
  owner_id     uuid references public.profiles (id) on delete set null,
  -- No foreign key: each insert would lock the one row of its kind, which all inserts share. The
  -- functions that insert read the kind, and none is ever deleted.
  kind         text not null,
  status       private.job_status not null default 'waiting',
  progress     private.job_progress not null default 0,
  attempts     private.job_attempts not null default 0,
  max_attempts private.job_max_attempts not null,
  result       private.job_result,
  error        private.job_error,
  cancel_requested boolean not null default false,
  created_at   timestamptz not null default now(),
  started_at   timestamptz,
  finished_at  timestamptz,
  constraint jobs_finished_when_ended
    check ((finished_at is not null) = (status in ('completed', 'failed', 'cancelled')))
)
-- Room on each page for the versions of a job that starts, reports progress and ends.
with (fillfactor = 60);

create index jobs_by_owner on public.jobs (owner_id, id desc);
-- By ranges of pages, so that a job that ends needs no new entry in any index.
create index jobs_by_end on public.jobs using brin (finished_at) with (autosummarize = on);
alter table public.jobs enable row level security;

revoke all on table public.jobs from public, anon, authenticated, service_role;
grant select on table public.jobs to authenticated, service_role;
comment on table public.jobs is 'Work that outlives a request: state, progress, result or error, shown to its owner.';
comment on column public.jobs.progress is 'Percent done, as far as the work can tell.';
comment on column public.jobs.error is 'Last error as {code, detail}; also present while a retry waits.';
comment on column public.jobs.cancel_requested is 'True once the owner asked a running job to stop; its worker is told.';

create policy "owners can read their jobs" on public.jobs
  for select to authenticated
  using (owner_id = (select auth.uid()));

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('public', 'jobs', 'owner_id', 'detach', 'include');

insert into private.error_codes (code, status, meaning) values
  ('status_edge_forbidden', 409, 'The row cannot go from its present status to that one.'),
  ('job_not_found', 404, 'There is no such job.'),
  ('job_not_failed', 409, 'Only a failed job can be sent again.'),
  ('job_cancelled_elsewhere', 409, 'This job is the alarm of something else, which is what can be cancelled.');

-- Keeps states on their edges, whoever writes: what has ended stays as it is, but a failed job may be
-- sent again. The condition is short, since Postgres reads it anew for every statement, and the trigger
-- runs after the row is written, since one before it would lock each row that changes once more.
create function private.tg_jobs__edges()
returns trigger
language plpgsql
security invoker
set search_path = ''
as $$
begin
  if old.status <> new.status and (old.status <> 'failed' or new.status <> 'waiting') then
    raise sqlstate 'PT409' using
      message = 'status_edge_forbidden',
      detail  = 'A job cannot go from ' || old.status || ' to ' || new.status || '.';
  end if;
  return null;
end;
$$;

create trigger _200_edges after update of status on public.jobs
  for each row when (old.finished_at is not null)
  execute function private.tg_jobs__edges();

-- Tells the owner, on their own topic.
create function private.tg_jobs__announce()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  if (old.status, old.progress, old.cancel_requested) is distinct from (new.status, new.progress, new.cancel_requested) then
    perform private.send_user_event(
      new.owner_id, 'job.updated', to_jsonb(new) - 'result' || jsonb_build_object('job_id', new.id)
    );
  end if;
  return null;
end;
$$;

create trigger _900_announce after update of status, progress, cancel_requested on public.jobs
  for each row when (new.owner_id is not null)
  execute function private.tg_jobs__announce();

revoke all on function private.tg_jobs__edges() from public, anon, authenticated, service_role;
revoke all on function private.tg_jobs__announce() from public, anon, authenticated, service_role;

-- What the queue needs to know of a job, from its making until it is completed or cancelled. A dead
-- job keeps its row, so that it can be sent again. Stages:
--   delayed   no message yet; of a person, not before due_at
--   waiting   no message yet; of a person who has two messages in the queue (private.admit_jobs)
--   queued    has a message, visible or held by a worker; the delay of a system job is the message's
--   dead      failed; its message stands in the archive
create table private.job_work (
  job_id      uuid primary key references public.jobs (id) on delete cascade,
  owner_id    uuid,
  priority    private.job_priority not null,
  is_alarm    boolean not null,
  stage       private.job_stage not null,
  due_at      timestamptz,
  msg_id      bigint,
  worker_id   uuid,
  lease_token uuid,
  dedupe_key  text,
  payload     private.job_payload not null
)
with (fillfactor = 70);

create unique index job_work_one_open_per_dedupe_key on private.job_work (dedupe_key)
  where dedupe_key is not null and stage <> 'dead';
-- A person's seats, and their next job.
create index job_work_by_owner on private.job_work (stage, owner_id, priority, job_id) where owner_id is not null;
-- What is due, and dead letters.
create index job_work_aside on private.job_work (stage, due_at) where stage in ('delayed', 'dead');

revoke all on table private.job_work from public, anon, authenticated, service_role;
comment on table private.job_work is 'The queue''s side of a job: payload, stage, message, lease.';
comment on column private.job_work.owner_id is 'Whose turn it takes in the queue; null: the system''s, which takes nobody''s.';
comment on column private.job_work.priority is '1 high, 2 normal, 3 low: which queue its message is in.';
comment on column private.job_work.is_alarm is 'Copied from the kind: another table keeps the state, the queue only rings.';
comment on column private.job_work.dedupe_key is '<kind>:<key>; at most one open job has it.';
comment on column private.job_work.lease_token is 'Whoever holds this token may extend and finish the job; a stale one changes nothing.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('private', 'job_work', 'owner_id', 'detach', 'exclude');

-- What a stage has. In a trigger on its columns and not in checks, which every statement that changes a row
-- would read anew, claims too, which write the lease alone and that of a queued job alone.
create function private.tg_job_work__stage()
returns trigger
language plpgsql
security invoker
set search_path = ''
as $$
begin
  raise check_violation using
    message    = 'A job that is ' || new.stage || ' has other columns than these.',
    schema     = 'private',
    table      = 'job_work',
    constraint = 'job_work_columns_of_stage';
end;
$$;

revoke all on function private.tg_job_work__stage() from public, anon, authenticated, service_role;

create trigger _100_stage after insert or update of stage, due_at, msg_id on private.job_work
  for each row when (
    (new.due_at is not null) <> (new.stage = 'delayed')
    or (new.msg_id is not null) <> (new.stage in ('queued', 'dead'))
    or (new.lease_token is not null and new.stage <> 'queued')
  )
  execute function private.tg_job_work__stage();

-- A job that loses its owner goes on as one of the system.
create function private.tg_jobs__detach()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  update private.job_work as w
  set owner_id = null,
    stage = case when w.stage in ('delayed', 'waiting') then 'queued' else w.stage end,
    due_at = null,
    msg_id = case
      when w.stage in ('delayed', 'waiting') then private.queue_send(w.priority, w.job_id, coalesce(w.due_at, clock_timestamp()))
      else w.msg_id
    end
  where w.job_id = new.id and w.owner_id is not null;
  return null;
end;
$$;

revoke all on function private.tg_jobs__detach() from public, anon, authenticated, service_role;

create trigger _500_detach after update of owner_id on public.jobs
  for each row when (old.owner_id is not null and new.owner_id is null)
  execute function private.tg_jobs__detach();

-- Workers that are alive, and how far into the queue each has seen.
create table private.workers (
  id         uuid primary key,
  floors     bigint[] not null default '{0,0,0}',
  seen_at    timestamptz not null,
  swept_at   timestamptz not null,
  started_at timestamptz not null default now()
);

revoke all on table private.workers from public, anon, authenticated, service_role;
comment on table private.workers is 'Heartbeats of workers, renewed once a second by private.claim_jobs.';
comment on column private.workers.floors is
'By priority: no visible message is thought to have a lower id. Only a hint, see private.claim_jobs.';

-- One row, so that a burst of jobs without a worker makes one wake-up call.
create table private.worker_wake_up (
  only_row  boolean primary key default true constraint worker_wake_up_one_row check (only_row),
  called_at timestamptz not null
);

revoke all on table private.worker_wake_up from public, anon, authenticated, service_role;
comment on table private.worker_wake_up is 'When a worker was last called through pg_net.';

insert into private.worker_wake_up (called_at) values ('-infinity');
