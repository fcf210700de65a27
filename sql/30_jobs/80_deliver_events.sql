-- The consumer of the outbox. An event is taken by `for update skip locked` and marked in the transaction
-- in which its handlers ran, so it is delivered at least once, and exactly once as far as a handler
-- writes to this database. A handler that fails keeps nobody else from an event: it gets a row of its
-- own in private.event_retries, with its own attempts.
create table private.event_handlers (
  name         text primary key constraint event_handlers_name_is_snake_case check (name ~ '^[a-z][a-z0-9_]+$'),
  kinds        text not null,
  -- Text, since pg_upgrade refuses databases with columns of type regprocedure.
  function     text not null constraint event_handlers_function_exists check (to_regprocedure(function) is not null),
  max_attempts smallint not null default 10 constraint event_handlers_attempts_positive check (max_attempts > 0),
  meaning      text not null
);

revoke all on table private.event_handlers from public, anon, authenticated, service_role;
comment on table private.event_handlers is 'Who is told of which events; a domain that wants events inserts its row.';
comment on column private.event_handlers.kinds is 'Regular expression that matches the whole kind, for example document\..+';
comment on column private.event_handlers.function is
'Takes a jsonb array of events [{id, kind, subject_id, user_id, payload, created_at}] of one person (or of nobody), '
'in the order of their ids. At least once: the same event may come again.';

create table private.event_retries (
  event_id  bigint not null references private.outbox (id) on delete cascade,
  handler   text not null references private.event_handlers (name) on delete cascade,
  attempts  smallint not null default 1,
  due_at    timestamptz,
  error     text not null,
  failed_at timestamptz not null default clock_timestamp(),
  constraint event_retries_pkey primary key (event_id, handler)
);

create index event_retries_due on private.event_retries (due_at) where due_at is not null;
create index event_retries_by_handler on private.event_retries (handler);

revoke all on table private.event_retries from public, anon, authenticated, service_role;
comment on table private.event_retries is 'Events that a handler could not take: when it is tried again.';
comment on column private.event_retries.due_at is 'Null: the attempts are used up, see admin.dead_events.';

-- Runs one handler on some events, in a subtransaction; null when it went well, else the error.
create function private.handle_events(handler_function text, events jsonb)
returns text
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  execute format('select %s($1)', handle_events.handler_function::regprocedure::regproc) using handle_events.events;
  return null;
exception when others then
  return sqlstate || ' ' || sqlerrm;
end;
$$;

create function private.event_as_json(event private.outbox)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select jsonb_build_object(
    'id', event_as_json.event.id, 'kind', event_as_json.event.kind, 'subject_id', event_as_json.event.subject_id,
    'user_id', event_as_json.event.user_id, 'payload', event_as_json.event.payload,
    'created_at', event_as_json.event.created_at
  );
$$;

-- Tries again what a handler could not take, each event alone. Returns how many it tried.
create function private.retry_events(at timestamptz, batch integer)
returns integer
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  due     record;
  failure text;
  tried   integer := 0;
begin
  for due in
    select r.event_id, r.handler, r.attempts, h.function, h.max_attempts, private.event_as_json(o) as event
    from private.event_retries as r
    join private.event_handlers as h on h.name = r.handler
    join private.outbox as o on o.id = r.event_id
    where r.due_at <= retry_events.at
    order by r.due_at
    limit retry_events.batch
    for update of r skip locked
  loop
    failure := private.handle_events(due.function, jsonb_build_array(due.event));
    if failure is null then
      delete from private.event_retries as r where r.event_id = due.event_id and r.handler = due.handler;
    else
      update private.event_retries as r
      set attempts = r.attempts + 1, error = failure, failed_at = clock_timestamp(),
        due_at = case
          when r.attempts + 1 < due.max_attempts then clock_timestamp() + private.backoff(r.attempts + 1, random())
        end
      where r.event_id = due.event_id and r.handler = due.handler;
    end if;
    tried := tried + 1;
  end loop;
  return tried;
end;
$$;

-- Hands up to `batch` events to their handlers, one call for each handler and person, so that a thousand
-- changes of one person are one message to them. Returns how many events it took. Run by cron and by a
-- working worker; any number may run at once.
create function private.deliver_events(batch integer default 500, at timestamptz default clock_timestamp())
returns integer
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  taken   bigint[];
  bundle  record;
  failure text;
begin
  taken := array(
    select o.id
    from private.outbox as o
    where o.processed_at is null
    order by o.id
    limit deliver_events.batch
    for update skip locked
  );

  for bundle in
    select h.name, h.function, h.max_attempts, array_agg(o.id) as ids,
      jsonb_agg(private.event_as_json(o) order by o.id) as events
    from private.outbox as o
    join private.event_handlers as h on o.kind ~ ('^(' || h.kinds || ')$')
    where o.id = any (taken)
    group by h.name, h.function, h.max_attempts, o.user_id
    order by min(o.id), h.name
  loop
    failure := private.handle_events(bundle.function, bundle.events);
    if failure is not null then
      insert into private.event_retries (event_id, handler, error, due_at)
      select e, bundle.name, failure,
        case when bundle.max_attempts > 1 then clock_timestamp() + private.backoff(1, random()) end
      from unnest(bundle.ids) as e;
    end if;
  end loop;

  update private.outbox as o set processed_at = clock_timestamp() where o.id = any (taken);
  return cardinality(taken) + private.retry_events(deliver_events.at, deliver_events.batch);
end;
$$;

create function service.deliver_events(batch integer default 500)
returns integer
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  return private.deliver_events(least(greatest(deliver_events.batch, 1), 5000));
end;
$$;

-- The events that a handler gave up.
create view admin.dead_events as
select r.event_id, r.handler, o.kind, o.subject_id, o.user_id, o.payload, o.created_at, r.attempts, r.error, r.failed_at
from private.event_retries as r
join private.outbox as o on o.id = r.event_id
where r.due_at is null;

-- Gives the dead events of a handler to it again, with all attempts; returns how many.
create function admin.redrive_events(handler text)
returns integer
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  driven integer;
begin
  update private.event_retries as r
  set attempts = 0, due_at = clock_timestamp()
  where r.handler = redrive_events.handler and r.due_at is null;
  get diagnostics driven = row_count;
  return driven;
end;
$$;

-- The first handler: tells a person's other devices what of theirs changed. One message for all the
-- changes that came together, ids and names only: whoever hears it reads what they need.
create function private.announce_events(events jsonb)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  perform private.send_user_event(
    (announce_events.events #>> '{0,user_id}')::uuid,
    'event.recorded',
    jsonb_build_object(
      'events', (
        select jsonb_agg(e - 'user_id' order by (e ->> 'id')::bigint)
        from jsonb_array_elements(announce_events.events) as e
      )
    )
  );
end;
$$;

insert into private.event_handlers (name, kinds, function, meaning) values
  ('announce', 'document\..+', 'private.announce_events(jsonb)', 'Tells a person''s devices of changes of their documents.');

revoke all on function
  private.handle_events(text, jsonb), private.event_as_json(private.outbox),
  private.retry_events(timestamptz, integer), private.deliver_events(integer, timestamptz),
  private.announce_events(jsonb), service.deliver_events(integer), admin.redrive_events(text)
  from public, anon, authenticated, service_role;
grant execute on function private.deliver_events(integer, timestamptz), service.deliver_events(integer) to service_role;
revoke all on table admin.dead_events from public, anon, authenticated, service_role;
comment on view admin.dead_events is 'Events that a handler could not take in all its attempts; see admin.redrive_events.';
comment on function private.deliver_events(integer, timestamptz) is
'Hands waiting events of the outbox to their handlers, and due retries; returns how many it tried.';
comment on function service.deliver_events(integer) is
'Hands up to batch waiting events of the outbox to their handlers; returns how many. A worker calls it while it lives.';
comment on function admin.redrive_events(text) is 'Gives the dead events of a handler to it again; returns how many.';

select cron.schedule('deliver-events', '5 seconds', 'select private.deliver_events()');
