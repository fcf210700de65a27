-- message_feedback: what people think of answers; one row per person and answer, and nobody else's
-- business.
create table public.message_feedback (
  message_id      uuid not null,
  user_id         uuid not null references public.profiles (id) on delete cascade,
  conversation_id uuid not null,
  rating          smallint not null constraint message_feedback_rating_is_up_or_down check (rating in (-1, 1)),
  reason          text not null default '' constraint message_feedback_reason_is_text check (private.is_text(reason, 500)),
  created_at      timestamptz not null default now(),
  updated_at      timestamptz not null default now(),
  constraint message_feedback_pkey primary key (message_id, user_id),
  constraint message_feedback_in_conversation foreign key (conversation_id, message_id)
    references public.messages (conversation_id, id) on delete cascade
);

create index message_feedback_by_message on public.message_feedback (conversation_id, message_id);
create index message_feedback_by_user on public.message_feedback (user_id);
alter table public.message_feedback enable row level security;

revoke all on table public.message_feedback from public, anon, authenticated, service_role;
grant select on table public.message_feedback to authenticated, service_role;
comment on table public.message_feedback is 'What people think of answers; everybody reads their own. Written by rpc rate_message.';
comment on column public.message_feedback.rating is '1 or -1.';

create policy "people can read their own feedback" on public.message_feedback
  for select to authenticated
  using (user_id = (select auth.uid()));

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('public', 'message_feedback', 'user_id', 'delete', 'include');

insert into private.error_codes (code, status, meaning)
values ('message_not_an_answer', 409, 'Only answers are rated.');
