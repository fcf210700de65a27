-- character_files: what Storage still keeps of deleted characters. Storage alone removes bytes, so a job asks it to,
-- and a row goes once its file is gone; a job that is stopped or comes twice finds what is left.
create table private.character_files (
  character_id uuid not null references public.characters (id) on delete cascade,
  owner_id     uuid not null references public.profiles (id) on delete cascade,
  bucket_id    text not null,
  path         text not null,
  constraint character_files_pkey primary key (character_id, bucket_id, path)
);

create index character_files_by_owner on private.character_files (owner_id);

revoke all on table private.character_files from public, anon, authenticated, service_role;
comment on table private.character_files is 'Files of deleted characters that Storage still has to remove.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('private', 'character_files', 'owner_id', 'delete', 'exclude');

insert into private.job_kinds (kind, max_attempts, is_alarm, priority, meaning)
values ('erase_character', 10, false, 'low', 'Removes the files of a deleted character.');

-- Notes the files of a character that is about to be emptied, and queues the job that removes them.
create function private.erase_files_of(character_id uuid)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  insert into private.character_files (character_id, owner_id, bucket_id, path)
  select c.id, c.owner_id, 'avatars', c.avatar_path
  from public.characters as c
  where c.id = erase_files_of.character_id and c.avatar_path is not null
  union all
  select m.character_id, m.owner_id, 'character-media', m.path
  from public.character_media as m
  where m.character_id = erase_files_of.character_id
  on conflict do nothing;
  if found then
    perform private.enqueue_job(
      'erase_character', null,
      jsonb_build_object('character_id', erase_files_of.character_id),
      dedupe_key => erase_files_of.character_id::text
    );
  end if;
end;
$$;

-- Whether a file of a person is shown elsewhere: by another character, or as their own picture.
create function private.is_shown(owner_id uuid, bucket_id text, path text)
returns boolean
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return case is_shown.bucket_id
    when 'avatars' then
      exists (
        select from public.characters as c
        where c.owner_id = is_shown.owner_id and c.avatar_path = is_shown.path and c.deleted_at is null
      )
      or exists (select from public.profiles as p where p.id = is_shown.owner_id and p.avatar_path = is_shown.path)
    else exists (select from public.character_media as m where m.path = is_shown.path)
  end;
end;
$$;

-- Forgets the files of a deleted character that are gone, or shown elsewhere, and returns those that are left. Definer: it
-- reads Storage's tables, and runners reach none.
create function private.character_files_left(character_id uuid, max_files integer)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  delete from private.character_files as f
  where f.character_id = character_files_left.character_id
    and (
      not exists (select from storage.objects as o where o.bucket_id = f.bucket_id and o.name = f.path)
      or private.is_shown(f.owner_id, f.bucket_id, f.path)
    );
  return coalesce(
    (
      select jsonb_agg(jsonb_build_object('bucket', l.bucket_id, 'path', l.path))
      from (
        select f.bucket_id, f.path
        from private.character_files as f
        where f.character_id = character_files_left.character_id
        order by f.bucket_id, f.path
        limit character_files_left.max_files
      ) as l
    ),
    '[]'
  );
end;
$$;

create function service.character_files_left(character_id uuid, max_files integer default 200)
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.character_files_left(character_files_left.character_id, character_files_left.max_files);
$$;

revoke all on function
  private.erase_files_of(uuid), private.is_shown(uuid, text, text),
  private.character_files_left(uuid, integer), service.character_files_left(uuid, integer)
  from public, anon, authenticated, service_role;
grant execute on function private.character_files_left(uuid, integer), service.character_files_left(uuid, integer)
  to service_role;
comment on function service.character_files_left(uuid, integer) is
'Files of a deleted character that are still to be removed, [{bucket, path}]; those that are gone, or that their owner shows '
'elsewhere, are forgotten. Ask again until there is none.';
