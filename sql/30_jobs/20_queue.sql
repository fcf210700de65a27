-- The queues, one for each priority (1 high, 2 normal, 3 low): every use of pgmq stands in this file. Only what pgmq 1.5.1 has
-- is used, with named and cast arguments. A message carries {job_id} and nothing else.
-- Short functions on the hot path are plpgsql, here and in chat: Postgres plans the statements of a
-- SQL function anew at every call, those of plpgsql once per session. The functions that workers and
-- senders call also force generic plans: else every array among the parameters means a new plan.
create extension if not exists pgmq;

select pgmq."create"(queue_name => 'jobs_high'::text);
select pgmq."create"(queue_name => 'jobs'::text);
select pgmq."create"(queue_name => 'jobs_low'::text);

-- Sends a message that becomes visible at `visible_at`; returns its id. What pgmq.send does, which plans its
-- statement anew at each call: most jobs come through here.
create function private.queue_send(priority smallint, job_id uuid, visible_at timestamptz)
returns bigint
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  content constant jsonb := jsonb_build_object('job_id', queue_send.job_id);
  sent    bigint;
begin
  if queue_send.priority = 2 then
    insert into pgmq.q_jobs as q (vt, message) values (queue_send.visible_at, content) returning q.msg_id into sent;
  elsif queue_send.priority = 1 then
    insert into pgmq.q_jobs_high as q (vt, message) values (queue_send.visible_at, content) returning q.msg_id into sent;
  else
    insert into pgmq.q_jobs_low as q (vt, message) values (queue_send.visible_at, content) returning q.msg_id into sent;
  end if;
  return sent;
end;
$$;

-- Sends many at once and returns their ids in the order of the jobs. Read back by job, since pgmq
-- promises no order of what it returns.
create function private.queue_send_many(priority smallint, job_ids uuid[], visible_at timestamptz)
returns bigint[]
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  sent bigint[];
  ids  bigint[];
begin
  sent := array(
    select pgmq.send_batch(
      queue_name => (array['jobs_high', 'jobs', 'jobs_low'])[queue_send_many.priority],
      msgs       => array(select jsonb_build_object('job_id', j) from unnest(queue_send_many.job_ids) as j),
      delay      => queue_send_many.visible_at
    )
  );
  select array_agg(m.msg_id order by asked.n) into ids
  from (
    select q.msg_id, q.message from pgmq.q_jobs_high as q where queue_send_many.priority = 1 and q.msg_id = any (sent)
    union all
    select q.msg_id, q.message from pgmq.q_jobs as q where queue_send_many.priority = 2 and q.msg_id = any (sent)
    union all
    select q.msg_id, q.message from pgmq.q_jobs_low as q where queue_send_many.priority = 3 and q.msg_id = any (sent)
  ) as m
  join unnest(queue_send_many.job_ids) with ordinality as asked (job_id, n)
    on asked.job_id = (m.message ->> 'job_id')::uuid;
  return ids;
end;
$$;

-- Makes up to `slots` visible messages of a queue invisible for `hold` and returns them with their jobs,
-- in the same order; nulls when there is none. What pgmq.read does, plus `msg_id > floor`: dead rows at
-- the head of the index make pgmq.read collapse while somebody holds an old snapshot.
create function private.queue_claim(
  priority integer,
  floor bigint,
  slots integer,
  hold interval,
  out msg_ids bigint[],
  out job_ids uuid[]
)
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  at timestamptz := clock_timestamp();
begin
  if queue_claim.priority = 1 then
    with visible as (
      select q.msg_id
      from pgmq.q_jobs_high as q
      where q.msg_id > queue_claim.floor and q.vt <= at
      order by q.msg_id
      limit queue_claim.slots
      for update skip locked
    ),
    claimed as (
      update pgmq.q_jobs_high as q
      set vt = at + queue_claim.hold, read_ct = q.read_ct + 1
      from visible as v
      where q.msg_id = v.msg_id
      returning q.msg_id, (q.message ->> 'job_id')::uuid as job_id
    )
    select array_agg(c.msg_id), array_agg(c.job_id) into msg_ids, job_ids from claimed as c;
  elsif queue_claim.priority = 2 then
    with visible as (
      select q.msg_id
      from pgmq.q_jobs as q
      where q.msg_id > queue_claim.floor and q.vt <= at
      order by q.msg_id
      limit queue_claim.slots
      for update skip locked
    ),
    claimed as (
      update pgmq.q_jobs as q
      set vt = at + queue_claim.hold, read_ct = q.read_ct + 1
      from visible as v
      where q.msg_id = v.msg_id
      returning q.msg_id, (q.message ->> 'job_id')::uuid as job_id
    )
    select array_agg(c.msg_id), array_agg(c.job_id) into msg_ids, job_ids from claimed as c;
  else
    with visible as (
      select q.msg_id
      from pgmq.q_jobs_low as q
      where q.msg_id > queue_claim.floor and q.vt <= at
      order by q.msg_id
      limit queue_claim.slots
      for update skip locked
    ),
    claimed as (
      update pgmq.q_jobs_low as q
      set vt = at + queue_claim.hold, read_ct = q.read_ct + 1
      from visible as v
      where q.msg_id = v.msg_id
      returning q.msg_id, (q.message ->> 'job_id')::uuid as job_id
    )
    select array_agg(c.msg_id), array_agg(c.job_id) into msg_ids, job_ids from claimed as c;
  end if;
end;
$$;

-- Makes one visible message invisible for `hold`, of the preferred priority if it has one, else of the
-- highest that has; nulls when there is none. For a worker with one free slot: queue_claim in less. Of the
-- priority ended[1] nothing is looked for further than `margin` below the message ended[2]; null: as the floors say.
create function private.queue_claim_one(
  preferred smallint,
  floors bigint[],
  ended bigint[],
  margin bigint,
  hold interval,
  out priority smallint,
  out msg_id bigint,
  out job_id uuid
)
language plpgsql
volatile
security invoker
set search_path = ''
as $$
#variable_conflict use_column
begin
  foreach queue_claim_one.priority in array case preferred when 1 then '{1,2,3}' when 2 then '{2,1,3}' else '{3,1,2}' end::smallint[] loop
    if queue_claim_one.priority = 2 then
      update pgmq.q_jobs as q
      set vt = clock_timestamp() + hold, read_ct = q.read_ct + 1
      where q.msg_id = (
        select v.msg_id
        from pgmq.q_jobs as v
        where v.msg_id > greatest(floors[2], case ended[1] when 2 then ended[2] - margin end) and v.vt <= clock_timestamp()
        order by v.msg_id
        limit 1
        for update skip locked
      )
      returning q.msg_id, (q.message ->> 'job_id')::uuid into queue_claim_one.msg_id, queue_claim_one.job_id;
    elsif queue_claim_one.priority = 1 then
      update pgmq.q_jobs_high as q
      set vt = clock_timestamp() + hold, read_ct = q.read_ct + 1
      where q.msg_id = (
        select v.msg_id
        from pgmq.q_jobs_high as v
        where v.msg_id > greatest(floors[1], case ended[1] when 1 then ended[2] - margin end) and v.vt <= clock_timestamp()
        order by v.msg_id
        limit 1
        for update skip locked
      )
      returning q.msg_id, (q.message ->> 'job_id')::uuid into queue_claim_one.msg_id, queue_claim_one.job_id;
    else
      update pgmq.q_jobs_low as q
      set vt = clock_timestamp() + hold, read_ct = q.read_ct + 1
      where q.msg_id = (
        select v.msg_id
        from pgmq.q_jobs_low as v
        where v.msg_id > greatest(floors[3], case ended[1] when 3 then ended[2] - margin end) and v.vt <= clock_timestamp()
        order by v.msg_id
        limit 1
        for update skip locked
      )
      returning q.msg_id, (q.message ->> 'job_id')::uuid into queue_claim_one.msg_id, queue_claim_one.job_id;
    end if;
    exit when found;
  end loop;
end;
$$;

-- By priority, the lowest message that became visible since `after`, by the index on vt; null: none.
create function private.queue_lowest_visible_since(after timestamptz)
returns bigint[]
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  at timestamptz := clock_timestamp();
begin
  return array[
    (
      select min(v.msg_id)
      from (
        select q.msg_id from pgmq.q_jobs_high as q
        where q.vt > queue_lowest_visible_since.after and q.vt <= at
        order by q.vt limit 1000
      ) as v
    ),
    (
      select min(v.msg_id)
      from (
        select q.msg_id from pgmq.q_jobs as q
        where q.vt > queue_lowest_visible_since.after and q.vt <= at
        order by q.vt limit 1000
      ) as v
    ),
    (
      select min(v.msg_id)
      from (
        select q.msg_id from pgmq.q_jobs_low as q
        where q.vt > queue_lowest_visible_since.after and q.vt <= at
        order by q.vt limit 1000
      ) as v
    )
  ];
end;
$$;

-- By priority, the highest id given to a message so far; read from the sequences, since an index may
-- end in dead rows.
create function private.queue_tails()
returns bigint[]
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  high   bigint;
  normal bigint;
  low    bigint;
begin
  select s.last_value into high from pgmq.q_jobs_high_msg_id_seq as s;
  select s.last_value into normal from pgmq.q_jobs_msg_id_seq as s;
  select s.last_value into low from pgmq.q_jobs_low_msg_id_seq as s;
  return array[high, normal, low];
end;
$$;

-- By priority: is there a message above the floor that a worker could take now?
create function private.queue_visible(floors bigint[] default '{0,0,0}')
returns boolean[]
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  at timestamptz := clock_timestamp();
begin
  return array[
    exists (select from pgmq.q_jobs_high as q where q.msg_id > queue_visible.floors[1] and q.vt <= at),
    exists (select from pgmq.q_jobs as q where q.msg_id > queue_visible.floors[2] and q.vt <= at),
    exists (select from pgmq.q_jobs_low as q where q.msg_id > queue_visible.floors[3] and q.vt <= at)
  ];
end;
$$;

-- Hides a message for `hold`, counted from now in whole seconds; zero shows it at once.
create function private.queue_hide(priority smallint, msg_id bigint, hold interval)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  perform from pgmq.set_vt(
    queue_name => (array['jobs_high', 'jobs', 'jobs_low'])[queue_hide.priority],
    msg_id     => queue_hide.msg_id,
    vt         => ceil(extract(epoch from queue_hide.hold))::integer
  );
end;
$$;

-- What pgmq.delete does, which plans its statement anew at each call: every job ends through here.
create function private.queue_delete(priority smallint, msg_id bigint)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  -- The most common priority first.
  if queue_delete.priority = 2 then
    delete from pgmq.q_jobs as q where q.msg_id = queue_delete.msg_id;
  elsif queue_delete.priority = 1 then
    delete from pgmq.q_jobs_high as q where q.msg_id = queue_delete.msg_id;
  else
    delete from pgmq.q_jobs_low as q where q.msg_id = queue_delete.msg_id;
  end if;
  return found;
end;
$$;

create function private.queue_delete_many(priority smallint, msg_ids bigint[])
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  perform from pgmq.delete(
    queue_name => (array['jobs_high', 'jobs', 'jobs_low'])[queue_delete_many.priority],
    msg_ids    => queue_delete_many.msg_ids
  );
end;
$$;

-- Moves a message to the archive: a dead letter.
create function private.queue_archive(priority smallint, msg_id bigint)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  return (
    select pgmq.archive(
      queue_name => (array['jobs_high', 'jobs', 'jobs_low'])[queue_archive.priority],
      msg_id     => queue_archive.msg_id
    )
  );
end;
$$;

-- Forgets one archived message, because its job was sent again.
create function private.queue_forget(priority smallint, msg_id bigint)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  case queue_forget.priority
    when 1 then delete from pgmq.a_jobs_high as a where a.msg_id = queue_forget.msg_id;
    when 2 then delete from pgmq.a_jobs as a where a.msg_id = queue_forget.msg_id;
    else delete from pgmq.a_jobs_low as a where a.msg_id = queue_forget.msg_id;
  end case;
end;
$$;

-- Forgets archived messages older than `before`.
create function private.queue_prune(before timestamptz)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  delete from pgmq.a_jobs_high as a where a.archived_at < queue_prune.before;
  delete from pgmq.a_jobs as a where a.archived_at < queue_prune.before;
  delete from pgmq.a_jobs_low as a where a.archived_at < queue_prune.before;
end;
$$;

-- All messages, for metrics and repairs.
create view private.queue_messages as
select 1::smallint as priority, q.msg_id, q.enqueued_at, q.vt, q.read_ct from pgmq.q_jobs_high as q
union all
select 2::smallint, q.msg_id, q.enqueued_at, q.vt, q.read_ct from pgmq.q_jobs as q
union all
select 3::smallint, q.msg_id, q.enqueued_at, q.vt, q.read_ct from pgmq.q_jobs_low as q;

revoke all on table private.queue_messages from public, anon, authenticated, service_role;
comment on view private.queue_messages is 'The messages of all three queues.';

revoke all on function
  private.queue_send(smallint, uuid, timestamptz),
  private.queue_send_many(smallint, uuid[], timestamptz), private.queue_claim(integer, bigint, integer, interval),
  private.queue_claim_one(smallint, bigint[], bigint[], bigint, interval),
  private.queue_lowest_visible_since(timestamptz), private.queue_tails(), private.queue_visible(bigint[]),
  private.queue_hide(smallint, bigint, interval), private.queue_delete(smallint, bigint),
  private.queue_delete_many(smallint, bigint[]), private.queue_archive(smallint, bigint),
  private.queue_forget(smallint, bigint), private.queue_prune(timestamptz)
  from public, anon, authenticated, service_role;
