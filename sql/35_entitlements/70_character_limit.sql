-- How many characters a person may have. People meet it in the policy on inserts, functions that make
-- characters for somebody call private.require_room_for_character; operators are not limited.
insert into private.error_codes (code, status, meaning) values
  ('too_many_characters', 403, 'The person has as many characters as the plan allows.');

-- Refuses when a person has as many characters as they may have. Their usage stays locked, so that of two
-- at once one is counted before the other.
create function private.require_room_for_character(owner_id uuid)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  most integer := (private.entitlements_of(require_room_for_character.owner_id)).max_characters;
begin
  if most is null then
    return;
  end if;
  perform private.lock_usage(require_room_for_character.owner_id);
  if (
    select count(*)
    from (
      select from public.characters as c
      where c.owner_id = require_room_for_character.owner_id and c.deleted_at is null
      limit most
    ) as present
  ) >= most
  then
    raise sqlstate 'PT403' using
      message = 'too_many_characters',
      detail  = 'You have as many characters as your plan allows.',
      hint    = 'Delete one, or choose a larger plan.';
  end if;
end;
$$;

-- The same for the policy on inserts: true, or the refusal. The account is held first, as the lock order has it.
-- Runs as its owner: plans are internal.
create function private.has_room_for_character()
returns boolean
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  if not private.holds_active_account() then
    return false;
  end if;
  perform private.require_room_for_character((select auth.uid()));
  return true;
end;
$$;

revoke all on function private.require_room_for_character(uuid), private.has_room_for_character()
  from public, anon, authenticated, service_role;
grant execute on function private.has_room_for_character() to authenticated;
comment on function private.require_room_for_character(uuid) is
'Refuses when a person has as many characters as their plan allows. Raises PT403 too_many_characters.';
comment on function private.has_room_for_character() is
'True when the caller''s account is active and the plan allows one more character. Raises PT403 too_many_characters.';
