-- Models and how to reach them. A provider row names two environment variables, so keys and
-- addresses stay with the functions; routes of a model are tried in order of their position.
create table private.ai_providers (
  name             text primary key constraint ai_providers_name_is_snake_case check (name ~ '^[a-z][a-z0-9_]+$'),
  base_url_env     text not null,
  api_key_env      text not null,
  default_base_url text,
  streams          boolean not null default true,
  continues        boolean not null default true
);

revoke all on table private.ai_providers from public, anon, authenticated, service_role;
comment on table private.ai_providers is 'Where models run: the variables that hold address and key, and the default address.';
comment on column private.ai_providers.default_base_url is 'Null: the provider has no common address, base_url_env must be set.';
comment on column private.ai_providers.streams is 'False: answers come in one piece.';
comment on column private.ai_providers.continues is
'Whether an answer goes on where a last message of the assistant stops. False: one that outlasts the wall clock ends there.';

create table public.ai_models (
  id             text primary key constraint ai_models_id_has_bounds check (char_length(id) between 1 and 120),
  display_name   text not null,
  context_window integer not null constraint ai_models_context_positive check (context_window > 0),
  max_output     integer not null constraint ai_models_output_positive check (max_output > 0),
  is_enabled     boolean not null default true,
  is_default     boolean not null default false,
  created_at     timestamptz not null default now()
);

create unique index ai_models_one_default on public.ai_models (is_default) where is_default;
alter table public.ai_models enable row level security;

revoke all on table public.ai_models from public, anon, authenticated, service_role;
grant select on table public.ai_models to authenticated, service_role;
comment on table public.ai_models is 'Models that conversations can use. Sizes are tokens.';

create policy "people can read enabled models" on public.ai_models
  for select to authenticated
  using (is_enabled);

create table private.ai_routes (
  id             bigint generated always as identity primary key,
  model          text not null references public.ai_models (id) on update cascade on delete cascade,
  provider       text not null references private.ai_providers (name) on update cascade,
  provider_model text not null,
  position       smallint not null default 1,
  is_enabled     boolean not null default true,
  constraint ai_routes_one_per_position unique (model, position)
);

create index ai_routes_by_provider on private.ai_routes (provider);

revoke all on table private.ai_routes from public, anon, authenticated, service_role;
comment on table private.ai_routes is 'How a model is reached: provider and its name there, tried in order of position.';

insert into private.ai_providers (name, base_url_env, api_key_env, default_base_url, streams) values
  ('openai', 'OPENAI_BASE_URL', 'OPENAI_API_KEY', 'https://api.openai.com/v1', true),
  ('anthropic', 'ANTHROPIC_BASE_URL', 'ANTHROPIC_API_KEY', 'https://api.anthropic.com/v1/', true),
  ('google', 'GEMINI_BASE_URL', 'GEMINI_API_KEY', 'https://generativelanguage.googleapis.com/v1beta/openai/', true),
  ('groq', 'GROQ_BASE_URL', 'GROQ_API_KEY', 'https://api.groq.com/openai/v1', true),
  ('openrouter', 'OPENROUTER_BASE_URL', 'OPENROUTER_API_KEY', 'https://openrouter.ai/api/v1', true),
  ('vastai', 'VASTAI_BASE_URL', 'VASTAI_API_KEY', null, false);

insert into public.ai_models (id, display_name, context_window, max_output, is_default) values
  ('dolphin-mistral-24b-venice', 'Dolphin Mistral 24B Venice', 32768, 8192, true),
  ('qwen3-abliterated-8b', 'Qwen3 8B abliterated', 32768, 8192, false),
  ('gpt-4o-mini', 'GPT-4o mini', 128000, 16384, false),
  ('claude-haiku-4-5', 'Claude Haiku 4.5', 200000, 64000, false),
  ('gemini-2.5-flash', 'Gemini 2.5 Flash', 1048576, 65536, false),
  ('llama-3.3-70b', 'Llama 3.3 70B', 131072, 32768, false);

insert into private.ai_routes (model, provider, provider_model, position) values
  ('dolphin-mistral-24b-venice', 'openrouter', 'cognitivecomputations/dolphin-mistral-24b-venice-edition:free', 1),
  ('qwen3-abliterated-8b', 'vastai', 'huihui_ai/qwen3-abliterated:8b', 1),
  ('gpt-4o-mini', 'openai', 'gpt-4o-mini', 1),
  ('claude-haiku-4-5', 'anthropic', 'claude-haiku-4-5', 1),
  ('gemini-2.5-flash', 'google', 'gemini-2.5-flash', 1),
  ('llama-3.3-70b', 'groq', 'llama-3.3-70b-versatile', 1);
