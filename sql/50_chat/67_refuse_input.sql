-- Takes the text away from the message that an answer would have been to, because moderation refused
-- it after it was stored. The message itself stays in the tree, and prompts leave it out.
create function private.refuse_input(answer_id uuid)
returns void
language sql
volatile
security invoker
set search_path = ''
as $$
  update public.messages as m
  set content = '', finish_reason = 'content_refused'
  from public.messages as a
  where a.id = refuse_input.answer_id and m.conversation_id = a.conversation_id and m.id = a.parent_id and m.role = 'user';
$$;

revoke all on function private.refuse_input(uuid) from public, anon, authenticated, service_role;
