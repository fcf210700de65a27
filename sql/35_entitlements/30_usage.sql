-- What people have used and what is held for answers on their way. Days and months are UTC, and those in
-- which an answer was asked for, however late it ends.
--
-- Lock order: active user → pair → conversation → lease → usage (the row of private.owners) → seats.
-- Whoever changes a person's counters, holds or receipts holds that person's row of private.owners first,
-- so that no two look at one balance at once, also not across midnight, where the rows differ.
create table public.usage_periods (
  user_id           uuid not null references public.profiles (id) on delete cascade,
  period            date not null constraint usage_periods_period_is_a_month check (extract(day from period) = 1),
  requests          bigint not null default 0,
  prompt_tokens     bigint not null default 0,
  cached_tokens     bigint not null default 0,
  completion_tokens bigint not null default 0,
  cost_micro_usd    bigint not null default 0,
  held_tokens       bigint not null default 0,
  held_micro_usd    bigint not null default 0,
  constraint usage_periods_pkey primary key (user_id, period),
  constraint usage_periods_not_negative check (
    least(requests, prompt_tokens, cached_tokens, completion_tokens, cost_micro_usd, held_tokens, held_micro_usd) >= 0
  )
);

create table public.usage_daily (
  user_id           uuid not null references public.profiles (id) on delete cascade,
  day               date not null,
  requests          bigint not null default 0,
  prompt_tokens     bigint not null default 0,
  cached_tokens     bigint not null default 0,
  completion_tokens bigint not null default 0,
  cost_micro_usd    bigint not null default 0,
  constraint usage_daily_pkey primary key (user_id, day),
  constraint usage_daily_not_negative check (
    least(requests, prompt_tokens, cached_tokens, completion_tokens, cost_micro_usd) >= 0
  )
);

alter table public.usage_periods enable row level security;
alter table public.usage_daily enable row level security;

revoke all on table public.usage_periods, public.usage_daily from public, anon, authenticated, service_role;
grant select on table public.usage_periods, public.usage_daily to authenticated, service_role;
comment on table public.usage_periods is
'Usage of each person by UTC month: what ended answers used, and what is held for those on their way. Costs are millionths of a dollar.';
comment on column public.usage_periods.held_tokens is 'The most that answers on their way may use; held_micro_usd likewise.';
comment on table public.usage_daily is 'Usage of each person by UTC day; answers count on the day on which they were asked for.';

create policy "people can read their usage by month" on public.usage_periods
  for select to authenticated
  using (user_id = (select auth.uid()));

create policy "people can read their usage by day" on public.usage_daily
  for select to authenticated
  using (user_id = (select auth.uid()));

-- usage_holds: what an answer on its way may use at most. Made in the transaction that asks for the
-- answer, gone in the one that ends it, released by nothing else. The open requests are the person's
-- concurrent answers.
create table private.usage_holds (
  id            uuid primary key default private.uuid_v7(),
  owner_id      uuid not null references private.owners (id),
  generation_id uuid constraint usage_holds_one_per_generation unique,
  completion_id uuid constraint usage_holds_one_per_completion unique,
  plan_id       text not null,
  model_id      text,
  day           date not null,
  prompt_tokens bigint not null constraint usage_holds_prompt_not_negative check (prompt_tokens >= 0),
  tokens        bigint not null constraint usage_holds_tokens_cover_prompt check (tokens >= prompt_tokens),
  micro_usd     bigint not null constraint usage_holds_micro_usd_not_negative check (micro_usd >= 0),
  is_request    boolean not null default true,
  created_at    timestamptz not null default clock_timestamp(),
  constraint usage_holds_serve_one check (num_nonnulls(generation_id, completion_id) = 1)
);

create index usage_holds_by_owner on private.usage_holds (owner_id);

revoke all on table private.usage_holds from public, anon, authenticated, service_role;
comment on table private.usage_holds is 'What answers on their way may use at most; one row for each.';
comment on column private.usage_holds.generation_id is 'Without a foreign key, like completion_id: a hold is settled, never lost with its answer.';
comment on column private.usage_holds.day is 'UTC day of the request, to whose counters the answer belongs.';
comment on column private.usage_holds.tokens is 'Prompt and output together.';
comment on column private.usage_holds.is_request is
'False: work behind the scenes, such as a summary, which spends tokens and money and is no request of the person.';

-- usage_receipts: what one ended answer used. They outlive chats and accounts, and are never changed.
create table public.usage_receipts (
  id                uuid primary key default private.uuid_v7(),
  owner_id          uuid not null references private.owners (id),
  kind              text not null,
  generation_id     uuid constraint usage_receipts_one_per_generation unique,
  message_id        uuid,
  completion_id     uuid constraint usage_receipts_one_per_completion unique,
  plan_id           text not null,
  model_id          text,
  route             text,
  day               date not null,
  calls             integer not null,
  prompt_tokens     bigint not null,
  cached_tokens     bigint not null,
  completion_tokens bigint not null,
  price_version     integer,
  cost_micro_usd    bigint,
  estimated         boolean not null,
  created_at        timestamptz not null default clock_timestamp(),
  constraint usage_receipts_serve_one check (num_nonnulls(generation_id, completion_id) = 1),
  constraint usage_receipts_not_negative check (
    least(calls, prompt_tokens, cached_tokens, completion_tokens, coalesce(cost_micro_usd, 0)) >= 0
  )
);

create index usage_receipts_by_owner on public.usage_receipts (owner_id, id desc);
create index usage_receipts_by_day on public.usage_receipts (day);
alter table public.usage_receipts enable row level security;

revoke all on table public.usage_receipts from public, anon, authenticated, service_role;
grant select on table public.usage_receipts to authenticated, service_role;
comment on table public.usage_receipts is
'One row for each ended answer that used something. Receipts stay when the chat, the model or the account is deleted.';
comment on column public.usage_receipts.kind is 'answer (of a conversation), or the kind of the completion.';
comment on column public.usage_receipts.message_id is 'The message, which may be gone, like generation_id and completion_id.';
comment on column public.usage_receipts.plan_id is 'The plan when the answer was asked for.';
comment on column public.usage_receipts.route is 'Provider and model there that the last call went to.';
comment on column public.usage_receipts.day is 'UTC day on which the answer was asked for.';
comment on column public.usage_receipts.calls is
'Calls of providers that were counted: retries too, and calls that failed after the prompt was read.';
comment on column public.usage_receipts.price_version is 'Version of the prices of the last call''s route.';
comment on column public.usage_receipts.cost_micro_usd is 'Millionths of a dollar; null when no call had a known price.';
comment on column public.usage_receipts.estimated is 'Whether any figure is not a provider''s own.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export) values
  ('public', 'usage_periods', 'user_id', 'delete', 'include'),
  ('public', 'usage_daily', 'user_id', 'delete', 'include'),
  ('private', 'usage_holds', 'owner_id', 'keep', 'exclude'),
  ('public', 'usage_receipts', 'owner_id', 'keep', 'include');

-- Who the caller is in the books. Runs as its owner: owners are internal.
create function private.my_owner_id()
returns uuid
language sql
stable
security definer
set search_path = ''
as $$
  select o.id from private.owners as o where o.user_id = (select auth.uid());
$$;

revoke all on function private.my_owner_id() from public, anon, authenticated, service_role;
grant execute on function private.my_owner_id() to authenticated;
comment on function private.my_owner_id() is 'The id of the caller in private.owners; null before they have one.';

create policy "people can read their receipts" on public.usage_receipts
  for select to authenticated
  using (owner_id = (select private.my_owner_id()));
