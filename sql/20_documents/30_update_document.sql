-- Replaces the data of one of the caller's documents, if it still has the version they read.
-- Definer, since clients hold no update grant: a change that does not name the version it replaces
-- would undo somebody else's. The owner is therefore compared here.
create function private.update_document(id uuid, expected_version integer, data jsonb)
returns public.documents
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  caller uuid := private.require_active_user();
  document public.documents;
begin
  select d.* into document
  from public.documents as d
  where d.id = update_document.id and d.owner_id = caller
  for update;
  if not found then
    raise sqlstate 'PT404' using
      message = 'document_not_found',
      detail  = 'There is no such document.';
  end if;
  if document.version is distinct from update_document.expected_version then
    raise sqlstate 'PT409' using
      message = 'document_version_conflict',
      detail  = format('The document has version %s.', document.version),
      hint    = 'Read it again, apply the change, and send the version you read.';
  end if;

  update public.documents as d
  set data = update_document.data, version = d.version + 1, updated_at = now()
  where d.id = document.id
  returning d.* into strict document;
  return document;
end;
$$;

revoke all on function private.update_document(uuid, integer, jsonb) from public, anon, authenticated, service_role;
grant execute on function private.update_document(uuid, integer, jsonb) to authenticated;
comment on function private.update_document(uuid, integer, jsonb) is 'Body of public.update_document.';

create function public.update_document(id uuid, expected_version integer, data jsonb)
returns public.documents
language sql
volatile
security invoker
set search_path = ''
as $$
  select * from private.update_document(update_document.id, update_document.expected_version, update_document.data);
$$;

revoke all on function public.update_document(uuid, integer, jsonb) from public, anon, authenticated, service_role;
grant execute on function public.update_document(uuid, integer, jsonb) to authenticated;
comment on function public.update_document(uuid, integer, jsonb) is
'Replaces data of the caller''s document when its version is still expected_version; returns the '
'document with the next version. Raises PT404 document_not_found, PT409 document_version_conflict.';
