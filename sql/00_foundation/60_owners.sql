-- owners: who money and receipts belong to. An owner outlives the account, nameless, so that an
-- account can be erased and the books stay.
create table private.owners (
  id         uuid primary key default private.uuid_v7(),
  user_id    uuid constraint owners_one_per_user unique references auth.users (id) on delete set null,
  created_at timestamptz not null default now()
);

revoke all on table private.owners from public, anon, authenticated, service_role;
comment on table private.owners is 'Who books belong to; user_id becomes null when the account is erased.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('private', 'owners', 'user_id', 'detach', 'exclude');

-- The owner of a user, made on first use. Safe to call from two sessions at once.
create function private.owner_of(user_id uuid)
returns uuid
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  owner uuid;
begin
  select o.id into owner from private.owners as o where o.user_id = owner_of.user_id;
  if found then
    return owner;
  end if;

  insert into private.owners (user_id)
  values (owner_of.user_id)
  on conflict on constraint owners_one_per_user do nothing;

  select o.id into strict owner from private.owners as o where o.user_id = owner_of.user_id;
  return owner;
end;
$$;

revoke all on function private.owner_of(uuid) from public, anon, authenticated, service_role;
comment on function private.owner_of(uuid) is 'The id in private.owners of a user, made on first use.';
