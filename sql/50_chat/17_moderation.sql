-- Moderation of what people write, off until an operator switches it on. The functions ask the
-- provider, before they ask any model; what is refused is not stored. A message that came by rpc,
-- past the function, is looked at by the worker that would answer it, and loses its text when refused.
create function private.moderation()
returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  select jsonb_build_object(
    'provider', p.name, 'base_url_env', p.base_url_env, 'api_key_env', p.api_key_env,
    'default_base_url', p.default_base_url, 'model', s.value ->> 'model', 'on_error', s.value ->> 'on_error'
  )
  from private.settings as s
  join private.ai_providers as p on p.name = s.value ->> 'provider'
  where s.key = 'moderation';
$$;

create function service.moderation()
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select private.moderation();
$$;

revoke all on function private.moderation(), service.moderation() from public, anon, authenticated, service_role;
grant execute on function private.moderation(), service.moderation() to service_role;
comment on function service.moderation() is
'How input is moderated: {provider, base_url_env, api_key_env, default_base_url, model, on_error}; null: not at all.';

-- Switches moderation on with a provider that has a moderations endpoint, or off with null.
create function admin.set_moderation(
  provider text,
  model text default 'omni-moderation-latest',
  on_error text default 'refuse'
)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  if set_moderation.on_error is null or set_moderation.on_error not in ('allow', 'refuse') or set_moderation.model is null then
    raise sqlstate 'PT422' using
      message = 'moderation_invalid',
      detail  = 'on_error is allow or refuse, and the model has a name.';
  end if;
  if set_moderation.provider is not null
    and not exists (select from private.ai_providers as p where p.name = set_moderation.provider)
  then
    raise sqlstate 'PT404' using
      message = 'provider_not_found',
      detail  = 'There is no provider with this name.',
      hint    = 'Insert it into private.ai_providers first.';
  end if;
  delete from private.settings as s where s.key = 'moderation';
  insert into private.settings (key, value)
  select 'moderation', jsonb_build_object(
    'provider', set_moderation.provider, 'model', set_moderation.model, 'on_error', set_moderation.on_error
  )
  where set_moderation.provider is not null;
end;
$$;

revoke all on function admin.set_moderation(text, text, text) from public, anon, authenticated, service_role;
comment on function admin.set_moderation(text, text, text) is
'Has messages and prompts looked at by a provider''s moderation; provider null switches it off. on_error says what happens '
'when the provider does not answer: refuse (503) or allow. Raises PT404 provider_not_found, PT422 moderation_invalid.';

insert into private.error_codes (code, status, meaning) values
  ('moderation_invalid', 422, 'Moderation wants a model, and allow or refuse for when it does not answer.'),
  ('provider_not_found', 404, 'There is no such provider of models.');
