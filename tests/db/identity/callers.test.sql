begin;
select plan(5);

-- A token without a user: Auth mints none, a mistake in a function might.
select set_config('request.jwt.claims', '{"role": "authenticated"}', true), set_config('role', 'authenticated', true);
select throws_ok($$ select public.me() $$, 'PT401', 'sign_in_required', 'rpc me needs a user');
select throws_ok($$ select public.confirm_mature_content() $$, 'PT401', 'sign_in_required', 'so does a confirmation');
select throws_ok(
  $$ select public.admin_get_user(gen_random_uuid()) $$, 'PT401', 'sign_in_required', 'and whatever is for admins'
);

-- A token of a user who is gone.
select set_config('request.jwt.claims', jsonb_build_object('sub', gen_random_uuid(), 'role', 'authenticated')::text, true);
select throws_ok($$ select public.me() $$, 'PT403', 'account_not_active', 'an erased user has no profile');
select throws_ok(
  $$ select public.confirm_mature_content() $$, 'PT403', 'account_not_active', 'and confirms nothing'
);

select * from finish();
rollback;
