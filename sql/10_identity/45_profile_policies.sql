-- Who reads and changes profiles.
create policy "anybody can read active profiles that no block hides" on public.profiles
  for select to anon, authenticated
  using (
    id = (select auth.uid())
    or (status = 'active' and id not in (select private.blocked_user_ids()))
  );

create policy "people can update their profile" on public.profiles
  for update to authenticated
  using (id = (select auth.uid()) and status = 'active' and (select private.is_active_user()))
  with check (id = (select auth.uid()) and status = 'active');

create policy "people can read their blocks" on public.blocks
  for select to authenticated
  using (blocker_id = (select auth.uid()));

create policy "active people can block others" on public.blocks
  for insert to authenticated
  with check (blocker_id = (select auth.uid()) and (select private.holds_active_account()));

create policy "people can lift their blocks" on public.blocks
  for delete to authenticated
  using (blocker_id = (select auth.uid()));

-- Normalises a new name, and keeps the old one for the person who had it.
-- Runs as its owner, since reserved names are nobody's to read.
create function private.tg_profiles__username()
returns trigger
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  new.username := private.normalize_username(new.username);
  if new.username = old.username then
    return new;
  end if;

  -- Both names, in order, so that two people swapping names cannot deadlock.
  perform private.lock_username(least(old.username, new.username));
  perform private.lock_username(greatest(old.username, new.username));

  if exists (
    select from private.reserved_usernames as r
    where r.username = new.username and r.user_id is distinct from new.id
  ) or exists (select from public.profiles as p where p.username = new.username) then
    raise sqlstate 'PT409' using
      message = 'username_unavailable',
      detail  = 'This username is taken or reserved.',
      hint    = 'Choose another username.';
  end if;

  delete from private.reserved_usernames as r where r.username = new.username;
  if new.status <> 'deleted' and (
    select count(*) from private.reserved_usernames as r
    where r.user_id = new.id and r.reserved_at > now() - interval '30 days'
  ) >= 3 then
    raise sqlstate 'PT429' using
      message = 'username_changed_too_often',
      detail  = 'A person holds at most three former names of the last thirty days.',
      hint    = 'Wait, or go back to a name you had.';
  end if;
  insert into private.reserved_usernames (username, reason, user_id) values (old.username, 'retired', old.id);
  return new;
end;
$$;

revoke all on function private.tg_profiles__username() from public, anon, authenticated, service_role;
comment on function private.tg_profiles__username() is 'Trigger: normalises a new username and reserves the old one.';

create trigger _100_username before update of username on public.profiles
  for each row execute function private.tg_profiles__username();

create function private.tg_profiles__updated_at()
returns trigger
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  new.updated_at := now();
  return new;
end;
$$;

revoke all on function private.tg_profiles__updated_at() from public, anon, authenticated, service_role;
comment on function private.tg_profiles__updated_at() is 'Trigger: stamps updated_at.';

-- Being seen is not a change of the profile, hence the column list.
create trigger _200_updated_at
  before update of username, display_name, avatar_path, bio, status, status_message, locale, did on public.profiles
  for each row execute function private.tg_profiles__updated_at();
