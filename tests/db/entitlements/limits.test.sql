-- Limits on what people keep: characters and bytes of files.
begin;
select plan(20);
select tests.create_supabase_user('alice');
select tests.create_supabase_user('bob');
create temporary table people as select name, tests.get_supabase_uid(name) as id from unnest(array['alice', 'bob']) as name;
grant select on people to public;
create function pg_temp.id_of(who text) returns uuid language sql stable as $$ select p.id from people as p where p.name = who $$;
update public.plans set max_characters = 2, storage_bytes = 1000 where id = 'free';

select tests.authenticate_as('alice');
select lives_ok($$ insert into public.characters (name, age) values ('One', 30) $$, 'a person makes a character');
select throws_ok(
  $$ insert into public.characters (name, age) values ('Two', 30), ('Three', 30) $$, 'PT403', 'too_many_characters',
  'not more than the plan allows, also in one statement'
);
select lives_ok($$ insert into public.characters (name, age) values ('Two', 30) $$, 'the last one is allowed');
select throws_ok(
  $$ insert into public.characters (name, age) values ('Three', 30) $$, 'PT403', 'too_many_characters', 'one more is not'
);
select tests.authenticate_as('bob');
select lives_ok($$ insert into public.characters (name, age) values ('One', 30) $$, 'somebody else has room of their own');
select tests.become_postgres();
update public.characters set deleted_at = now() where owner_id = pg_temp.id_of('alice') and name = 'One';
select tests.authenticate_as('alice');
select lives_ok($$ insert into public.characters (name, age) values ('Three', 30) $$, 'a deleted character makes room');
select tests.become_postgres();
select lives_ok(
  $$ insert into public.characters (owner_id, name, age) values (pg_temp.id_of('alice'), 'Four', 30) $$, 'operators are not limited'
);
select throws_ok(
  $$ select private.require_room_for_character(pg_temp.id_of('alice')) $$, 'PT403', 'too_many_characters',
  'functions that make characters for a person are'
);
select admin.set_plan(pg_temp.id_of('alice'), 'enterprise');
select lives_ok($$ select private.require_room_for_character(pg_temp.id_of('alice')) $$, 'a larger plan has more room');
select admin.set_plan(pg_temp.id_of('alice'), 'free');

-- Files: their rows as Storage writes them.
create function pg_temp.put(who text, file text, size integer) returns text language plpgsql as $$
begin
  insert into storage.objects (bucket_id, name, owner_id, metadata)
  values ('avatars', pg_temp.id_of(who) || '/' || file, pg_temp.id_of(who), case when size is null then '{}' else jsonb_build_object('size', size) end)
  on conflict (bucket_id, name) do update set metadata = excluded.metadata;
  return 'kept';
exception when sqlstate 'PT413' then
  return sqlerrm;
end;
$$;
create function pg_temp.bytes(who text) returns bigint language sql stable as $$
  select s.bytes from private.storage_usage as s where s.user_id = pg_temp.id_of(who);
$$;
select is(pg_temp.put('alice', 'a.png', 600), 'kept', 'a file is kept');
select is(pg_temp.put('alice', 'b.png', 401), 'storage_full', 'one that is too much is refused');
select is(pg_temp.bytes('alice'), 600::bigint, 'and not counted');
select is(pg_temp.put('alice', 'b.png', 400), 'kept', 'up to the last byte');
select is(pg_temp.put('alice', 'c.png', null), 'storage_full', 'then Storage''s question for permission is answered with no');
select is(pg_temp.put('alice', 'a.png', 100), 'kept', 'a smaller file in the place of another');
select is(pg_temp.bytes('alice'), 500::bigint, 'gives bytes back');
select is(pg_temp.put('bob', 'a.png', 1000), 'kept', 'somebody else has room of their own');
select set_config('storage.allow_delete_query', 'true', true);
delete from storage.objects where name = pg_temp.id_of('alice') || '/b.png';
select is(pg_temp.bytes('alice'), 100::bigint, 'so does a deleted file');
insert into storage.objects (bucket_id, name, owner_id, metadata) values ('avatars', 'default/x.png', null, '{"size": 5000}');
select is(
  (select sum(bytes) from private.storage_usage where user_id in (pg_temp.id_of('alice'), pg_temp.id_of('bob'))), 1100::numeric,
  'files of nobody count for nobody'
);
update public.plans set storage_bytes = null where id = 'free';
select is(pg_temp.put('alice', 'd.png', 100000), 'kept', 'no limit is no limit');

select * from finish();
rollback;
