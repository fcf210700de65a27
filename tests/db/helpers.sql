-- The people and roles of pgTAP tests. Installed only into a database of their own that nothing
-- serves (tests/db.spec.ts); the names are those known from supabase-test-helpers.
create schema tests;
grant usage on schema tests to anon, authenticated, service_role;

-- Signs somebody up, as Auth would insert them. `identifier` is how the test calls them.
create function tests.create_supabase_user(
  identifier text, email text default null, phone text default null, metadata jsonb default null
)
returns uuid
language sql
volatile
security definer
set search_path = ''
as $$
  insert into auth.users (id, aud, role, email, phone, raw_user_meta_data, raw_app_meta_data, created_at, updated_at)
  values (
    gen_random_uuid(), 'authenticated', 'authenticated',
    coalesce(create_supabase_user.email, create_supabase_user.identifier || '@test.example'), create_supabase_user.phone,
    coalesce(create_supabase_user.metadata, '{}') || jsonb_build_object('test_identifier', create_supabase_user.identifier),
    '{}', now(), now()
  )
  returning id;
$$;

-- The id of somebody signed up before; an error when there is nobody of that name.
create function tests.get_supabase_uid(identifier text)
returns uuid
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  uid uuid;
begin
  select u.id into strict uid
  from auth.users as u
  where u.raw_user_meta_data ->> 'test_identifier' = get_supabase_uid.identifier;
  return uid;
end;
$$;

create function tests.authenticate_as(identifier text)
returns void
language plpgsql
volatile
as $$
begin
  perform set_config('request.jwt.claims', jsonb_build_object(
    'sub', tests.get_supabase_uid(identifier), 'role', 'authenticated', 'aud', 'authenticated'
  )::text, true);
  perform set_config('role', 'authenticated', true);
end;
$$;

create function tests.authenticate_as_service_role()
returns void
language plpgsql
volatile
as $$
begin
  perform set_config('request.jwt.claims', '{"role": "service_role"}', true);
  perform set_config('role', 'service_role', true);
end;
$$;

-- A visitor who has not signed in.
create function tests.clear_authentication()
returns void
language plpgsql
volatile
as $$
begin
  perform set_config('request.jwt.claims', '{"role": "anon"}', true);
  perform set_config('role', 'anon', true);
end;
$$;

-- The dashboard: role postgres, no claims.
create function tests.become_postgres()
returns void
language plpgsql
volatile
as $$
begin
  perform set_config('request.jwt.claims', '', true);
  perform set_config('role', 'postgres', true);
end;
$$;

-- Row level security is on for every table of a schema.
create function tests.rls_enabled(testing_schema text)
returns text
language sql
stable
as $$
  select extensions.is(
    array(
      select c.relname::text
      from pg_catalog.pg_class as c
      where c.relnamespace = testing_schema::pg_catalog.regnamespace
        and c.relkind in ('r', 'p')
        and not c.relrowsecurity
      order by 1
    ),
    array[]::text[],
    'row level security is on for every table of ' || testing_schema
  );
$$;

grant execute on all functions in schema tests to anon, authenticated, service_role;
