-- The models that there are, each with whether the caller's plan includes it and the smallest plan that
-- does: people see what a larger plan would give them. Runs as its owner: plans of people are internal.
create function private.my_models()
returns table (
  id text, display_name text, kind text, context_window integer, max_output integer, tier smallint, is_default boolean,
  is_included boolean, smallest_plan_id text
)
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  rights private.entitlements := private.entitlements_of(private.require_active_user());
begin
  return query
  select
    m.id, m.display_name, m.kind, m.context_window, m.max_output, m.tier, m.is_default,
    rights.max_model_tier is null or m.tier <= rights.max_model_tier,
    (
      select p.id
      from public.plans as p
      where p.max_model_tier is null or p.max_model_tier >= m.tier
      order by p.position
      limit 1
    )
  from public.ai_models as m
  where m.is_enabled
  order by m.tier, m.id;
end;
$$;

create function public.my_models()
returns table (
  id text, display_name text, kind text, context_window integer, max_output integer, tier smallint, is_default boolean,
  is_included boolean, smallest_plan_id text
)
language sql
stable
security invoker
set search_path = ''
as $$
  select * from private.my_models();
$$;

revoke all on function private.my_models(), public.my_models() from public, anon, authenticated, service_role;
grant execute on function private.my_models(), public.my_models() to authenticated;
comment on function public.my_models() is
'Enabled models, the caller''s own (is_included) and those of larger plans, with the smallest plan that includes each. '
'Raises PT401 sign_in_required, PT403 account_not_active.';
