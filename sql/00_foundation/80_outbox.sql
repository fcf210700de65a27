-- outbox: domain events, written by triggers in the transaction of the change. Consumers take rows
-- with `for update skip locked` and set processed_at; a cursor over the id would lose events,
-- because transactions commit in another order than they number.
create table private.outbox (
  id           bigint generated always as identity primary key,
  kind         text not null constraint outbox_kind_is_dotted check (kind ~ '^[a-z_]+(\.[a-z_]+)+$'),
  subject_id   uuid not null,
  user_id      uuid,
  payload      jsonb not null default '{}'
    constraint outbox_payload_is_object check (jsonb_typeof(payload) = 'object'),
  created_at   timestamptz not null default now(),
  processed_at timestamptz
);

create index outbox_waiting on private.outbox (id) where processed_at is null;
create index outbox_by_user on private.outbox (user_id);
create index outbox_by_age on private.outbox (created_at);

revoke all on table private.outbox from public, anon, authenticated, service_role;
comment on table private.outbox is 'Domain events, one row each, written in the transaction of the change.';
comment on column private.outbox.subject_id is 'Id of what the event is about.';
comment on column private.outbox.user_id is 'The person concerned; no foreign key, since an event may outlive them.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('private', 'outbox', 'user_id', 'delete', 'exclude');

-- Records a domain event.
create function private.emit_event(kind text, subject_id uuid, payload jsonb, user_id uuid default null)
returns void
language sql
volatile
security invoker
set search_path = ''
as $$
  insert into private.outbox (kind, subject_id, payload, user_id)
  values (emit_event.kind, emit_event.subject_id, emit_event.payload, emit_event.user_id);
$$;

revoke all on function private.emit_event(text, uuid, jsonb, uuid) from public, anon, authenticated, service_role;
comment on function private.emit_event(text, uuid, jsonb, uuid) is
'Records a domain event in the outbox, in the transaction of the change.';

-- Drops events that were handled, and those that nobody handled for a month.
create function private.prune_outbox(at timestamptz default now())
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  with pruned as (
    delete from private.outbox as o
    where o.created_at < prune_outbox.at - interval '30 days'
      or (o.created_at < prune_outbox.at - interval '7 days' and o.processed_at is not null)
    returning 1
  )
  select count(*) from pruned;
$$;

revoke all on function private.prune_outbox(timestamptz) from public, anon, authenticated, service_role;
comment on function private.prune_outbox(timestamptz) is
'Drops handled events after a week and unhandled ones after thirty days; returns how many.';

select cron.schedule('prune-outbox', '27 3 * * *', 'select private.prune_outbox()');
