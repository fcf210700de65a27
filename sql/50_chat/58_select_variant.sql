-- Shows another branch: the one through a message, and below it where it was left last.
-- Runs as its owner: conversations are written by functions only.
create function private.select_variant(message_id uuid)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  caller uuid := private.hold_active_user();
  talk   public.conversations;
  choice record;
begin
  talk := private.hold_to_write(private.conversation_of(select_variant.message_id, caller), caller);
  if exists (select from public.messages as m where m.id = select_variant.message_id and m.is_gone) then
    raise sqlstate 'PT404' using
      message = 'message_not_found',
      detail  = 'The message was deleted, and nothing stands below it.';
  end if;

  choice := private.choose_message(talk, select_variant.message_id);
  if choice.leaf_id is distinct from talk.active_leaf_id then
    update public.conversations as c
    set active_leaf_id = choice.leaf_id
    where c.id = talk.id
    returning c.* into talk;
    perform private.announce_branch(talk, choice.shared_id);
  end if;
  return jsonb_build_object('conversation_id', talk.id, 'after_id', choice.shared_id, 'active_leaf_id', talk.active_leaf_id);
end;
$$;

create function public.select_variant(message_id uuid)
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.select_variant(select_variant.message_id);
$$;

revoke all on function private.select_variant(uuid), public.select_variant(uuid)
  from public, anon, authenticated, service_role;
grant execute on function private.select_variant(uuid), public.select_variant(uuid) to authenticated;
comment on function public.select_variant(uuid) is
'Shows the branch through this message, for everybody, down to where it was left last. Answers {conversation_id, after_id, '
'active_leaf_id}: what is shown up to after_id stays. Raises PT404 message_not_found, PT404 conversation_not_found, '
'PT403 conversation_read_only.';
