-- How much deltas may send. Hosted Realtime counts each message of the project once as sent and once
-- for each channel that hears it, and closes channels when that is more than the plan has a second.
-- Beginnings and ends, jobs and participants cannot wait; deltas can. So they go out only while
-- everything that was sent within the last second stays within half of the limit; the other half
-- stands ready for what cannot wait, for what clients send themselves, and for second devices.
-- Asked with each batch of chunks, hence plpgsql, which keeps plans.
create function private.broadcast_allowance()
returns integer
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return (
    select coalesce((select s.value::integer from private.settings as s where s.key = 'realtime_events_per_second'), 100) / 2
  );
end;
$$;

-- What was sent within the second before `at`, as Realtime counts it: a conversation is heard by those
-- who joined it, any other topic by one person. Reads no more than shows that nothing is left, so a
-- burst of a thousand events costs no more than one of fifty. By the index on inserted_at.
create function private.broadcast_load(at timestamptz default now())
returns integer
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return (
    select coalesce(sum(t.sent * (1 + greatest(t.listeners, 1))), 0)::integer
    from (
      select m.topic, count(*) as sent, (
        select count(*)
        from public.conversations as c
        join public.conversation_participants as p on p.conversation_id = c.id and p.state = 'joined'
        where c.topic = m.topic
      ) as listeners
      from (
        select r.topic
        from realtime.messages as r
        where r.extension = 'broadcast' and r.private is true
          and r.inserted_at > (broadcast_load.at - interval '1 second') at time zone 'UTC'
        order by r.inserted_at desc
        limit private.broadcast_allowance()
      ) as m
      group by m.topic
    ) as t
  );
end;
$$;

-- How often one watched answer may send a delta now, so that all of them together keep within the
-- allowance in turns of the same length.
create function private.broadcast_interval(at timestamptz default clock_timestamp())
returns interval
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return (
    select greatest(
      interval '150 milliseconds',
      make_interval(secs =>
        (count(distinct p.conversation_id) + count(*))::double precision / greatest(private.broadcast_allowance(), 1)
      )
    )
    from (
      select distinct w.conversation_id
      from private.watch_leases as w
      join public.generations as g on g.conversation_id = w.conversation_id and g.status = 'running'
      where w.until > broadcast_interval.at and w.user_id is distinct from g.requested_by
    ) as v
    join public.conversation_participants as p on p.conversation_id = v.conversation_id and p.state = 'joined'
  );
end;
$$;

-- Chooses the watched generations of a batch that send a delta now, those that waited longest first,
-- and holds their topics: {generation_id: topic}. One transaction at a time chooses, so that each
-- sees what the one before it sent; nobody waits for that, their deltas come with their next call.
create function private.hold_due_topics(batch jsonb, watched uuid[], every interval, at timestamptz)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  due  uuid[];
  room integer;
begin
  select array_agg(l.generation_id) into due
  from jsonb_to_recordset(hold_due_topics.batch) as e (generation_id uuid, chunks jsonb)
  join private.generation_leases as l on l.generation_id = e.generation_id
  where l.generation_id = any (hold_due_topics.watched)
    and coalesce(l.broadcast_at <= hold_due_topics.at - hold_due_topics.every, hold_due_topics.every <= interval '150 milliseconds')
    and (l.broadcast_seq < l.last_seq or jsonb_array_length(coalesce(e.chunks, '[]')) > 0);
  if due is null or not pg_try_advisory_xact_lock(hashtextextended('generation.delta', 0)) then
    return '{}'::jsonb;
  end if;

  room := private.broadcast_allowance() - private.broadcast_load();
  if room <= 0 then
    return '{}'::jsonb;
  end if;
  -- In the order of conversations, like everybody who sends events.
  return (
    select coalesce(jsonb_object_agg(d.id, private.hold_topic(d.conversation_id)), '{}')
    from (
      select c.id, c.conversation_id
      from (
        select g.id, g.conversation_id, sum(
          1 + (
            select count(*)
            from public.conversation_participants as p
            where p.conversation_id = g.conversation_id and p.state = 'joined'
          )
        ) over (order by l.broadcast_at nulls first, g.id) as spent
        from public.generations as g
        join private.generation_leases as l on l.generation_id = g.id
        where g.id = any (due)
      ) as c
      where c.spent <= room
      order by c.conversation_id
    ) as d
  );
end;
$$;

revoke all on function
  private.broadcast_allowance(), private.broadcast_load(timestamptz), private.broadcast_interval(timestamptz),
  private.hold_due_topics(jsonb, uuid[], interval, timestamptz)
  from public, anon, authenticated, service_role;
comment on function private.broadcast_allowance() is
'Half of the setting realtime_events_per_second (100, hosted''s smallest limit, when absent): up to there deltas may be sent.';
comment on function private.broadcast_load(timestamptz) is
'Messages sent to private topics within the second before `at`, each with those who hear it; at least the allowance '
'when nothing is left of it.';
comment on function private.broadcast_interval(timestamptz) is
'Shortest time between two deltas of one answer over Realtime, by the answers watched now and the people who hear them.';
