-- owned_data: for every column that ties a row to a person, what deletion and export do with it.
-- One list drives both, and a test fails when a table with an owner is missing from it.
create table private.owned_data (
  schema_name  text not null,
  table_name   text not null,
  owner_column text not null,
  on_delete    text not null constraint owned_data_on_delete_known
    check (on_delete in ('cascade', 'delete', 'detach', 'keep', 'job')),
  on_export    text not null constraint owned_data_on_export_known
    check (on_export in ('include', 'exclude')),
  constraint owned_data_pkey primary key (schema_name, table_name, owner_column)
);

revoke all on table private.owned_data from public, anon, authenticated, service_role;
comment on table private.owned_data is
'What deletion and export of an account do with each column that names a person.';
comment on column private.owned_data.on_delete is
'cascade: the foreign key removes the row with the user. delete: the tombstone transaction removes the row. '
'detach: the row stays, nameless. keep: the row stays as it is (books). job: the erase job removes what it points to.';
comment on column private.owned_data.on_export is 'include: the rows are part of a person''s export; exclude: they are not.';
