-- Fairness: at most two messages of one person are in the queue. Their other jobs wait in job_work
-- without one, and whatever takes a message out of the queue admits that person's next job in the same
-- transaction. So whoever makes ten thousand jobs stands in line behind themselves and nobody else.

-- Takes the right to count and fill a person's seats, held until the transaction ends. Waits for it a
-- moment and no longer: who has it may be waiting for a lock of ours, as a reaper does that ends one answer
-- after the other. The moment is shorter than deadlock_timeout (1 s), so that nothing is aborted; and a
-- transaction that holds another person's seats does not wait at all. False: nobody is admitted now, and
-- private.repair_admission makes good for it.
create function private.hold_seats(owner_id uuid)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  held     text := coalesce(current_setting('parlor.seats', true), '');
  patience text := current_setting('lock_timeout');
  key      bigint := hashtextextended('seats ' || hold_seats.owner_id::text, 0);
begin
  if not pg_try_advisory_xact_lock(key) then
    if held <> '' and held <> hold_seats.owner_id::text then
      return false;
    end if;
    begin
      perform set_config('lock_timeout', '700ms', true);
      perform pg_advisory_xact_lock(key);
      perform set_config('lock_timeout', patience, true);
    exception when lock_not_available then
      return false;
    end;
  end if;
  if held = '' then
    perform set_config('parlor.seats', hold_seats.owner_id::text, true);
  end if;
  return true;
end;
$$;

-- How many more messages of a person may enter the queue; the caller holds the seats.
create function private.free_seats(owner_id uuid)
returns integer
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  return 2 - (
    select count(*)::integer
    from private.job_work as w
    where w.owner_id = free_seats.owner_id and w.stage = 'queued'
  );
end;
$$;

-- Gives a person's free seats to their next jobs: the higher priority first, then the older job. Whoever
-- calls holds the lock of at most the job that ended; a job in somebody's hand is passed over.
create function private.admit_jobs(owner_id uuid)
returns integer
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  next     record;
  seats    integer;
  admitted integer := 0;
begin
  if not private.hold_seats(admit_jobs.owner_id) then
    return 0;
  end if;
  seats := private.free_seats(admit_jobs.owner_id);
  if seats <= 0 then
    return 0;
  end if;
  for next in
    select w.job_id, w.priority
    from private.job_work as w
    where w.owner_id = admit_jobs.owner_id and w.stage = 'waiting'
    order by w.owner_id, w.priority, w.job_id
    limit seats
    for update skip locked
  loop
    update private.job_work as w
    set stage = 'queued', msg_id = private.queue_send(next.priority, next.job_id, clock_timestamp())
    where w.job_id = next.job_id;
    admitted := admitted + 1;
  end loop;
  return admitted;
end;
$$;

-- Lets delayed jobs that are due at `at` stand in line and admits them. Run once a second by a working
-- worker and by the sweep; returns how many became due.
create function private.admit_due_jobs(at timestamptz default clock_timestamp(), batch integer default 500)
returns integer
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  owners uuid[];
  due    integer;
begin
  with due as (
    select w.job_id
    from private.job_work as w
    where w.stage = 'delayed' and w.due_at <= admit_due_jobs.at
    order by w.due_at
    limit admit_due_jobs.batch
    for update skip locked
  ),
  standing as (
    update private.job_work as w
    set stage = 'waiting', due_at = null
    from due as d
    where w.job_id = d.job_id
    returning w.owner_id
  )
  select array_agg(distinct s.owner_id order by s.owner_id), count(*) into owners, due from standing as s;
  if due > 0 then
    perform private.admit_jobs(o) from unnest(owners) as o;
  end if;
  return due;
end;
$$;

-- Admits for everybody who has a job waiting and a seat free: what is left when seats could not be held.
-- Walks the index from person to person, so a person's ten thousand jobs are one step.
create function private.repair_admission()
returns integer
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  person   uuid;
  admitted integer := 0;
begin
  loop
    select w.owner_id into person
    from private.job_work as w
    where w.stage = 'waiting' and w.owner_id is not null and (person is null or w.owner_id > person)
    order by w.owner_id
    limit 1;
    exit when not found;
    if private.free_seats(person) > 0 then
      admitted := admitted + private.admit_jobs(person);
    end if;
  end loop;
  return admitted;
end;
$$;

revoke all on function
  private.hold_seats(uuid), private.free_seats(uuid), private.admit_jobs(uuid),
  private.admit_due_jobs(timestamptz, integer), private.repair_admission()
  from public, anon, authenticated, service_role;
comment on function private.admit_jobs(uuid) is
'Puts a person''s next waiting jobs into the queue while fewer than two of their messages are there; returns how many.';
