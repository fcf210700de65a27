-- A branch from one of its messages up, newest first, as far as a prompt can reach: 2,000 messages, and
-- so many characters that older ones cannot fit. Emptied messages are left out. is_first: the
-- conversation begins with this message. Asked for each answer, like what follows, hence plpgsql, which
-- keeps plans.
create function private.branch_above(message_id uuid, most_characters bigint)
returns table (
  id uuid, parent_id uuid, role text, author_id uuid, content text, finish_reason text, generation_id uuid, is_first boolean
)
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return query
    with recursive branch as (
      select m.conversation_id, m.id, m.parent_id, m.role, m.author_id, m.content, m.finish_reason, m.generation_id,
        1 as nth, char_length(m.content)::bigint as characters
      from public.messages as m
      where m.id = branch_above.message_id
      union all
      select m.conversation_id, m.id, m.parent_id, m.role, m.author_id, m.content, m.finish_reason, m.generation_id,
        b.nth + 1, b.characters + char_length(m.content)
      from branch as b
      join public.messages as m on m.conversation_id = b.conversation_id and m.id = b.parent_id
      where b.nth < 2000 and b.characters < branch_above.most_characters
    )
    select b.id, b.parent_id, b.role, b.author_id, b.content, b.finish_reason, b.generation_id, b.parent_id is null
    from branch as b
    where b.content <> ''
    order by b.nth;
end;
$$;

-- Characters that surely fill the largest window among the routes of a model.
create function private.most_characters(model_id text)
returns bigint
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return (
    select 8 * coalesce(max(coalesce(r.context_window, m.context_window)), 8192)::bigint
    from public.ai_models as m
    left join private.ai_routes as r on r.model = m.id and r.is_enabled
    where m.id = most_characters.model_id
  );
end;
$$;

-- The lorebooks of a character and of a conversation. Contents beyond four million characters, and
-- those that are switched off, are not handed out: what is left of an entry says that it is there.
create function private.lore_material(character_id uuid, conversation_id uuid)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return (
    select coalesce(jsonb_agg(b.book order by b.source), '[]')
    from (
      select
        case when l.character_id is not null then 'character' else 'conversation' end as source,
        jsonb_build_object(
          'id', l.id, 'source', case when l.character_id is not null then 'character' else 'conversation' end,
          'scan_depth', l.scan_depth, 'token_budget', l.token_budget, 'is_recursive', l.is_recursive,
          'entries', coalesce(
            (
              select jsonb_agg(
                jsonb_build_object(
                  'id', e.id, 'position', e.position_in_book, 'keys', e.keys, 'secondary_keys', e.secondary_keys,
                  'is_selective', e.is_selective, 'is_constant', e.is_constant, 'is_enabled', e.is_enabled,
                  'is_case_sensitive', e.is_case_sensitive, 'matches_whole_words', e.matches_whole_words,
                  'uses_regex', e.uses_regex, 'insertion_order', e.insertion_order, 'priority', e.priority,
                  'placement', e.placement, 'depth', e.depth, 'role', e.role,
                  'content', case when e.is_enabled and e.characters <= 4000000 then e.content end
                ) order by e.position_in_book, e.id
              )
              from (
                select n.*,
                  sum(char_length(n.content)) filter (where n.is_enabled) over (
                    order by n.is_constant desc, n.priority desc nulls last, n.position_in_book, n.id
                  ) as characters
                from public.lore_entries as n
                where n.lorebook_id = l.id
              ) as e
            ),
            '[]'
          )
        ) as book
      from public.lorebooks as l
      where l.character_id = lore_material.character_id or l.conversation_id = lore_material.conversation_id
    ) as b
  );
end;
$$;

-- What a runner needs to compose a prompt, already authorised and ordered: the pinned version of the
-- character, both lorebooks, the people, the branch, its newest summary, and where the history of the
-- answer before began. memories is a place for what is to come.
create function private.prompt_material(generation_id uuid)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  target   public.generations;
  talk     public.conversations;
  asked    uuid;
  material jsonb;
begin
  select g.* into target from public.generations as g where g.id = prompt_material.generation_id;
  select c.* into talk from public.conversations as c where c.id = target.conversation_id;
  select m.parent_id into asked from public.messages as m where m.id = target.message_id;

  with branch as materialized (
    select b.*, row_number() over () as nth
    from private.branch_above(asked, private.most_characters(target.model_id)) as b
  ),
  told as (
    select s.message_id, s.content
    from public.conversation_summaries as s
    join branch as b on b.id = s.message_id
    where s.conversation_id = talk.id
    order by b.nth
    limit 1
  ),
  before as (
    select a.trace #>> '{history,from}' as history_from
    from (select b.generation_id, b.nth from branch as b where b.generation_id is not null order by b.nth limit 5) as b
    join private.generation_attempts as a on a.generation_id = b.generation_id
    where a.trace is not null
    order by b.nth, a.attempt desc, a.call desc
    limit 1
  )
  select jsonb_build_object(
    'messages', coalesce(
      (
        select jsonb_agg(
          jsonb_strip_nulls(jsonb_build_object(
            'id', b.id, 'role', b.role, 'content', b.content, 'name', p.display_name, 'author_id', b.author_id,
            'is_greeting', case when b.finish_reason = 'greeting' then true end
          )) order by b.nth desc
        )
        from branch as b
        left join public.profiles as p on p.id = b.author_id and b.role = 'user'
      ),
      '[]'
    ),
    'is_whole', (select coalesce(bool_or(b.is_first), true) from branch as b),
    'summary', (select to_jsonb(t) from told as t),
    'history_from', (select f.history_from from before as f)
  ) into material;

  return material || jsonb_build_object(
    'character', (
      select jsonb_build_object('name', c.name) || coalesce(v.snapshot, private.character_snapshot(c.id), '{}')
      from public.characters as c
      left join public.character_versions as v on v.character_id = c.id and v.version = talk.character_version
      where c.id = talk.character_id
    ),
    'character_version', talk.character_version,
    'user', (select jsonb_build_object('name', p.display_name) from public.profiles as p where p.id = talk.owner_id),
    'others', (
      select coalesce(jsonb_agg(p.display_name order by c.joined_at, c.user_id), '[]')
      from public.conversation_participants as c
      join public.profiles as p on p.id = c.user_id
      where c.conversation_id = talk.id and c.state = 'joined' and c.role = 'member'
    ),
    'lorebooks', private.lore_material(talk.character_id, talk.id),
    'memories', '[]'::jsonb
  );
end;
$$;

revoke all on function
  private.branch_above(uuid, bigint), private.most_characters(text), private.lore_material(uuid, uuid),
  private.prompt_material(uuid)
  from public, anon, authenticated, service_role;
