-- Stops a job of the caller: at once while it waits, else its worker is told with its next heartbeat. A
-- job that ended stays as it is. Runs as its owner: jobs are written by functions only.
create function private.cancel_job(job_id uuid)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  caller uuid := private.require_active_user();
  work   private.job_work;
  job    public.jobs;
begin
  select j.* into job from public.jobs as j where j.id = cancel_job.job_id and j.owner_id = caller;
  if not found then
    raise sqlstate 'PT404' using
      message = 'job_not_found',
      detail  = 'There is no job with this id that is yours.';
  end if;

  select w.* into work from private.job_work as w where w.job_id = job.id and w.stage <> 'dead' for update;
  if work.is_alarm then
    raise sqlstate 'PT409' using
      message = 'job_cancelled_elsewhere',
      detail  = 'A job of kind ' || job.kind || ' ends with what it works on.',
      hint    = 'Cancel that: for an answer, cancel_generation.';
  elsif work.lease_token is not null then
    update public.jobs as j set cancel_requested = true where j.id = job.id and not j.cancel_requested;
  elsif work.job_id is not null then
    perform private.end_job(job.id, 'cancelled');
  end if;
  return (
    select jsonb_build_object(
      'job_id', j.id, 'status', j.status, 'cancel_requested', j.cancel_requested and j.finished_at is null
    )
    from public.jobs as j
    where j.id = job.id
  );
end;
$$;

create function public.cancel_job(job_id uuid)
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.cancel_job(cancel_job.job_id);
$$;

revoke all on function private.cancel_job(uuid), public.cancel_job(uuid) from public, anon, authenticated, service_role;
grant execute on function private.cancel_job(uuid), public.cancel_job(uuid) to authenticated;
comment on function public.cancel_job(uuid) is
'Stops one of your jobs: at once while it waits, soon when it runs. Answers {job_id, status, cancel_requested}; '
'a job that ended stays as it is. Raises PT404 job_not_found, PT409 job_cancelled_elsewhere.';
