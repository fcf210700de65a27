-- Takes the text away from messages of people that moderation refused after they were stored: the one that
-- an answer would have been to, and earlier ones that no model has answered. They stay in the tree, and no
-- later prompt has them either.
create function private.refuse_messages(conversation_id uuid, message_ids uuid[])
returns void
language sql
volatile
security invoker
set search_path = ''
as $$
  update public.messages as m
  set content = '', finish_reason = 'content_refused'
  where m.conversation_id = refuse_messages.conversation_id
    and m.id = any (refuse_messages.message_ids)
    and m.deleted_at is null
    and (m.role = 'user' or m.author_id is not null);
$$;

revoke all on function private.refuse_messages(uuid, uuid[]) from public, anon, authenticated, service_role;
