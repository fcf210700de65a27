-- The files of a deleted character are noted until Storage has removed them.
begin;
select plan(10);
select tests.create_supabase_user('ada');
create temporary table seen (name text primary key, id uuid);
grant select, insert on seen to authenticated, service_role;
create function pg_temp.file(name text) returns text language sql as $$
  select tests.get_supabase_uid('ada') || '/' || file.name;
$$;
insert into storage.objects (bucket_id, name, owner_id)
select bucket, pg_temp.file(name), tests.get_supabase_uid('ada')
from (values ('avatars', 'a.png'), ('avatars', 'me.png'), ('character-media', 'b.png')) as f (bucket, name);

select tests.authenticate_as('ada');
insert into public.characters (name, age, avatar_path) values
  ('One', 30, auth.uid() || '/a.png'), ('Two', 30, auth.uid() || '/a.png'), ('Me', 30, auth.uid() || '/me.png'), ('Plain', 30, null);
insert into seen select name, id from public.characters;
insert into public.character_media (character_id, path) select id, auth.uid() || '/b.png' from seen where name = 'One';
select throws_ok(
  $$ insert into public.character_media (character_id, path) select id, auth.uid() || '/none.png' from seen where name = 'One' $$,
  'PT422', 'media_file_missing', 'a character shows files that are there'
);
update public.profiles set avatar_path = auth.uid() || '/me.png' where id = auth.uid();
select public.delete_character(id) from seen where name in ('One', 'Me', 'Plain');

select tests.become_postgres();
select results_eq(
  $$ select s.name from private.job_work as w join public.jobs as j on j.id = w.job_id and j.kind = 'erase_character'
    join seen as s on s.id = (w.payload ->> 'character_id')::uuid order by 1 $$,
  $$ values ('Me'), ('One') $$, 'a job removes the files of a character that has some'
);
select tests.authenticate_as_service_role();
prepare left_of (text) as select service.character_files_left(id) from seen where name = $1;
select results_eq(
  $$ execute left_of ('One') $$,
  $$ select jsonb_build_array(jsonb_build_object('bucket', 'character-media', 'path', pg_temp.file('b.png'))) $$,
  'without those that another character shows'
);
select results_eq($$ execute left_of ('Me') $$, $$ values ('[]'::jsonb) $$, 'nor the picture of their owner');
select results_eq($$ execute left_of ('Plain') $$, $$ values ('[]'::jsonb) $$, 'of one without files there are none');
select results_eq(
  $$ execute left_of ('One') $$, $$ execute left_of ('One') $$, 'asking twice changes nothing while the file is there'
);
select throws_ok(
  $$ select * from private.character_files $$, '42501', null, 'runners read no table'
);

select tests.become_postgres();
set local storage.allow_delete_query = 'true';
delete from storage.objects where name = pg_temp.file('b.png');
select tests.authenticate_as_service_role();
select results_eq($$ execute left_of ('One') $$, $$ values ('[]'::jsonb) $$, 'what is gone is not asked for again');
select tests.become_postgres();
select is_empty($$ select 1 from private.character_files $$, 'nor remembered');
select tests.authenticate_as('ada');
select public.delete_character(id) from seen where name = 'Two';
select tests.become_postgres();
select results_eq(
  $$ select path from private.character_files $$, $$ select pg_temp.file('a.png') $$, 'the last character that shows a file takes it along'
);

select * from finish();
rollback;
