-- conversation_summaries: what was said in a branch up to a message, told shortly, for prompts that
-- have no room for all of it. It holds for every branch that contains the message.
create table public.conversation_summaries (
  conversation_id uuid not null references public.conversations (id) on delete cascade,
  message_id      uuid not null,
  content         text not null constraint conversation_summaries_content_is_bounded
    check (content ~ '\S' and octet_length(content) <= 65536),
  model_id        text references public.ai_models (id) on update cascade on delete set null,
  created_at      timestamptz not null default clock_timestamp(),
  constraint conversation_summaries_pkey primary key (conversation_id, message_id),
  constraint conversation_summaries_message_in_conversation foreign key (conversation_id, message_id)
    references public.messages (conversation_id, id) on delete cascade
);

create index conversation_summaries_by_model on public.conversation_summaries (model_id);
alter table public.conversation_summaries enable row level security;

revoke all on table public.conversation_summaries from public, anon, authenticated, service_role;
grant select on table public.conversation_summaries to authenticated, service_role;
comment on table public.conversation_summaries is
'Summaries of branches, made by a job when a branch outgrows the model; used in prompts, readable by participants.';
comment on column public.conversation_summaries.message_id is 'The summary tells the branch up to and including this message.';
comment on column public.conversation_summaries.model_id is 'The model that wrote it; null once that is gone.';

create policy "participants can read summaries" on public.conversation_summaries
  for select to authenticated
  using (conversation_id = any ((select private.my_conversation_ids())::uuid[]));

-- What was taken out of a conversation is not told on: the summaries that may tell it go with it.
-- Runs as its owner, whoever empties a message.
create function private.tg_messages__forget_summaries()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  delete from public.conversation_summaries as s
  using public.messages as m
  where s.conversation_id = new.conversation_id
    and m.conversation_id = s.conversation_id and m.id = s.message_id
    and m.depth >= new.depth;
  return null;
end;
$$;

create trigger _500_forget_summaries after update of content on public.messages
  for each row when (old.content <> '' and new.content = '')
  execute function private.tg_messages__forget_summaries();

revoke all on function private.tg_messages__forget_summaries() from public, anon, authenticated, service_role;
