-- generations: one answer, from the request to its end. The row is what participants see; the lease
-- stands in private.generation_leases, the truth about who may write, and lives as long as the
-- generation has not ended.
create table public.generations (
  id              uuid primary key default private.uuid_v7(),
  conversation_id uuid not null references public.conversations (id) on delete cascade,
  message_id      uuid not null,
  requested_by    uuid references public.profiles (id) on delete set null,
  job_id          uuid references public.jobs (id) on delete set null,
  model_id        text references public.ai_models (id) on update cascade on delete set null,
  settings        jsonb not null constraint generations_settings_are_object check (private.is_json_object(settings, 4096, 4)),
  status          text not null default 'queued' constraint generations_status_known
    check (status in ('queued', 'running', 'completed', 'failed', 'cancelled')),
  attempt         smallint not null default 0,
  max_attempts    smallint not null default 3,
  finish_reason   text,
  usage           jsonb,
  error           jsonb,
  has_chunks      boolean not null default true,
  created_at      timestamptz not null default now(),
  started_at      timestamptz,
  finished_at     timestamptz,
  constraint generations_message_in_conversation foreign key (conversation_id, message_id)
    references public.messages (conversation_id, id) on delete cascade,
  constraint generations_finished_when_ended
    check ((finished_at is not null) = (status in ('completed', 'failed', 'cancelled')))
);

create unique index generations_one_open_per_conversation on public.generations (conversation_id)
  where status in ('queued', 'running');
create index generations_by_message on public.generations (conversation_id, message_id);
create index generations_by_requester on public.generations (requested_by);
create index generations_by_job on public.generations (job_id);
create index generations_by_model on public.generations (model_id);
create index generations_to_prune on public.generations (finished_at) where finished_at is not null and has_chunks;

alter table public.messages
  add constraint messages_generation_exists foreign key (generation_id)
  references public.generations (id) on delete set null deferrable initially deferred;

alter table public.generations enable row level security;

revoke all on table public.generations from public, anon, authenticated, service_role;
grant select on table public.generations to authenticated, service_role;
comment on table public.generations is 'Answers on their way or ended: state, attempt, usage, error.';
comment on column public.generations.attempt is 'Number of the present or last attempt; chunks carry it.';
comment on column public.generations.usage is
'Tokens of all attempts: {prompt_tokens, completion_tokens, cached_tokens, estimated}. A running estimate, about a second '
'old, until the answer has ended; estimated says whether any of it is not by a provider''s figures.';
comment on column public.generations.has_chunks is 'False once the chunks were dropped: read the message instead.';
comment on column public.generations.error is '{code, detail, retryable} of a failed generation.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('public', 'generations', 'requested_by', 'detach', 'exclude');

insert into private.job_kinds (kind, max_attempts, is_alarm, meaning)
values ('generation', 3, true, 'Writes an answer; state and lease are kept by generations.');

insert into private.error_codes (code, status, meaning) values
  ('generation_in_progress', 409, 'The conversation has an answer on its way; wait for its end or cancel it.'),
  ('generation_not_found', 404, 'There is no such generation, or the caller does not take part in its conversation.'),
  ('message_empty', 422, 'The message has no text.'),
  ('message_too_long', 422, 'The message is longer than 32,000 characters.'),
  ('message_invalid', 422, 'The message has control characters other than tabs and line ends.'),
  ('run_unknown', 422, 'run is inline or queued.'),
  ('character_unavailable', 409, 'The character of the conversation was deleted or is hidden by a block.');

create policy "participants can read generations" on public.generations
  for select to authenticated
  using (conversation_id = any ((select private.my_conversation_ids())::uuid[]));

-- Keeps states on their edges, whoever writes.
create function private.tg_generations__edges()
returns trigger
language plpgsql
security invoker
set search_path = ''
as $$
begin
  if (old.status, new.status) not in (
    ('queued', 'running'), ('queued', 'failed'), ('queued', 'cancelled'),
    ('running', 'queued'), ('running', 'completed'), ('running', 'failed'), ('running', 'cancelled')
  ) then
    raise sqlstate 'PT409' using
      message = 'status_edge_forbidden',
      detail  = 'A generation cannot go from ' || old.status || ' to ' || new.status || '.';
  end if;
  return new;
end;
$$;

create trigger _200_edges before update of status on public.generations
  for each row when (old.status is distinct from new.status)
  execute function private.tg_generations__edges();

-- A generation that goes with its conversation takes its alarm along.
create function private.tg_generations__end_job()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform private.end_job(old.job_id, 'cancelled');
  return null;
end;
$$;

create trigger _500_end_job after delete on public.generations
  for each row when (old.status in ('queued', 'running') and old.job_id is not null)
  execute function private.tg_generations__end_job();

revoke all on function private.tg_generations__edges(), private.tg_generations__end_job()
  from public, anon, authenticated, service_role;

-- Who may write an answer now. queued: no token, free from available_at on. running: the holder of
-- the token, until lease_until; then anybody may claim it.
create table private.generation_leases (
  generation_id    uuid primary key references public.generations (id) on delete cascade,
  attempt          smallint not null default 0,
  call             smallint not null default 0,
  lease_token      uuid,
  lease_until      timestamptz,
  available_at     timestamptz not null default now(),
  last_seq         integer not null default 0,
  broadcast_seq    integer not null default 0,
  broadcast_at     timestamptz,
  usage            jsonb,
  handed_over      boolean not null default false,
  cancel_requested boolean not null default false,
  constraint generation_leases_held_or_free check ((lease_token is null) = (lease_until is null))
);

revoke all on table private.generation_leases from public, anon, authenticated, service_role;
comment on table private.generation_leases is 'Leases of generations that have not ended.';
comment on column private.generation_leases.call is 'Counts the calls within an attempt; a planned hand-over begins another one.';
comment on column private.generation_leases.last_seq is 'Last chunk of the present attempt; the next one is last_seq + 1.';
comment on column private.generation_leases.broadcast_seq is 'Last chunk that went out over Realtime, or that nobody watched.';
comment on column private.generation_leases.usage is
'What the present call has used by its runner''s estimate; it counts when the runner dies.';
comment on column private.generation_leases.handed_over is 'The next claim goes on with the same attempt, after what is written.';

-- What each call of a provider cost. Operators read it; participants see the sum of tokens.
create table private.generation_attempts (
  generation_id  uuid not null references public.generations (id) on delete cascade,
  attempt        smallint not null,
  call           smallint not null default 1,
  started_at     timestamptz not null default clock_timestamp(),
  finished_at    timestamptz,
  outcome        text constraint generation_attempts_outcome_known
    check (outcome in ('completed', 'failed', 'cancelled', 'retry', 'handed_over', 'lost')),
  route_id       bigint references private.ai_routes (id) on delete set null,
  provider_request_id text,
  usage          jsonb,
  cost_micro_usd bigint constraint generation_attempts_cost_not_negative check (cost_micro_usd >= 0),
  error          jsonb,
  trace          jsonb constraint generation_attempts_trace_is_small_object
    check (trace is null or private.is_json_object(trace, 65536, 8)),
  prefix_hash    text constraint generation_attempts_prefix_hash_is_sha256 check (prefix_hash ~ '^[0-9a-f]{64}$'),
  prompt_tokens_estimated integer,
  constraint generation_attempts_pkey primary key (generation_id, attempt, call)
);

create index generation_attempts_by_route on private.generation_attempts (route_id);

revoke all on table private.generation_attempts from public, anon, authenticated, service_role;
comment on table private.generation_attempts is 'One row per call of a provider, with its usage and cost in millionths of a dollar.';

comment on column private.generation_attempts.trace is
'What was in the prompt and what was not, without its texts; see rpc explain_prompt. Null: no prompt was made.';
comment on column private.generation_attempts.prefix_hash is
'SHA-256 of the prompt''s stable beginning: while it stays, the provider can reuse what it computed.';
comment on column private.generation_attempts.prompt_tokens_estimated is 'Tokens of the prompt by our estimate, before the route''s factor.';

-- The one sum of what an answer used, over all calls of providers; null when none told.
-- Asked every second while an answer is written, hence plpgsql, which keeps plans.
create function private.usage_of(generation_id uuid)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return (
    select jsonb_build_object(
      'prompt_tokens', coalesce(sum((a.usage ->> 'prompt_tokens')::bigint), 0),
      'completion_tokens', coalesce(sum((a.usage ->> 'completion_tokens')::bigint), 0),
      'cached_tokens', coalesce(sum((a.usage ->> 'cached_tokens')::bigint), 0),
      'estimated', coalesce(bool_or((a.usage ->> 'estimated')::boolean), false)
    )
    from private.generation_attempts as a
    where a.generation_id = usage_of.generation_id and a.usage is not null
    having count(*) > 0
  );
end;
$$;

revoke all on function private.usage_of(uuid) from public, anon, authenticated, service_role;

-- Pieces of an answer while it is written, numbered from 1 without gaps within an attempt. No foreign key:
-- it would look for the generation again with each piece, a quarter of what an append costs. Who writes
-- pieces holds the generation's lease, which has one.
create table public.generation_chunks (
  generation_id uuid not null,
  attempt       smallint not null,
  seq           integer not null constraint generation_chunks_seq_from_one check (seq >= 1),
  text          text not null,
  created_at    timestamptz not null default now(),
  constraint generation_chunks_pkey primary key (generation_id, attempt, seq)
);

alter table public.generation_chunks enable row level security;

revoke all on table public.generation_chunks from public, anon, authenticated, service_role;
grant select on table public.generation_chunks to authenticated, service_role;
comment on table public.generation_chunks is
'Pieces of answers, kept until an hour after the end. Readers drop an older attempt''s when a newer one begins.';

-- Chunks go with their generations: after the leases, so that whoever was still writing them has come to an end.
create function private.tg_generations__drop_chunks()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  delete from public.generation_chunks as c where c.generation_id = any (array(select g.id from gone as g));
  return null;
end;
$$;

create trigger _600_drop_chunks after delete on public.generations referencing old table as gone
  for each statement execute function private.tg_generations__drop_chunks();

revoke all on function private.tg_generations__drop_chunks() from public, anon, authenticated, service_role;

-- Whether the caller takes part in the conversation of a generation. Runs as its owner, since the
-- policy on chunks may name no other table with row level security.
create function private.may_read_generation(generation_id uuid)
returns boolean
language sql
stable
security definer
set search_path = ''
as $$
  select exists (
    select from public.generations as g
    where g.id = may_read_generation.generation_id
      and private.is_participant(g.conversation_id, (select auth.uid()))
  );
$$;

revoke all on function private.may_read_generation(uuid) from public, anon, authenticated, service_role;
grant execute on function private.may_read_generation(uuid) to authenticated;

create policy "participants can read chunks" on public.generation_chunks
  for select to authenticated
  using (private.may_read_generation(generation_id));

-- Who watches a conversation at the moment. Deltas go over Realtime only while somebody does.
create table private.watch_leases (
  conversation_id uuid not null references public.conversations (id) on delete cascade,
  user_id         uuid not null references public.profiles (id) on delete cascade,
  until           timestamptz not null,
  constraint watch_leases_pkey primary key (conversation_id, user_id)
);

create index watch_leases_by_user on private.watch_leases (user_id);

revoke all on table private.watch_leases from public, anon, authenticated, service_role;
comment on table private.watch_leases is 'Participants that watch answers over Realtime, each for 30 seconds at a time.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('private', 'watch_leases', 'user_id', 'delete', 'exclude');
