-- Announces each change of a document in the outbox, in the same transaction: ids and names only,
-- since consumers read what they need.
-- Runs as its owner, since the outbox is nobody's to write.
create function private.tg_documents__announce()
returns trigger
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  document public.documents := coalesce(new, old);
begin
  perform private.emit_event(
    case tg_op when 'INSERT' then 'document.created' when 'UPDATE' then 'document.updated' else 'document.deleted' end,
    document.id,
    jsonb_build_object('id', document.id, 'collection', document.collection, 'version', document.version),
    document.owner_id
  );
  return null;
end;
$$;

revoke all on function private.tg_documents__announce() from public, anon, authenticated, service_role;
comment on function private.tg_documents__announce() is
'Trigger: emits document.created, document.updated or document.deleted.';

create trigger _900_announce after insert or update or delete on public.documents
  for each row execute function private.tg_documents__announce();
