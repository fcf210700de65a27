-- plans: what everybody may do. One table decides, for native and OpenAI-compatible calls alike; each
-- limit is a typed column, and null is no limit.
create table public.plans (
  id                     text primary key constraint plans_id_is_snake_case check (id ~ '^[a-z][a-z0-9_]*$'),
  name                   text not null constraint plans_name_is_line check (private.is_line(name, 50)),
  position               smallint not null constraint plans_position_unique unique,
  max_model_tier         smallint constraint plans_max_model_tier_not_negative check (max_model_tier >= 0),
  requests_per_minute    integer constraint plans_requests_per_minute_positive check (requests_per_minute > 0),
  requests_per_day       integer constraint plans_requests_per_day_not_negative check (requests_per_day >= 0),
  tokens_per_month       bigint constraint plans_tokens_per_month_not_negative check (tokens_per_month >= 0),
  micro_usd_per_month    bigint constraint plans_micro_usd_per_month_not_negative check (micro_usd_per_month >= 0),
  concurrent_generations integer constraint plans_concurrent_generations_not_negative check (concurrent_generations >= 0),
  storage_bytes          bigint constraint plans_storage_bytes_not_negative check (storage_bytes >= 0),
  max_characters         integer constraint plans_max_characters_not_negative check (max_characters >= 0),
  can_use_voice          boolean not null
);

alter table public.plans enable row level security;

revoke all on table public.plans from public, anon, authenticated, service_role;
grant select on table public.plans to anon, authenticated, service_role;
comment on table public.plans is 'What each plan allows; null in a limit is no limit. Changes hold for the next request.';
comment on column public.plans.position is 'Order from the smallest plan to the largest.';
comment on column public.plans.max_model_tier is 'Models of this tier (ai_models.tier) and below may be used.';
comment on column public.plans.requests_per_minute is 'Answers asked for; a bucket of that many, refilled evenly over a minute.';
comment on column public.plans.requests_per_day is 'Answers asked for in a UTC day.';
comment on column public.plans.tokens_per_month is 'Prompt and output tokens of a UTC month.';
comment on column public.plans.micro_usd_per_month is 'What a UTC month''s answers may cost the operator, in millionths of a dollar.';
comment on column public.plans.concurrent_generations is 'Answers on their way at the same time.';
comment on column public.plans.storage_bytes is 'Bytes of files in Storage.';

create policy "everybody can read plans" on public.plans
  for select to anon, authenticated
  using (true);

insert into public.plans (
  id, name, position, max_model_tier, requests_per_minute, requests_per_day, tokens_per_month, micro_usd_per_month,
  concurrent_generations, storage_bytes, max_characters, can_use_voice
) values
  ('free', 'Free', 1, 0, 30, 500, 2000000, 500000, 5, 104857600, 25, false),
  ('plus', 'Plus', 2, 1, 60, 2000, 10000000, 5000000, 10, 2147483648, 100, true),
  ('pro', 'Pro', 3, 2, 120, 10000, 50000000, 30000000, 25, 21474836480, 1000, true),
  ('enterprise', 'Enterprise', 4, null, null, null, null, null, null, null, null, true);
