-- What the erase job still has to remove for a deleted account. Files go through the Storage API,
-- which alone removes the bytes; the user through Auth's admin API. Refused for a living account,
-- so that no mistake of a caller erases somebody. Definer: it reads Storage's and Auth's tables.
create function private.erase_plan(user_id uuid, max_files integer)
returns jsonb
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  if exists (select from public.profiles as p where p.id = erase_plan.user_id and p.status <> 'deleted') then
    raise sqlstate 'PT409' using
      message = 'account_not_deleted',
      detail  = 'Only an account that was deleted can be erased.';
  end if;

  return jsonb_build_object(
    'user_id', erase_plan.user_id,
    'files', coalesce((
      select jsonb_agg(jsonb_build_object('bucket', f.bucket_id, 'path', f.name))
      from (
        select o.bucket_id, o.name
        from storage.objects as o
        where o.owner_id = erase_plan.user_id::text
          or (o.bucket_id in ('avatars', 'character-media') and starts_with(o.name, erase_plan.user_id::text || '/'))
        order by o.bucket_id, o.name
        limit erase_plan.max_files
      ) as f
    ), '[]'::jsonb),
    'delete_user', exists (select from auth.users as u where u.id = erase_plan.user_id)
  );
end;
$$;

revoke all on function private.erase_plan(uuid, integer) from public, anon, authenticated, service_role;
grant execute on function private.erase_plan(uuid, integer) to service_role;
comment on function private.erase_plan(uuid, integer) is 'Body of service.erase_plan.';

create function service.erase_plan(user_id uuid, max_files integer default 500)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select private.erase_plan(erase_plan.user_id, erase_plan.max_files);
$$;

revoke all on function service.erase_plan(uuid, integer) from public, anon, authenticated, service_role;
grant execute on function service.erase_plan(uuid, integer) to service_role;
comment on function service.erase_plan(uuid, integer) is
'What is left to erase of a deleted account: {user_id, files: [{bucket, path}], delete_user}. Ask again '
'until files is empty and delete_user is false. Raises PT409 account_not_deleted.';
