-- What the end of an account does to conversations: shared ones pass on and keep the person's
-- messages without author, those without anybody else go; characters go with their definitions.
-- Called by the deletion of an account, and before a profile row goes by another way.
create function private.detach_user_from_chat(user_id uuid)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  talk_id uuid;
  talk    public.conversations;
begin
  for talk_id in
    select p.conversation_id
    from public.conversation_participants as p
    where p.user_id = detach_user_from_chat.user_id and p.state in ('invited', 'joined')
    order by p.conversation_id
  loop
    select c.* into talk from public.conversations as c where c.id = talk_id for update;
    if not exists (
      select from public.conversation_participants as p
      where p.conversation_id = talk_id and p.user_id = detach_user_from_chat.user_id and p.state in ('invited', 'joined')
    ) then
      continue;
    end if;
    if not private.end_participation(talk_id, detach_user_from_chat.user_id, 'left') then
      perform private.discard_conversation(talk);
    end if;
  end loop;
  delete from public.conversation_participants as p where p.user_id = detach_user_from_chat.user_id;
  -- Discarded conversations go as a whole, soon, and maybe with very many messages.
  update public.messages as m set author_id = null
  from public.conversations as c
  where m.author_id = detach_user_from_chat.user_id and c.id = m.conversation_id and c.deleted_at is null;
  update public.generations as g set requested_by = null where g.requested_by = detach_user_from_chat.user_id;
  -- The queue's side first, in the order of the ids, as workers lock them.
  perform from private.job_work as w where w.owner_id = detach_user_from_chat.user_id order by w.job_id for update;
  update public.jobs as j set owner_id = null where j.owner_id = detach_user_from_chat.user_id;
  perform private.empty_character(c.id)
  from public.characters as c
  where c.owner_id = detach_user_from_chat.user_id and c.deleted_at is null
  order by c.id;
end;
$$;

revoke all on function private.detach_user_from_chat(uuid) from public, anon, authenticated, service_role;
comment on function private.detach_user_from_chat(uuid) is
'Takes a person out of all conversations: shared ones pass on, the others go; their characters are deleted.';

-- Deleting a user in the dashboard removes the profile by its foreign key: the same rules hold.
-- Runs as its owner: Auth deletes as a role of its own.
create function private.tg_profiles__detach_from_chat()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform private.detach_user_from_chat(old.id);
  return old;
end;
$$;

create trigger _500_detach_from_chat before delete on public.profiles
  for each row execute function private.tg_profiles__detach_from_chat();

revoke all on function private.tg_profiles__detach_from_chat() from public, anon, authenticated, service_role;
