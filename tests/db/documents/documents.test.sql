begin;
select plan(29);
select tests.create_supabase_user('alice');
select tests.create_supabase_user('bob');

select policies_are('public', 'documents', array[
  'owners can read their documents', 'active owners can add documents', 'owners can delete their documents'
]);
select columns_are('public', 'documents', array[
  'id', 'owner_id', 'collection', 'data', 'version', 'created_at', 'updated_at'
]);

create function pg_temp.the_document() returns uuid language sql security definer as $$
  select id from public.documents where collection = 'notes' order by id limit 1;
$$;

select tests.authenticate_as('alice');
select results_eq(
  $$ insert into public.documents (collection, data) values ('notes', '{"title": "<b>x</b>; drop table documents"}')
    returning owner_id, version, data ->> 'title' $$,
  $$ values (tests.get_supabase_uid('alice'), 1, '<b>x</b>; drop table documents') $$,
  'a document belongs to the caller and starts at version 1; SQL and HTML are text'
);
select throws_ok(
  $$ insert into public.documents (owner_id, collection, data) values (tests.get_supabase_uid('bob'), 'notes', '{}') $$,
  '42501', null, 'nobody writes for somebody else'
);
select throws_ok(
  $$ insert into public.documents (id, collection, data) values (gen_random_uuid(), 'notes', '{}') $$, '42501', null,
  'ids are not chosen by clients'
);
select throws_ok(
  $$ insert into public.documents (collection, data) values ('Notes', '{}') $$, '23514', null, 'a collection is lower case'
);
select throws_ok(
  $$ insert into public.documents (collection, data) values ('notes', '[1]') $$, '23514', null, 'data is an object'
);
select throws_ok(
  $$ insert into public.documents (collection, data) values ('notes', null) $$, '23502', null, 'data is not absent'
);
select throws_ok(
  $$ insert into public.documents (collection, data) values ('notes', jsonb_build_object('a', repeat('é', 131072))) $$,
  '23514', null, 'data over 256 KiB is refused'
);
select lives_ok(
  $$ insert into public.documents (collection, data) values ('big', jsonb_build_object('a', repeat('x', 262000))) $$,
  'data under 256 KiB is taken'
);
select throws_ok(
  $$ insert into public.documents (collection, data)
    values ('notes', (repeat('{"a":', 32) || '{}' || repeat('}', 32))::jsonb) $$,
  '23514', null, 'data of 33 levels is refused'
);
select throws_ok(
  $$ update public.documents set data = '{}' where true $$, '42501', null, 'there is no change without a version'
);

select results_eq(
  $$ select version, data from public.update_document(pg_temp.the_document(), 1, '{"title": "y"}') $$,
  $$ values (2, '{"title": "y"}'::jsonb) $$, 'a change with the version that was read gives the next version'
);
select throws_ok(
  $$ select public.update_document(pg_temp.the_document(), 1, '{}') $$, 'PT409', 'document_version_conflict',
  'a change of an older version is a conflict'
);
select throws_ok(
  $$ select public.update_document(pg_temp.the_document(), null, '{}') $$, 'PT409', 'document_version_conflict',
  'a change without a version is a conflict'
);
select throws_ok(
  $$ select public.update_document(gen_random_uuid(), 1, '{}') $$, 'PT404', 'document_not_found', 'an unknown id is absent'
);
select throws_ok(
  $$ select public.update_document(pg_temp.the_document(), 2, '[]') $$, '23514', null, 'a change keeps the shape'
);
select is((select version from public.documents where id = pg_temp.the_document()), 2, 'refusals change nothing');

select tests.authenticate_as('bob');
select is_empty($$ select from public.documents $$, 'a stranger sees none of the owner''s documents');
select throws_ok(
  $$ select public.update_document(pg_temp.the_document(), 2, '{}') $$, 'PT404', 'document_not_found',
  'somebody else''s document looks absent'
);
select is_empty(
  $$ delete from public.documents where id = pg_temp.the_document() returning 1 $$, 'a stranger deletes nothing'
);

select tests.clear_authentication();
select throws_ok($$ select from public.documents $$, '42501', null, 'a visitor reads nothing');
select throws_ok(
  $$ select public.update_document(gen_random_uuid(), 1, '{}') $$, '42501', null, 'a visitor changes nothing'
);
select tests.authenticate_as_service_role();
select isnt_empty($$ select from public.documents $$, 'the service reads');
select throws_ok($$ delete from public.documents where true $$, '42501', null, 'and does not write');

select tests.become_postgres();
select admin.set_account_status(tests.get_supabase_uid('alice'), 'suspended');
select tests.authenticate_as('alice');
select throws_ok(
  $$ insert into public.documents (collection, data) values ('notes', '{}') $$, '42501', null,
  'a suspended owner adds nothing'
);
select throws_ok(
  $$ select public.update_document(pg_temp.the_document(), 2, '{}') $$, 'PT403', 'account_not_active',
  'a suspended owner changes nothing'
);
select isnt_empty(
  $$ delete from public.documents where id = pg_temp.the_document() returning 1 $$, 'but may take their data away'
);

select tests.become_postgres();
select results_eq(
  $$ select kind, payload - 'id' from private.outbox
    where user_id = tests.get_supabase_uid('alice') and payload ->> 'collection' = 'notes' order by id $$,
  $$ values ('document.created', '{"version": 1, "collection": "notes"}'::jsonb),
    ('document.updated', '{"version": 2, "collection": "notes"}'), ('document.deleted', '{"version": 2, "collection": "notes"}') $$,
  'each change is one event'
);

select * from finish();
rollback;
