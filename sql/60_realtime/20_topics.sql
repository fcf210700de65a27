-- Who may listen on and write to private topics: one predicate each, for all topics of the product.
-- conversation:<id>:<nonce>        the server's events; nobody may write, so nobody can forge one
-- conversation:<id>:<nonce>:peers  typing and presence among participants, which nobody trusts
-- user:<id>:<nonce>                the server's events for one person
-- Both run as their owner: the caller has no right to look behind a topic that is not theirs.
create function private.may_read_topic(topic text, extension text)
returns boolean
language sql
stable
security definer
set search_path = ''
as $$
  select case split_part(may_read_topic.topic, ':', 1)
    when 'conversation' then exists (
      select
      from public.conversations as c
      join public.conversation_participants as p on p.conversation_id = c.id
      where p.user_id = (select auth.uid())
        and p.state = 'joined'
        and (
          (c.topic = may_read_topic.topic and may_read_topic.extension = 'broadcast')
          or c.peers_topic = may_read_topic.topic
        )
    )
    when 'user' then may_read_topic.extension = 'broadcast' and exists (
      select from public.profile_private as s
      where s.topic = may_read_topic.topic and s.id = (select auth.uid())
    )
    else false
  end
  and private.is_active_user();
$$;

create function private.may_write_topic(topic text, extension text)
returns boolean
language sql
stable
security definer
set search_path = ''
as $$
  select may_write_topic.extension in ('broadcast', 'presence')
    and exists (
      select
      from public.conversations as c
      join public.conversation_participants as p on p.conversation_id = c.id
      where c.peers_topic = may_write_topic.topic
        and p.user_id = (select auth.uid())
        and p.state = 'joined'
    )
    and private.is_active_user();
$$;

revoke all on function private.may_read_topic(text, text), private.may_write_topic(text, text)
  from public, anon, authenticated, service_role;
grant execute on function private.may_read_topic(text, text), private.may_write_topic(text, text) to authenticated;
comment on function private.may_read_topic(text, text) is
'Whether the caller may listen on a private topic; extension is broadcast or presence.';
comment on function private.may_write_topic(text, text) is
'Whether the caller may broadcast or track presence on a private topic: :peers topics of their conversations only.';

create policy "people can listen on their topics" on realtime.messages
  for select to authenticated
  using (private.may_read_topic((select realtime.topic()), extension));

create policy "participants can write to the peers topic" on realtime.messages
  for insert to authenticated
  with check (private.may_write_topic((select realtime.topic()), extension));
