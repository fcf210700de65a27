-- blocks: who does not want to meet whom. A block hides both ways; every later list uses the
-- predicates below. The blocked person cannot see that they are.
create table public.blocks (
  blocker_id uuid not null default auth.uid() references public.profiles (id) on delete cascade,
  blocked_id uuid not null references public.profiles (id) on delete cascade,
  created_at timestamptz not null default now(),
  constraint blocks_pkey primary key (blocker_id, blocked_id),
  constraint blocks_not_oneself check (blocker_id <> blocked_id)
);

create index blocks_by_blocked on public.blocks (blocked_id, blocker_id);

alter table public.blocks enable row level security;

revoke all on table public.blocks from public, anon, authenticated, service_role;
grant select, delete on table public.blocks to authenticated;
grant insert (blocked_id) on table public.blocks to authenticated;
grant select on table public.blocks to service_role;

comment on table public.blocks is 'Who has blocked whom; hides both from each other everywhere.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export) values
  ('public', 'blocks', 'blocker_id', 'delete', 'include'),
  ('public', 'blocks', 'blocked_id', 'delete', 'exclude');

-- Everybody the caller has blocked or is blocked by, once per statement: write
-- `x not in (select private.blocked_user_ids())`.
-- Runs as its owner, since the caller may not see who blocked them.
create function private.blocked_user_ids()
returns setof uuid
language sql
stable
security definer
set search_path = ''
rows 10
as $$
  select b.blocked_id from public.blocks as b where b.blocker_id = (select auth.uid())
  union all
  select b.blocker_id from public.blocks as b where b.blocked_id = (select auth.uid());
$$;

revoke all on function private.blocked_user_ids() from public, anon, authenticated, service_role;
grant execute on function private.blocked_user_ids() to anon, authenticated, service_role;
comment on function private.blocked_user_ids() is 'Ids of everybody hidden from the caller by a block in either direction.';

-- Whether either of two people has blocked the other. For single rows and other functions.
create function private.is_blocked_between(a uuid, b uuid)
returns boolean
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  return exists (
    select from public.blocks as x
    where (x.blocker_id = a and x.blocked_id = b) or (x.blocker_id = b and x.blocked_id = a)
  );
end;
$$;

revoke all on function private.is_blocked_between(uuid, uuid) from public, anon, authenticated, service_role;
comment on function private.is_blocked_between(uuid, uuid) is 'True when either of two people has blocked the other.';
