-- The queue: every use of pgmq stands in this file. Only what pgmq 1.5.1 has is used, with named
-- and cast arguments. A message carries {job_id} and nothing else.
-- Short functions on the hot path are plpgsql, here and in chat: Postgres plans the statements of a
-- SQL function anew at every call, those of plpgsql once per session. The functions that workers and
-- senders call also force generic plans: else every array among the parameters means a new plan.
create extension if not exists pgmq;

select pgmq."create"(queue_name => 'jobs'::text);

-- Sends a message that becomes visible at `visible_at`; returns its id.
create function private.queue_send(job_id uuid, visible_at timestamptz)
returns bigint
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  return (
    select pgmq.send(
      queue_name => 'jobs'::text,
      msg        => jsonb_build_object('job_id', queue_send.job_id),
      delay      => queue_send.visible_at
    )
  );
end;
$$;

-- Makes up to `slots` visible messages invisible for `hold` and returns their ids. What pgmq.read
-- does, plus `msg_id > floor`: dead rows at the head of the index make pgmq.read collapse while
-- somebody holds an old snapshot.
create function private.queue_claim(floor bigint, slots integer, hold interval)
returns setof bigint
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  return query
  with visible as (
    select q.msg_id
    from pgmq.q_jobs as q
    where q.msg_id > queue_claim.floor
      and q.vt <= clock_timestamp()
    order by q.msg_id
    limit queue_claim.slots
    for update skip locked
  )
  update pgmq.q_jobs as q
  set vt = clock_timestamp() + queue_claim.hold, read_ct = q.read_ct + 1
  from visible as v
  where q.msg_id = v.msg_id
  returning q.msg_id;
end;
$$;

-- The lowest message that became visible since `after`, by the index on vt. Null: none.
create function private.queue_lowest_visible_since(after timestamptz)
returns bigint
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  return (
    select min(v.msg_id)
    from (
      select q.msg_id
      from pgmq.q_jobs as q
      where q.vt > queue_lowest_visible_since.after
        and q.vt <= clock_timestamp()
      order by q.vt
      limit 1000
    ) as v
  );
end;
$$;

-- The highest id given to a message so far; read from the sequence, since the index may end in
-- dead rows.
create function private.queue_tail()
returns bigint
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  return (
    select s.last_value from pgmq.q_jobs_msg_id_seq as s
  );
end;
$$;

-- Is there a message that a worker could take now?
create function private.queue_has_visible()
returns boolean
language sql
volatile
security invoker
set search_path = ''
as $$
  select exists (select from pgmq.q_jobs as q where q.vt <= clock_timestamp());
$$;

-- Hides a message for `hold`, counted from now in whole seconds; zero shows it at once.
create function private.queue_hide(msg_id bigint, hold interval)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  perform from pgmq.set_vt(
    queue_name => 'jobs'::text,
    msg_id     => queue_hide.msg_id,
    vt         => ceil(extract(epoch from queue_hide.hold))::integer
  );
end;
$$;

create function private.queue_delete(msg_id bigint)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  return (
    select pgmq.delete(queue_name => 'jobs'::text, msg_id => queue_delete.msg_id)
  );
end;
$$;

-- Moves a message to the archive: a dead letter.
create function private.queue_archive(msg_id bigint)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  return (
    select pgmq.archive(queue_name => 'jobs'::text, msg_id => queue_archive.msg_id)
  );
end;
$$;

-- Forgets archived messages older than `before`, or one by its id.
create function private.queue_forget(before timestamptz, msg_id bigint default null)
returns void
language sql
volatile
security invoker
set search_path = ''
as $$
  delete from pgmq.a_jobs as a
  where a.archived_at < queue_forget.before
    and (queue_forget.msg_id is null or a.msg_id = queue_forget.msg_id);
$$;

-- Length of the queue and age of its oldest message, for people in the dashboard.
create view admin.queue_metrics as
select m.queue_name, m.queue_length, m.queue_visible_length, m.oldest_msg_age_sec, m.newest_msg_age_sec, m.total_messages
from pgmq.metrics_all() as m;

revoke all on table admin.queue_metrics from public, anon, authenticated, service_role;
comment on view admin.queue_metrics is 'Length of each queue and age in seconds of its oldest and newest message.';

revoke all on function
  private.queue_send(uuid, timestamptz), private.queue_claim(bigint, integer, interval),
  private.queue_lowest_visible_since(timestamptz), private.queue_tail(), private.queue_has_visible(),
  private.queue_hide(bigint, interval), private.queue_delete(bigint), private.queue_archive(bigint),
  private.queue_forget(timestamptz, bigint)
  from public, anon, authenticated, service_role;
