-- What functions may remember between requests: the models, and the rules of rate limits. A version tells
-- whether it still holds. It is a row, not a sequence: it changes with what it is the version of, at the
-- same commit, so that nobody remembers the old rows under the new version.
create table private.catalogue_version (
  is_the_row boolean primary key default true constraint catalogue_version_one_row check (is_the_row),
  version    bigint not null
);

revoke all on table private.catalogue_version from public, anon, authenticated, service_role;
comment on table private.catalogue_version is 'Counts changes of ai_models, plans and rate_rules; one row.';

insert into private.catalogue_version (version) values (1);

create function private.tg_catalogue__version()
returns trigger
language plpgsql
security invoker
set search_path = ''
as $$
begin
  update private.catalogue_version as v set version = v.version + 1;
  return null;
end;
$$;

create trigger _900_catalogue after insert or update or delete or truncate on public.ai_models
  for each statement execute function private.tg_catalogue__version();
create trigger _900_catalogue after insert or update or delete or truncate on public.plans
  for each statement execute function private.tg_catalogue__version();
create trigger _900_catalogue after insert or update or delete or truncate on private.rate_rules
  for each statement execute function private.tg_catalogue__version();

revoke all on function private.tg_catalogue__version() from public, anon, authenticated, service_role;

-- What is known of the catalogue, left out where the caller knows this version already, beside what only
-- this moment tells: the user's plan, and whether the account is active. Runs as its owner: functions reach no table.
create function private.read_catalogue(user_id uuid, known_version bigint)
returns jsonb
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  rights private.entitlements := private.entitlements_of(read_catalogue.user_id);
  now_at bigint := (select v.version from private.catalogue_version as v);
  answer jsonb;
begin
  answer := jsonb_build_object(
    'version', now_at, 'plan', rights.plan_id, 'max_model_tier', rights.max_model_tier,
    'is_active', private.is_account_active(read_catalogue.user_id)
  );
  if now_at = read_catalogue.known_version then
    return answer;
  end if;
  return answer || jsonb_build_object(
    'rules', private.list_rate_rules(),
    'models', (
      select coalesce(
        jsonb_agg(
          jsonb_build_object(
            'id', m.id, 'name', m.display_name, 'kind', m.kind, 'tier', m.tier, 'context_window', m.context_window,
            'max_output', m.max_output, 'dimensions', m.dimensions, 'created_at', m.created_at
          ) order by m.tier, m.id
        ),
        '[]'
      )
      from public.ai_models as m
      where m.is_enabled
    )
  );
end;
$$;

create function service.read_catalogue(user_id uuid, known_version bigint)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select private.read_catalogue(read_catalogue.user_id, read_catalogue.known_version);
$$;

revoke all on function private.read_catalogue(uuid, bigint), service.read_catalogue(uuid, bigint)
  from public, anon, authenticated, service_role;
grant execute on function private.read_catalogue(uuid, bigint), service.read_catalogue(uuid, bigint) to service_role;
comment on function service.read_catalogue(uuid, bigint) is
'{version, plan, max_model_tier, is_active} of a user (null: a visitor) at this moment, and {models, rules} unless known_version is the version.';
