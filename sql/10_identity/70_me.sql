-- Who the caller is. Marks them as seen, at most once a minute, and makes the profile should it be
-- missing. Runs as its owner, since it reads the e-mail from Auth and the roles.
create function private.me()
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  caller uuid := auth.uid();
  answer jsonb;
begin
  if caller is null then
    raise sqlstate 'PT401' using
      message = 'sign_in_required',
      detail  = 'This call needs a signed-in user.';
  end if;
  if not exists (select from public.profiles as p where p.id = caller) then
    perform private.ensure_profile(caller);
  end if;

  update public.profiles as p
  set last_seen_at = now()
  where p.id = caller
    and p.status = 'active'
    and (p.last_seen_at is null or p.last_seen_at < now() - interval '1 minute');

  select to_jsonb(p) || jsonb_build_object(
    'email', u.email,
    'mature_confirmed_at', s.mature_confirmed_at,
    'topic', s.topic,
    'roles', coalesce((
      select jsonb_agg(r.role order by r.role) from private.app_roles as r where r.user_id = p.id
    ), '[]'::jsonb)
  ) into answer
  from public.profiles as p
  join public.profile_private as s on s.id = p.id
  join auth.users as u on u.id = p.id
  where p.id = caller and p.status <> 'deleted';
  if answer is null then
    raise sqlstate 'PT403' using
      message = 'account_not_active',
      detail  = 'This account is deleted.';
  end if;
  return answer;
end;
$$;

revoke all on function private.me() from public, anon, authenticated, service_role;
grant execute on function private.me() to authenticated;
comment on function private.me() is 'Body of public.me.';

create function public.me()
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.me();
$$;

revoke all on function public.me() from public, anon, authenticated, service_role;
grant execute on function public.me() to authenticated;
comment on function public.me() is
'The caller: every column of their profile, and email, mature_confirmed_at, topic (their private '
'Realtime topic) and roles. Marks them as seen. Raises PT401 sign_in_required, PT403 account_not_active.';

-- Confirms, or takes back, that the caller wants to see mature content.
create function private.confirm_mature_content(confirmed boolean)
returns timestamptz
language plpgsql
volatile
security definer -- the column is not a client's to write, so that the time is the server's
set search_path = ''
as $$
declare
  caller uuid := private.require_active_user();
  confirmed_at timestamptz;
begin
  update public.profile_private as s
  set mature_confirmed_at = case when confirm_mature_content.confirmed then coalesce(s.mature_confirmed_at, now()) end
  where s.id = caller
  returning s.mature_confirmed_at into confirmed_at;
  return confirmed_at;
end;
$$;

revoke all on function private.confirm_mature_content(boolean) from public, anon, authenticated, service_role;
grant execute on function private.confirm_mature_content(boolean) to authenticated;
comment on function private.confirm_mature_content(boolean) is 'Body of public.confirm_mature_content.';

create function public.confirm_mature_content(confirmed boolean default true)
returns timestamptz
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.confirm_mature_content(confirm_mature_content.confirmed);
$$;

revoke all on function public.confirm_mature_content(boolean) from public, anon, authenticated, service_role;
grant execute on function public.confirm_mature_content(boolean) to authenticated;
comment on function public.confirm_mature_content(boolean) is
'Confirms (true) or takes back (false) that the caller wants to see mature content; returns since when. '
'Raises PT401 sign_in_required, PT403 account_not_active.';
