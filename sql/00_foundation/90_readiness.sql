-- What `health/ready` asks: does this database have what the deployed functions call? Names only,
-- so that it answers on a database without our later migrations as well.
create function service.missing_functions(names text[])
returns text[]
language sql
stable
security invoker
set search_path = ''
as $$
  select coalesce(array_agg(n.name order by n.name), '{}')
  from unnest(missing_functions.names) as n (name)
  where not exists (
    select from pg_catalog.pg_proc as p
    where p.pronamespace = 'service'::regnamespace and p.proname = n.name
  );
$$;

revoke all on function service.missing_functions(text[]) from public, anon, authenticated, service_role;
grant execute on function service.missing_functions(text[]) to service_role;
comment on function service.missing_functions(text[]) is
'The given names that are no function of schema service; empty when all are there.';
