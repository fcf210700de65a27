-- Rates an answer, or takes the rating back. Runs as its owner: feedback is written by this function only.
create function private.rate_message(message_id uuid, rating integer, reason text)
returns public.message_feedback
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  caller uuid := private.hold_active_user();
  talk   public.conversations;
  target public.messages;
  given  public.message_feedback;
begin
  select c.* into talk
  from public.conversations as c
  where c.id = private.conversation_of(rate_message.message_id, caller);
  target := private.living_message(talk, rate_message.message_id);
  if target.role <> 'assistant' then
    raise sqlstate 'PT409' using message = 'message_not_an_answer', detail = 'Only answers are rated.';
  end if;

  if rate_message.rating is null then
    delete from public.message_feedback as f where f.message_id = target.id and f.user_id = caller;
    given.message_id := target.id;
    given.user_id := caller;
    given.conversation_id := talk.id;
    return given;
  end if;
  insert into public.message_feedback as f (message_id, user_id, conversation_id, rating, reason)
  values (target.id, caller, talk.id, rate_message.rating, coalesce(rate_message.reason, ''))
  on conflict on constraint message_feedback_pkey do update
    set rating = excluded.rating, reason = excluded.reason, updated_at = clock_timestamp()
  returning f.* into given;
  return given;
end;
$$;

create function public.rate_message(message_id uuid, rating integer, reason text default '')
returns public.message_feedback
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.rate_message(rate_message.message_id, rate_message.rating, rate_message.reason);
$$;

revoke all on function private.rate_message(uuid, integer, text), public.rate_message(uuid, integer, text)
  from public, anon, authenticated, service_role;
grant execute on function private.rate_message(uuid, integer, text), public.rate_message(uuid, integer, text)
  to authenticated;
comment on function public.rate_message(uuid, integer, text) is
'Rates an answer 1 or -1, with a reason of at most 500 characters if you like, in place of an earlier rating; null takes the '
'rating back and returns the row without one. Everybody in the conversation may. Raises PT404 message_not_found, '
'PT409 message_not_an_answer.';
