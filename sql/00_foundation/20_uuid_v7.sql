-- A UUID version 7 (RFC 9562, section 5.7; method 3 of section 6.2): 48 bits of milliseconds,
-- 12 bits of the fraction of the millisecond, 62 random bits. Ids made one after the other by one
-- server sort in that order down to the microsecond, so a primary key is also a keyset cursor.
-- `at` exists for tests and backfills; no caller outside `private` passes it.
-- plpgsql, like the other functions that every write calls: with a search_path of its own a SQL
-- function is never inlined and is planned anew at every call (90 against 10 microseconds).
create function private.uuid_v7(at timestamptz default clock_timestamp())
returns uuid
language plpgsql
volatile
parallel safe
security invoker
set search_path = ''
as $$
declare
  us bigint := floor(extract(epoch from uuid_v7.at) * 1000000)::bigint;
begin
  return encode(
    substring(int8send(us / 1000) from 3)
      -- Version 7 in the high nibble, then the microseconds scaled to 12 bits.
      || substring(int4send((28672 + (us % 1000) * 4096 / 1000)::integer) from 3)
      -- A random UUID already carries the variant bits in its ninth byte.
      || substring(uuid_send(gen_random_uuid()) from 9),
    'hex'
  )::uuid;
end;
$$;

revoke all on function private.uuid_v7(timestamptz) from public, anon, authenticated, service_role;
-- Column defaults are evaluated with the rights of the role that inserts.
grant execute on function private.uuid_v7(timestamptz) to anon, authenticated, service_role;
comment on function private.uuid_v7(timestamptz) is 'UUID version 7 of RFC 9562, ordered by time to the microsecond.';
