begin;
select plan(7);
select admin.set_project_url('https://Abc.Supabase.co/');
select tests.create_supabase_user('alice');

create function pg_temp.did() returns text language sql as $$
  select replace(p.did, p.id::text, '<id>') from public.profiles as p where p.id = tests.get_supabase_uid('alice');
$$;

select is(pg_temp.did(), 'did:web:abc.supabase.co:users:<id>', 'a did names the host of the project and the profile');
select admin.set_project_url('http://127.0.0.1:54321');
select is(pg_temp.did(), 'did:web:127.0.0.1%3A54321:users:<id>', 'a port is percent-encoded; a new URL rewrites every did');
select throws_ok($$ select admin.set_project_url('env(SUPABASE_URL)') $$, 'PT422', 'project_url_invalid', 'no URL is refused');
select throws_ok($$ select admin.set_project_url(null) $$, 'PT422', 'project_url_invalid', 'nothing is refused');
select throws_ok($$ select admin.set_project_url('https://x.example/path') $$, 'PT422', 'project_url_invalid', 'a path is refused');
delete from private.settings where key = 'project_url';
select tests.create_supabase_user('bob');
select is(
  (select did from public.profiles where id = tests.get_supabase_uid('bob')), null,
  'without a project URL a person signs up without a did'
);
select admin.set_project_url('https://abc.supabase.co');
select isnt(
  (select did from public.profiles where id = tests.get_supabase_uid('bob')), null, 'and has one when it is set'
);

select * from finish();
rollback;
