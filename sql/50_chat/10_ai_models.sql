-- Models and how to reach them. A provider row names two environment variables, so keys and
-- addresses stay with the functions; routes of a model are tried in order of their position.
create table private.ai_providers (
  name             text primary key constraint ai_providers_name_is_snake_case check (name ~ '^[a-z][a-z0-9_]+$'),
  dialect          text not null default 'compatible' constraint ai_providers_dialect_known
    check (dialect in ('openai', 'anthropic', 'google', 'groq', 'openrouter', 'compatible')),
  base_url_env     text not null constraint ai_providers_base_url_env_is_a_variable check (base_url_env ~ '^[A-Z][A-Z0-9_]*$'),
  api_key_env      text constraint ai_providers_api_key_env_is_a_variable check (api_key_env ~ '^[A-Z][A-Z0-9_]*$'),
  default_base_url text constraint ai_providers_default_base_url_is_http check (default_base_url ~ '^https?://'),
  streams          boolean not null default true,
  continues        boolean not null default true
);

revoke all on table private.ai_providers from public, anon, authenticated, service_role;
comment on table private.ai_providers is 'Where models run: the variables that hold address and key, and the default address.';
comment on column private.ai_providers.dialect is
'Which fields of a request the provider takes; compatible is the common ground, for any OpenAI-compatible server.';
comment on column private.ai_providers.api_key_env is 'Null: the server wants no key.';
comment on column private.ai_providers.default_base_url is 'Null: the provider has no common address, base_url_env must be set.';
comment on column private.ai_providers.streams is 'False: answers come in one piece.';
comment on column private.ai_providers.continues is
'Whether an answer goes on where a last message of the assistant stops. False: one that outlasts the wall clock ends there.';

create table public.ai_models (
  id             text primary key constraint ai_models_id_has_bounds check (char_length(id) between 1 and 120),
  display_name   text not null,
  kind           text not null default 'chat' constraint ai_models_kind_known check (kind in ('chat', 'embedding')),
  context_window integer not null constraint ai_models_context_positive check (context_window > 0),
  max_output     integer not null default 0,
  dimensions     integer constraint ai_models_dimensions_range check (dimensions between 1 and 16000),
  tier           smallint not null default 0 constraint ai_models_tier_not_negative check (tier >= 0),
  is_enabled     boolean not null default true,
  is_default     boolean not null default false,
  created_at     timestamptz not null default now(),
  constraint ai_models_output_of_chat check ((kind = 'chat' and max_output > 0) or (kind = 'embedding' and max_output = 0)),
  constraint ai_models_dimensions_of_embedding check ((kind = 'embedding') = (dimensions is not null))
);

create unique index ai_models_one_default on public.ai_models (kind) where is_default;
alter table public.ai_models enable row level security;

revoke all on table public.ai_models from public, anon, authenticated, service_role;
grant select on table public.ai_models to authenticated, service_role;
comment on table public.ai_models is 'Models: those of kind chat answer, those of kind embedding turn texts into vectors. Sizes are tokens.';
comment on column public.ai_models.max_output is 'Longest answer; 0 for an embedding model.';
comment on column public.ai_models.dimensions is 'Length of the vectors of an embedding model.';
comment on column public.ai_models.tier is
'Plans whose max_model_tier is at least this may use the model. Everybody sees every model; rpc my_models says which are included.';

create policy "people can read enabled models" on public.ai_models
  for select to authenticated
  using (is_enabled);

create table private.ai_routes (
  id                  bigint generated always as identity primary key,
  model               text not null references public.ai_models (id) on update cascade on delete cascade,
  provider            text not null references private.ai_providers (name) on update cascade,
  provider_model      text not null,
  position            smallint not null default 1,
  is_enabled          boolean not null default true,
  streams             boolean,
  takes_system        boolean not null default true,
  takes_temperature   boolean not null default true,
  takes_json_schema   boolean not null default false,
  context_window      integer constraint ai_routes_context_positive check (context_window > 0),
  max_output          integer constraint ai_routes_output_positive check (max_output > 0),
  prompt_price        bigint constraint ai_routes_prompt_price_not_negative check (prompt_price >= 0),
  cached_price        bigint constraint ai_routes_cached_price_not_negative check (cached_price >= 0),
  completion_price    bigint constraint ai_routes_completion_price_not_negative check (completion_price >= 0),
  price_version       integer not null default 1,
  ceiling_micro_usd   bigint constraint ai_routes_ceiling_positive check (ceiling_micro_usd > 0),
  constraint ai_routes_one_per_position unique (model, position),
  constraint ai_routes_priced_as_a_whole check ((prompt_price is null) = (completion_price is null))
);

create index ai_routes_by_provider on private.ai_routes (provider);

revoke all on table private.ai_routes from public, anon, authenticated, service_role;
comment on table private.ai_routes is 'How a model is reached: provider and its name there, tried in order of position.';
comment on column private.ai_routes.streams is 'Null: as the provider.';
comment on column private.ai_routes.takes_system is 'False: what the system would say goes before the first message of the user.';
comment on column private.ai_routes.takes_temperature is 'False for models that think for themselves and refuse one.';
comment on column private.ai_routes.takes_json_schema is 'True: answers in a form are asked for by response_format, else by words.';
comment on column private.ai_routes.context_window is 'Tokens; null: as the model. max_output likewise.';
comment on column private.ai_routes.prompt_price is
'Millionths of a dollar for a million tokens, like cached_price (null: as prompt_price) and completion_price. '
'Null: not known; 0: nothing.';
comment on column private.ai_routes.price_version is 'Counts changes of the prices; each call keeps the version it was paid by.';
comment on column private.ai_routes.ceiling_micro_usd is
'Most that one answer may cost that this route writes, in millionths of a dollar; null: as the setting generation_ceiling_micro_usd.';

create function private.tg_ai_routes__price_version()
returns trigger
language plpgsql
security invoker
set search_path = ''
as $$
begin
  new.price_version := old.price_version + 1;
  return new;
end;
$$;

create trigger _100_price_version before update on private.ai_routes
  for each row when (
    (old.prompt_price, old.cached_price, old.completion_price)
      is distinct from (new.prompt_price, new.cached_price, new.completion_price)
  )
  execute function private.tg_ai_routes__price_version();

revoke all on function private.tg_ai_routes__price_version() from public, anon, authenticated, service_role;

-- What a call over a route costs in millionths of a dollar, rounded up, by the prices of this moment;
-- null when a price or the usage is not known.
create function private.price_call(route_id bigint, usage jsonb, out cost_micro_usd bigint, out price_version integer)
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  select
    ceil((
      (t.prompt - t.cached) * r.prompt_price + t.cached * coalesce(r.cached_price, r.prompt_price)
      + t.completion * r.completion_price
    ) / 1000000.0)::bigint,
    case when r.prompt_price is not null then r.price_version end
  into price_call.cost_micro_usd, price_call.price_version
  from private.ai_routes as r
  cross join lateral (
    select
      (price_call.usage ->> 'prompt_tokens')::numeric as prompt,
      least(coalesce((price_call.usage ->> 'cached_tokens')::numeric, 0), (price_call.usage ->> 'prompt_tokens')::numeric) as cached,
      (price_call.usage ->> 'completion_tokens')::numeric as completion
  ) as t
  where r.id = price_call.route_id and jsonb_typeof(price_call.usage) = 'object';
end;
$$;

-- The route that a call goes over: `told`, held until the end of the transaction, or `known` when it is that one
-- already. An operator may delete a route while it is in use, which is no reason to lose what came over it.
create function private.known_route(told bigint, known bigint)
returns bigint
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  if told is null or told = known then
    return known;
  end if;
  return coalesce((select r.id from private.ai_routes as r where r.id = told for key share), known);
end;
$$;

revoke all on function private.price_call(bigint, jsonb), private.known_route(bigint, bigint)
  from public, anon, authenticated, service_role;

insert into private.ai_providers (name, dialect, base_url_env, api_key_env, default_base_url, streams, continues) values
  ('openai', 'openai', 'OPENAI_BASE_URL', 'OPENAI_API_KEY', 'https://api.openai.com/v1', true, false),
  ('anthropic', 'anthropic', 'ANTHROPIC_BASE_URL', 'ANTHROPIC_API_KEY', 'https://api.anthropic.com/v1/', true, true),
  ('google', 'google', 'GEMINI_BASE_URL', 'GEMINI_API_KEY', 'https://generativelanguage.googleapis.com/v1beta/openai/', true, false),
  ('groq', 'groq', 'GROQ_BASE_URL', 'GROQ_API_KEY', 'https://api.groq.com/openai/v1', true, true),
  ('openrouter', 'openrouter', 'OPENROUTER_BASE_URL', 'OPENROUTER_API_KEY', 'https://openrouter.ai/api/v1', true, true),
  ('vastai', 'compatible', 'VASTAI_BASE_URL', 'VASTAI_API_KEY', null, false, true);

insert into public.ai_models (id, display_name, kind, context_window, dimensions, tier, is_default) values
  ('text-embedding-3-small', 'Text embedding 3 small', 'embedding', 8191, 1536, 0, true),
  ('text-embedding-3-large', 'Text embedding 3 large', 'embedding', 8191, 3072, 1, false);

insert into public.ai_models (id, display_name, context_window, max_output, tier, is_default) values
  ('dolphin-mistral-24b-venice', 'Dolphin Mistral 24B Venice', 32768, 8192, 0, true),
  ('qwen3-abliterated-8b', 'Qwen3 8B abliterated', 32768, 8192, 0, false),
  ('gpt-4o-mini', 'GPT-4o mini', 128000, 16384, 0, false),
  ('claude-haiku-4-5', 'Claude Haiku 4.5', 200000, 64000, 2, false),
  ('gemini-2.5-flash', 'Gemini 2.5 Flash', 1048576, 65536, 1, false),
  ('llama-3.3-70b', 'Llama 3.3 70B', 131072, 32768, 1, false);

-- List prices, which change: operators keep their own true. A rented GPU is paid by the hour.
insert into private.ai_routes
  (model, provider, provider_model, takes_json_schema, prompt_price, cached_price, completion_price)
values
  ('dolphin-mistral-24b-venice', 'openrouter', 'cognitivecomputations/dolphin-mistral-24b-venice-edition:free', false, 0, 0, 0),
  ('qwen3-abliterated-8b', 'vastai', 'huihui_ai/qwen3-abliterated:8b', false, 0, 0, 0),
  ('gpt-4o-mini', 'openai', 'gpt-4o-mini', true, 150000, 75000, 600000),
  ('claude-haiku-4-5', 'anthropic', 'claude-haiku-4-5', false, 1000000, 100000, 5000000),
  ('gemini-2.5-flash', 'google', 'gemini-2.5-flash', true, 300000, 75000, 2500000),
  ('llama-3.3-70b', 'groq', 'llama-3.3-70b-versatile', false, 590000, null, 790000),
  ('text-embedding-3-small', 'openai', 'text-embedding-3-small', false, 20000, null, 0),
  ('text-embedding-3-large', 'openai', 'text-embedding-3-large', false, 130000, null, 0);
