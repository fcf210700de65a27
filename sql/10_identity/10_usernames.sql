-- Usernames: 3 to 30 of a-z, 0-9 and underscore, unique for ever. A name that somebody gave up, or
-- that an erased account had, is reserved, so that nobody can pass for them.
create table private.reserved_usernames (
  username    text primary key,
  reason      text not null constraint reserved_usernames_reason_known check (reason in ('system', 'retired')),
  user_id     uuid references auth.users (id) on delete set null,
  reserved_at timestamptz not null default now()
);

create index reserved_usernames_by_user on private.reserved_usernames (user_id, reserved_at);

revoke all on table private.reserved_usernames from public, anon, authenticated, service_role;
comment on table private.reserved_usernames is 'Names that nobody can take, save the person who had one before.';
comment on column private.reserved_usernames.user_id is 'Who had the name; they alone can take it back.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('private', 'reserved_usernames', 'user_id', 'detach', 'exclude');

insert into private.reserved_usernames (username, reason)
select unnest(array[
  'about', 'account', 'admin', 'administrator', 'anonymous', 'api', 'assistant', 'auth', 'billing', 'blog',
  'bot', 'deleted', 'everyone', 'guest', 'help', 'here', 'login', 'logout', 'me', 'moderator', 'null',
  'official', 'parlor', 'postmaster', 'root', 'security', 'settings', 'signup', 'staff', 'status',
  'support', 'sysadmin', 'system', 'undefined', 'user', 'webmaster', 'www'
]), 'system';

-- One spelling for names that look the same: compatibility characters folded (NFKC), lower case.
create function private.normalize_username(username text)
returns text
language sql
immutable
parallel safe
security invoker
set search_path = ''
as $$
  select lower(normalize(btrim(username), NFKC));
$$;

revoke all on function private.normalize_username(text) from public, anon, authenticated, service_role;
comment on function private.normalize_username(text) is 'A username as it is stored: trimmed, NFKC, lower case.';

-- A username for a new account from what stands before the @, accents dropped; without an e-mail,
-- `user`. At most 22 characters, so that a suffix of a new account always fits.
create function private.username_base(email text)
returns text
language sql
immutable
parallel safe
security invoker
set search_path = ''
as $$
  select case when char_length(t.base) >= 3 then t.base else rtrim('user_' || t.base, '_') end
  from (
    select btrim(
      left(
        regexp_replace(
          -- NFKD splits an accented letter into letter and mark; the mark goes, the letter stays.
          regexp_replace(lower(normalize(split_part(coalesce(email, ''), '@', 1), NFKD)), '[\u0300-\u036f]', '', 'g'),
          '[^a-z0-9]+', '_', 'g'
        ),
        22
      ),
      '_'
    ) as base
  ) as t;
$$;

revoke all on function private.username_base(text) from public, anon, authenticated, service_role;
comment on function private.username_base(text) is 'A valid username from an e-mail prefix, not yet checked for being free.';

-- Names are handed out and given up under a lock per name: without it, a name could be taken in the
-- moment in which its holder's retirement is not yet committed.
create function private.lock_username(username text)
returns void
language sql
volatile
security invoker
set search_path = ''
as $$
  select pg_advisory_xact_lock(hashtextextended('username:' || username, 0));
$$;

revoke all on function private.lock_username(text) from public, anon, authenticated, service_role;
comment on function private.lock_username(text) is 'Holds one username until the transaction ends.';
