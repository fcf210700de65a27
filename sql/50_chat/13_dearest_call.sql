-- The most that one call for a model may cost over any of its routes, in millionths of a dollar, rounded up:
-- what is held for it, so that each route may be used. A price that nobody knows counts as nothing: caps on
-- tokens hold all the same.
create function private.dearest_call(model_id text, prompt_tokens bigint, completion_tokens bigint)
returns bigint
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return (
    select coalesce(
      max(ceil(
        (
          dearest_call.prompt_tokens * coalesce(r.prompt_price, 0)::numeric
          + dearest_call.completion_tokens * coalesce(r.completion_price, 0)
        ) / 1000000
      )), 0
    )::bigint
    from private.ai_routes as r
    where r.model = dearest_call.model_id and r.is_enabled
  );
end;
$$;

revoke all on function private.dearest_call(text, bigint, bigint) from public, anon, authenticated, service_role;
