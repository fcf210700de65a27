-- Server events over Realtime. realtime.send turns its errors into warnings, so a lost event never
-- undoes the change that it tells of; who reads must be able to read the tables instead.
create function private.send_event(topic text, event text, payload jsonb)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  if send_event.topic is not null then
    perform realtime.send(send_event.payload, send_event.event, send_event.topic, true);
  end if;
end;
$$;

-- Sends an event to one person, on the topic that rpc me shows them.
create function private.send_user_event(user_id uuid, event text, payload jsonb)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  perform private.send_event(s.topic, send_user_event.event, send_user_event.payload)
  from public.profile_private as s
  where s.id = send_user_event.user_id;
end;
$$;

revoke all on function private.send_event(text, text, jsonb), private.send_user_event(uuid, text, jsonb)
  from public, anon, authenticated, service_role;
comment on function private.send_event(text, text, jsonb) is 'Sends an event to a private topic after commit.';
comment on function private.send_user_event(uuid, text, jsonb) is 'Sends an event to the topic of one person after commit.';
