-- documents: application data of a person, in named collections. The smallest complete domain,
-- and the model for others.
create table public.documents (
  id         uuid primary key default private.uuid_v7(),
  owner_id   uuid not null default auth.uid() references public.profiles (id) on delete cascade,
  collection text not null
    constraint documents_collection_is_name check (collection ~ '^[a-z][a-z0-9_-]{0,62}$'),
  data       jsonb not null
    constraint documents_data_is_small_object check (private.is_json_object(data, 262144, 32)),
  version    integer not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

-- Ids are made in time order, so this one index serves equality, keyset pages in both directions
-- and offset pages. Clients cannot choose an id.
create index documents_by_owner_and_collection on public.documents (owner_id, collection, id);

alter table public.documents enable row level security;

-- No update: a change goes through update_document, which compares the version.
revoke all on table public.documents from public, anon, authenticated, service_role;
grant select, delete on table public.documents to authenticated;
grant insert (collection, data) on table public.documents to authenticated;
grant select on table public.documents to service_role;

comment on table public.documents is
'Application data of a person, in named collections. Insert, select and delete here; change with '
'rpc update_document. Page with order=id and id=gt.<last id>.';
comment on column public.documents.id is 'UUID version 7: sorts by creation, and is the keyset cursor.';
comment on column public.documents.collection is 'Lower case name, at most 63 of a-z, 0-9, _ and -.';
comment on column public.documents.data is 'A JSON object of at most 262144 octets as text and 32 levels.';
comment on column public.documents.version is 'Starts at 1 and grows by 1 with each change.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('public', 'documents', 'owner_id', 'delete', 'include');

create policy "owners can read their documents" on public.documents
  for select to authenticated
  using (owner_id = (select auth.uid()));

create policy "active owners can add documents" on public.documents
  for insert to authenticated
  with check (owner_id = (select auth.uid()) and (select private.holds_active_account()));

create policy "owners can delete their documents" on public.documents
  for delete to authenticated
  using (owner_id = (select auth.uid()));
