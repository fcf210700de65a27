-- Summaries are made by jobs: when a branch outgrows the model, the runner that found out names the last
-- message to tell, and a worker has the conversation's model tell it.
insert into private.job_kinds (kind, max_attempts, is_alarm, priority, meaning)
values ('summarise', 5, false, 'low', 'Tells the beginning of a branch shortly, for prompts that have no room for it.');

-- Asks for a summary of a branch up to a message; at most one job of a conversation is open. What is no
-- message of the conversation, or is told already, asks for nothing.
create function private.request_summary(conversation_id uuid, up_to text)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  told uuid;
begin
  if up_to ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
    select m.id into told
    from public.messages as m
    where m.conversation_id = request_summary.conversation_id and m.id = up_to::uuid
      and not exists (
        select from public.conversation_summaries as s
        where s.conversation_id = m.conversation_id and s.message_id = m.id
      );
  end if;
  if told is not null then
    -- Nobody's job: it takes no seat from what its person waits for.
    perform private.enqueue_job(
      'summarise', null,
      jsonb_build_object('conversation_id', request_summary.conversation_id, 'message_id', told),
      dedupe_key => request_summary.conversation_id::text
    );
  end if;
end;
$$;

-- What there is to tell up to a message: the newest summary above it, and the messages since, oldest first.
-- The fingerprint tells whether they are still the same later.
create function private.untold_part(conversation_id uuid, message_id uuid, most_characters bigint)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  with branch as materialized (
    select b.*, row_number() over () as nth, s.content as summary
    from private.branch_above(untold_part.message_id, untold_part.most_characters) as b
    left join public.conversation_summaries as s
      on s.conversation_id = untold_part.conversation_id and s.message_id = b.id
  ),
  told as (
    select b.nth, b.id, b.summary from branch as b where b.summary is not null order by b.nth limit 1
  ),
  untold as (
    select b.* from branch as b where b.nth < coalesce((select t.nth from told as t), b.nth + 1)
  )
  select jsonb_build_object(
    'summary', (select t.summary from told as t),
    'messages', coalesce(
      (
        select jsonb_agg(
          jsonb_build_object('role', u.role, 'content', u.content, 'name', p.display_name) order by u.nth desc
        )
        from untold as u
        left join public.profiles as p on p.id = u.author_id and u.role = 'user'
      ),
      '[]'
    ),
    'fingerprint', md5(
      concat(
        (select md5(t.summary) from told as t),
        (select string_agg(u.id || ' ' || char_length(u.content), ',' order by u.nth) from untold as u)
      )
    )
  );
$$;

-- Begins a summary, as a completion of the conversation's owner, and hands out what to tell and the routes.
-- Null: there is nothing to tell, or nobody to tell it for. Runs as its owner: functions reach no table.
create function private.begin_summary(conversation_id uuid, message_id uuid)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  talk  public.conversations;
  model text;
  part  jsonb;
  begun uuid;
begin
  select c.* into talk from public.conversations as c where c.id = begin_summary.conversation_id;
  perform from public.profiles as p where p.id = talk.owner_id and p.status = 'active' for key share;
  if not found or not exists (
    select from public.messages as m where m.conversation_id = talk.id and m.id = begin_summary.message_id
  ) or exists (
    select from public.conversation_summaries as s
    where s.conversation_id = talk.id and s.message_id = begin_summary.message_id
  ) then
    return null;
  end if;
  select m.id into model
  from public.ai_models as m
  where m.is_enabled and m.kind = 'chat' and (m.id = talk.model_id or m.is_default)
  order by (m.id = talk.model_id) desc nulls last
  limit 1;
  part := private.untold_part(talk.id, begin_summary.message_id, 8 * private.most_characters(model));
  if model is null or jsonb_array_length(part -> 'messages') = 0 then
    return null;
  end if;
  -- What the first pass may use is held; further ones raise it. A plan that has no more gets no summary.
  begin
    insert into private.completions (user_id, kind, model_id)
    values (talk.owner_id, 'summarise', model)
    returning id into begun;
    perform private.hold_usage(
      talk.owner_id, model, least(private.estimate_tokens(part::text), 32000), 800, completion_id => begun, is_request => false
    );
  exception when sqlstate 'PT429' or sqlstate 'PT403' then
    return null;
  end;
  return part || jsonb_build_object(
    'completion_id', begun,
    'model', model,
    'character', (select coalesce(nullif(c.nickname, ''), c.name) from public.characters as c where c.id = talk.character_id)
  ) || private.budget_of(begun) || private.usable_routes(model);
end;
$$;

-- Keeps a summary, unless what it tells was changed meanwhile: somebody may have deleted a message. Deleting
-- holds the conversation too, so one of the two sees the other. Runs as its owner, since clients do not write
-- summaries.
create function private.keep_summary(completion_id uuid, conversation_id uuid, message_id uuid, fingerprint text, content text)
returns boolean
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  told public.conversation_summaries;
begin
  perform from public.conversations as c where c.id = keep_summary.conversation_id for no key update;
  if not found then
    return false;
  end if;
  told.model_id := (select k.model_id from private.completions as k where k.id = keep_summary.completion_id);
  if private.untold_part(
    keep_summary.conversation_id, keep_summary.message_id, 8 * private.most_characters(told.model_id)
  ) ->> 'fingerprint' is distinct from keep_summary.fingerprint then
    return false;
  end if;
  insert into public.conversation_summaries (conversation_id, message_id, content, model_id)
  values (keep_summary.conversation_id, keep_summary.message_id, keep_summary.content, told.model_id)
  on conflict on constraint conversation_summaries_pkey do nothing;
  return found;
end;
$$;

create function service.begin_summary(conversation_id uuid, message_id uuid)
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.begin_summary(begin_summary.conversation_id, begin_summary.message_id);
$$;

create function service.keep_summary(completion_id uuid, conversation_id uuid, message_id uuid, fingerprint text, content text)
returns boolean
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.keep_summary(
    keep_summary.completion_id, keep_summary.conversation_id, keep_summary.message_id, keep_summary.fingerprint,
    keep_summary.content
  );
$$;

revoke all on function
  private.request_summary(uuid, text), private.untold_part(uuid, uuid, bigint),
  private.begin_summary(uuid, uuid), service.begin_summary(uuid, uuid),
  private.keep_summary(uuid, uuid, uuid, text, text), service.keep_summary(uuid, uuid, uuid, text, text)
  from public, anon, authenticated, service_role;
grant execute on function
  private.begin_summary(uuid, uuid), service.begin_summary(uuid, uuid),
  private.keep_summary(uuid, uuid, uuid, text, text), service.keep_summary(uuid, uuid, uuid, text, text)
  to service_role;
comment on function service.begin_summary(uuid, uuid) is
'Begins a summary of a branch up to a message: {completion_id, model, character, summary (of what is above), messages, '
'fingerprint, routes, skipped}; null when there is nothing to tell. Ended by service.finish_completion.';
comment on function service.keep_summary(uuid, uuid, uuid, text, text) is
'Keeps a summary that was begun; false when what it tells was changed meanwhile, or somebody else has told it.';
