-- A did of the project's host: `did:web:<host>:users:<profile id>`, a port percent-encoded as the
-- method asks (did:web, section 3.1). Null until the project URL is known.
create function private.did_of(profile_id uuid)
returns text
language sql
stable
security invoker
set search_path = ''
as $$
  select 'did:web:'
    || replace(lower(regexp_replace(s.value #>> '{}', '^https?://', '')), ':', '%3A')
    || ':users:' || did_of.profile_id::text
  from private.settings as s
  where s.key = 'project_url';
$$;

revoke all on function private.did_of(uuid) from public, anon, authenticated, service_role;
comment on function private.did_of(uuid) is 'The did:web of a profile, from the setting project_url, never from a request.';

-- Makes the profile of a user, once. Two people who would get the same name in the same moment get
-- two names: the name is locked first, and the unique constraint has the last word.
create function private.ensure_profile(user_id uuid)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  person auth.users;
  candidate text;
  shown_name text;
begin
  -- Whoever comes second waits here and then finds the profile.
  perform pg_advisory_xact_lock(hashtextextended('profile:' || ensure_profile.user_id::text, 0));
  if exists (select from public.profiles as p where p.id = ensure_profile.user_id) then
    return;
  end if;
  select u.* into person from auth.users as u where u.id = ensure_profile.user_id;
  if not found then
    return;
  end if;

  candidate := private.username_base(person.email);
  -- Metadata is the visitor's own input: taken where it is a proper name, else ignored.
  select left(btrim(name.value), 50) into shown_name
  from unnest(array['display_name', 'full_name', 'name']) as field(key)
  cross join lateral (select person.raw_user_meta_data ->> field.key as value) as name
  where jsonb_typeof(person.raw_user_meta_data -> field.key) = 'string'
    and private.is_line(btrim(left(btrim(name.value), 50)), 50)
  limit 1;

  for attempt in 1..20 loop
    perform private.lock_username(candidate);
    if not exists (select from private.reserved_usernames as r where r.username = candidate) then
      insert into public.profiles (id, username, display_name, did)
      values (person.id, candidate, coalesce(btrim(shown_name), candidate), private.did_of(person.id))
      on conflict on constraint profiles_username_unique do nothing;
      exit when found;
    end if;
    -- 4 random hex digits, then 8: from the random part of a uuid, so guessing is no use either.
    candidate := private.username_base(person.email)
      || left(replace(gen_random_uuid()::text, '-', ''), case when attempt < 5 then 4 else 8 end);
  end loop;

  insert into public.profile_private (id, topic)
  values (person.id, 'user:' || person.id::text || ':' || encode(extensions.gen_random_bytes(16), 'hex'));
  -- Now and not on first use: a request holds the profile already, and would meet a deletion, which locks
  -- the user before the profile.
  perform private.owner_of(person.id);
  perform private.emit_event(
    'user.registered', person.id,
    jsonb_build_object('user_id', person.id, 'email', person.email), person.id
  );
end;
$$;

revoke all on function private.ensure_profile(uuid) from public, anon, authenticated, service_role;
comment on function private.ensure_profile(uuid) is 'Makes the profile of a user unless it exists; emits user.registered.';

-- Runs as its owner: Auth inserts users as its own role, which has no rights here.
-- Never fails a sign-up: should the profile not come about, rpc me makes it at the first call.
create function private.tg_users__register()
returns trigger
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  perform private.ensure_profile(new.id);
  return new;
exception when others then
  raise warning 'no profile for user %: % (%)', new.id, sqlerrm, sqlstate;
  return new;
end;
$$;

revoke all on function private.tg_users__register() from public, anon, authenticated, service_role;
comment on function private.tg_users__register() is 'Trigger: makes the profile of a new user.';

create or replace trigger _100_parlor_register after insert on auth.users
  for each row execute function private.tg_users__register();

-- Sets the public origin of the project and rewrites every did, which names the host.
create function admin.set_project_url(url text)
returns text
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  origin text := rtrim(set_project_url.url, '/');
begin
  if origin is null or origin !~ '^https?://[^/?#\s]+$' then
    raise sqlstate 'PT422' using
      message = 'project_url_invalid',
      detail  = 'The project URL is an absolute http or https origin, for example https://abc.supabase.co.';
  end if;

  insert into private.settings as s (key, value)
  values ('project_url', to_jsonb(origin))
  on conflict (key) do update set value = excluded.value, updated_at = now();
  update public.profiles as p
  set did = private.did_of(p.id)
  where p.did is distinct from private.did_of(p.id);
  return origin;
end;
$$;

revoke all on function admin.set_project_url(text) from public, anon, authenticated, service_role;
comment on function admin.set_project_url(text) is
'Sets the public origin of the project and rewrites every did. Raises PT422 project_url_invalid.';
