begin;
select plan(24);

create function pg_temp.username_for(email text, metadata jsonb default null) returns text language sql as $$
  insert into auth.users (id, aud, role, email, raw_user_meta_data)
  values (gen_random_uuid(), 'authenticated', 'authenticated', username_for.email, username_for.metadata)
  returning (select null::text);
  select p.username from public.profiles as p join auth.users as u on u.id = p.id
  where u.email is not distinct from username_for.email
  order by u.created_at desc, p.id desc limit 1;
$$;

select is(pg_temp.username_for('grace.hopper@navy.example'), 'grace_hopper', 'the username comes from the e-mail prefix');
select is(pg_temp.username_for('Zoë.Ångström+list@x.example'), 'zoe_angstrom_list', 'accents go, letters stay');
select is(pg_temp.username_for('ａｌａｎ@x.example'), 'alan', 'full-width letters are folded');
select is(pg_temp.username_for('x@x.example'), 'user_x', 'a short prefix is made longer');
select matches(pg_temp.username_for('....@x.example'), '^user[0-9a-f]{4}$', 'a prefix of dots falls back to user and a suffix');
select matches(pg_temp.username_for('李小龙@x.example'), '^user[0-9a-f]{4}$', 'a script without a-z falls back too');
select is(
  pg_temp.username_for(repeat('a', 64) || '@x.example'), repeat('a', 22), 'a long prefix is cut'
);
select matches(pg_temp.username_for('admin@x.example'), '^admin[0-9a-f]{4}$', 'a reserved name gets a suffix');
select matches(pg_temp.username_for('grace.hopper@army.example'), '^grace_hopper[0-9a-f]{4}$', 'a taken name gets a suffix');
select matches(
  pg_temp.username_for($$'; drop table profiles; --@x.example$$), '^drop_table_profiles$', 'SQL in an e-mail is letters'
);

-- Without an e-mail: phone and anonymous users.
insert into auth.users (id, aud, role, phone) values ('00000000-0000-4000-b000-000000000001', 'authenticated', 'authenticated', '15550001');
select matches(
  (select username from public.profiles where id = '00000000-0000-4000-b000-000000000001'), '^user[0-9a-f]{4}$',
  'a user without an e-mail has a profile too'
);

-- Metadata is the visitor's own input.
create function pg_temp.name_for(metadata jsonb) returns text language sql as $$
  insert into auth.users (id, aud, role, email, raw_user_meta_data)
  values (gen_random_uuid(), 'authenticated', 'authenticated', 'meta@x.example', name_for.metadata)
  on conflict do nothing;
  select p.display_name from public.profiles as p join auth.users as u on u.id = p.id where u.email = 'meta@x.example';
$$;
create function pg_temp.name_once(metadata jsonb) returns text language plpgsql as $$
declare
  shown text := pg_temp.name_for(metadata);
begin
  delete from auth.users where email = 'meta@x.example';
  delete from private.reserved_usernames where username = 'meta';
  return shown;
end
$$;
select is(pg_temp.name_once('{"full_name": "Grace Hopper"}'), 'Grace Hopper', 'a full name is shown');
select is(pg_temp.name_once('{"name": "  Grace  "}'), 'Grace', 'a name is trimmed');
select is(pg_temp.name_once('{"display_name": "<img src=x onerror=alert(1)>"}'), '<img src=x onerror=alert(1)>', 'HTML stays text');
select is(pg_temp.name_once('{"display_name": {"a": 1}, "name": ["x"]}'), 'meta', 'a name that is no text is ignored');
select is(pg_temp.name_once('{"name": "a\u202eb"}'), 'meta', 'a name that changes direction is ignored');
select is(pg_temp.name_once('{"name": ""}'), 'meta', 'an empty name is ignored');
select is(pg_temp.name_once('[1, 2]'), 'meta', 'metadata that is no object is ignored');
select is(pg_temp.name_once(jsonb_build_object('name', repeat('x', 10000))), repeat('x', 50), 'a long name is cut');
select is(
  pg_temp.name_once('{"role": "admin", "status": "suspended", "id": "x", "roles": ["admin"]}'), 'meta',
  'metadata cannot give a role or a status'
);

-- Never failing a sign-up.
alter table public.profile_private add constraint broken check (false) not valid;
select lives_ok(
  $$ insert into auth.users (id, aud, role, email)
    values ('00000000-0000-4000-b000-000000000002', 'authenticated', 'authenticated', 'late@x.example') $$,
  'a profile that cannot be made does not fail the sign-up'
);
select is_empty(
  $$ select from public.profiles where id = '00000000-0000-4000-b000-000000000002' $$, 'there is no profile then'
);
alter table public.profile_private drop constraint broken;
select set_config('request.jwt.claims', '{"sub": "00000000-0000-4000-b000-000000000002"}', true);
select is(public.me() ->> 'username', 'late', 'rpc me makes it at the first call');
select is(
  (select count(*) from private.outbox where kind = 'user.registered' and user_id = '00000000-0000-4000-b000-000000000002'
    and payload = '{"user_id": "00000000-0000-4000-b000-000000000002", "email": "late@x.example"}'),
  1::bigint, 'user.registered is emitted once'
);

select * from finish();
rollback;
