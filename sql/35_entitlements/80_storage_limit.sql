-- storage_usage: bytes of each person's files, kept by a trigger on Storage's rows, so that no upload has
-- to add up what is there. Files that a function made belong to nobody and count for nobody.
create table private.storage_usage (
  user_id uuid primary key references public.profiles (id) on delete cascade,
  bytes   bigint not null constraint storage_usage_bytes_not_negative check (bytes >= 0)
);

revoke all on table private.storage_usage from public, anon, authenticated, service_role;
comment on table private.storage_usage is 'Bytes of the files that each person has uploaded.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('private', 'storage_usage', 'user_id', 'delete', 'exclude');
insert into private.error_codes (code, status, meaning) values
  ('storage_full', 413, 'The file would take the person beyond the bytes that the plan allows.');

-- Adds bytes (negative: takes them away) to what a person has, and refuses what is more than the plan allows.
-- Storage asks for permission with a row of no size, before it takes the file: with nothing left it is refused too.
create function private.count_storage(user_id uuid, bytes bigint, is_new boolean)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  most bigint;
  used bigint;
begin
  insert into private.storage_usage as s (user_id, bytes)
  select p.id, greatest(0, count_storage.bytes) from public.profiles as p where p.id = count_storage.user_id
  on conflict on constraint storage_usage_pkey do update set bytes = greatest(0, s.bytes + count_storage.bytes)
  returning s.bytes into used;
  if count_storage.bytes > 0 or count_storage.is_new then
    most := (private.entitlements_of(count_storage.user_id)).storage_bytes;
    if used > most or (count_storage.bytes = 0 and used = most) then
      raise sqlstate 'PT413' using
        message = 'storage_full',
        detail  = 'The file would take you beyond the storage that your plan allows.',
        hint    = 'Delete files, or choose a larger plan.';
    end if;
  end if;
end;
$$;

-- Runs as its owner: Storage writes as roles that have no rights here.
create function private.tg_objects__count_bytes()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
declare
  gone  bigint := case when tg_op <> 'INSERT' then coalesce((old.metadata ->> 'size')::bigint, 0) else 0 end;
  added bigint := case when tg_op <> 'DELETE' then coalesce((new.metadata ->> 'size')::bigint, 0) else 0 end;
begin
  if tg_op = 'UPDATE' and old.owner_id is not distinct from new.owner_id then
    perform private.count_storage(new.owner_id::uuid, added - gone, false) where added <> gone;
    return null;
  end if;
  if tg_op <> 'INSERT' then
    perform private.count_storage(old.owner_id::uuid, -gone, false);
  end if;
  if tg_op <> 'DELETE' then
    perform private.count_storage(new.owner_id::uuid, added, true);
  end if;
  return null;
end;
$$;

create or replace trigger _500_parlor_count_bytes_of_new after insert on storage.objects
  for each row when (new.owner_id is not null) execute function private.tg_objects__count_bytes();
create or replace trigger _500_parlor_count_bytes_of_changed after update on storage.objects
  for each row when (old.metadata is distinct from new.metadata or old.owner_id is distinct from new.owner_id)
  execute function private.tg_objects__count_bytes();
create or replace trigger _500_parlor_count_bytes_of_old after delete on storage.objects
  for each row when (old.owner_id is not null) execute function private.tg_objects__count_bytes();

revoke all on function private.count_storage(uuid, bigint, boolean), private.tg_objects__count_bytes()
  from public, anon, authenticated, service_role;
