-- The bucket `character-media`: files of characters, written by each person in the folder of their id.
-- It is not public: whoever may see a character by its id may read the files that it shows, by their
-- names; nobody lists another's folder.
insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types)
values (
  'character-media', 'character-media', false, 20971520,
  array['image/png', 'image/jpeg', 'image/webp', 'image/gif', 'image/avif', 'video/mp4', 'video/webm']
)
on conflict (id) do update
set public = excluded.public,
  file_size_limit = excluded.file_size_limit,
  allowed_mime_types = excluded.allowed_mime_types;

-- Whether a file is shown by a character that the caller may see by its id. Runs as its owner: a policy
-- names no other table with row level security.
create function private.may_see_media(path text)
returns boolean
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  return exists (
    select from public.character_media as m
    join public.characters as c on c.id = m.character_id
    where m.path = may_see_media.path
      and c.deleted_at is null
      and c.hidden_at is null
      and c.visibility <> 'private'
      and (not c.is_mature or private.sees_mature_content())
      and not private.is_blocked_between(c.owner_id, (select auth.uid()))
  );
end;
$$;

revoke all on function private.may_see_media(text) from public, anon, authenticated, service_role;
grant execute on function private.may_see_media(text) to anon, authenticated;
comment on function private.may_see_media(text) is
'True when a character that the caller may see by its id shows this file of the bucket `character-media`.';

-- Storage names what it does: reading a file and signing an address for it are allowed, listing is not.
create policy "visitors can read files of characters they may see" on storage.objects
  for select to anon
  using (
    bucket_id = 'character-media'
    and storage.operation() in (
      'storage.object.get_authenticated', 'storage.object.get_authenticated_info', 'storage.object.sign',
      'storage.object.sign_many'
    )
    and private.may_see_media(name)
  );

create policy "people can read their files and those of characters they may see" on storage.objects
  for select to authenticated
  using (
    bucket_id = 'character-media'
    and (
      (storage.foldername(name))[1] = (select auth.uid())::text
      or (
        storage.operation() in (
          'storage.object.get_authenticated', 'storage.object.get_authenticated_info', 'storage.object.sign',
          'storage.object.sign_many'
        )
        and private.may_see_media(name)
      )
    )
  );

create policy "active people can add files of characters" on storage.objects
  for insert to authenticated
  with check (
    bucket_id = 'character-media'
    and (storage.foldername(name))[1] = (select auth.uid())::text
    and (select private.is_active_user())
  );

create policy "active people can replace their files of characters" on storage.objects
  for update to authenticated
  using (bucket_id = 'character-media' and (storage.foldername(name))[1] = (select auth.uid())::text)
  with check (
    bucket_id = 'character-media'
    and (storage.foldername(name))[1] = (select auth.uid())::text
    and (select private.is_active_user())
  );

create policy "people can delete their files of characters" on storage.objects
  for delete to authenticated
  using (bucket_id = 'character-media' and (storage.foldername(name))[1] = (select auth.uid())::text);

-- A row shows a file that is there. Asked after the policies and constraints, so that nobody learns of
-- files in another's folder. Runs as its owner: Storage's table is read whatever the caller may list.
create function private.tg_character_media__require_file()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  if not exists (
    select from storage.objects as o where o.bucket_id = 'character-media' and o.name = new.path
  ) then
    raise sqlstate 'PT422' using
      message = 'media_file_missing',
      detail  = 'There is no file at this path of the bucket character-media.',
      hint    = 'Upload the file, then add its row.';
  end if;
  return null;
end;
$$;

revoke all on function private.tg_character_media__require_file() from public, anon, authenticated, service_role;

create trigger _200_require_file after insert on public.character_media
  for each row execute function private.tg_character_media__require_file();

insert into private.error_codes (code, status, meaning) values
  ('media_file_missing', 422, 'A row of character_media names a file that is not in the bucket.');
