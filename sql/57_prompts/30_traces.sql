-- A trace as it may be kept; null for anything else. A trace is never worth an answer.
create function private.fit_trace(trace jsonb)
returns jsonb
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return case when private.is_json_object(trace, 65536, 8) then trace end;
end;
$$;

-- The text of a part of a prompt, where it came from: the version of the character that was used, or the
-- lorebook as it is now. Null when that is gone.
create function private.section_text(section jsonb, snapshot jsonb)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  name constant text := section_text.section ->> 'name';
begin
  if section_text.section ->> 'source' = 'lore' then
    return (
      select jsonb_strip_nulls(jsonb_build_object(
        'label', e.name, 'text', e.content, 'key', e.keys[(section_text.section ->> 'key')::integer + 1]
      ))
      from public.lore_entries as e
      where e.id = (section_text.section ->> 'entry_id')::uuid
    );
  end if;
  return jsonb_build_object(
    'text',
    case name
      when 'profile' then jsonb_build_object(
        'age', snapshot -> 'age', 'gender', snapshot -> 'gender', 'occupation', snapshot -> 'occupation',
        'hobbies', snapshot -> 'hobbies', 'language', snapshot -> 'language', 'voice', snapshot -> 'voice'
      )
      when 'behaviour' then jsonb_build_object(
        'uses_generated_behaviour', snapshot -> 'uses_generated_behaviour',
        'behaviour_preferences', snapshot -> 'behaviour_preferences'
      )
      else snapshot -> name
    end
  );
end;
$$;

-- A trace as one person may see it. Texts, and which entries of a lorebook were found, are for the owner of
-- the character or the conversation that they belong to; for others a part is a name and a size.
create function private.readable_trace(trace jsonb, owns_character boolean, owns_conversation boolean, character_id uuid)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  snapshot jsonb;
begin
  if readable_trace.owns_character then
    select v.snapshot into snapshot
    from public.character_versions as v
    where v.character_id = readable_trace.character_id and v.version = (trace ->> 'character_version')::integer;
  end if;
  return jsonb_strip_nulls(trace - 'sections' - 'left_out_lore') || jsonb_build_object(
    'sections', (
      select coalesce(
        jsonb_agg(
          case
            when s.section ->> 'source' = 'character' and readable_trace.owns_character
              or s.section ->> 'book' = 'character' and readable_trace.owns_character
              or s.section ->> 'book' = 'conversation' and readable_trace.owns_conversation
            then s.section - 'key' || coalesce(private.section_text(s.section, snapshot), '{}')
            else jsonb_build_object(
              'name', s.section -> 'name', 'source', s.section -> 'source', 'outcome', s.section -> 'outcome',
              'chars', s.section -> 'chars', 'tokens', s.section -> 'tokens'
            )
          end
          order by s.nth
        ),
        '[]'
      )
      from jsonb_array_elements(trace -> 'sections') with ordinality as s (section, nth)
    ),
    'left_out_lore', jsonb_strip_nulls(jsonb_build_object(
      'character', case when readable_trace.owns_character then trace #> '{left_out_lore,character}' end,
      'conversation', case when readable_trace.owns_conversation then trace #> '{left_out_lore,conversation}' end
    ))
  );
end;
$$;

-- The prompts of an answer, for somebody who takes part in its conversation. Runs as its owner: attempts
-- are internal, and each reader sees of them what is theirs.
create function private.explain_prompt(generation_id uuid)
returns jsonb
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  caller uuid := (select auth.uid());
  target public.generations;
  talk   public.conversations;
  owns_character boolean;
begin
  select g.* into target from public.generations as g where g.id = explain_prompt.generation_id;
  if target.id is null or not private.is_participant(target.conversation_id, caller) then
    raise sqlstate 'PT404' using
      message = 'generation_not_found',
      detail  = 'There is no generation with this id that you may read.';
  end if;
  select c.* into talk from public.conversations as c where c.id = target.conversation_id;
  owns_character := exists (
    select from public.characters as c where c.id = talk.character_id and c.owner_id = caller
  );
  return jsonb_build_object(
    'generation_id', target.id,
    'conversation_id', target.conversation_id,
    'message_id', target.message_id,
    'attempts', (
      select coalesce(
        jsonb_agg(
          jsonb_build_object(
            'attempt', a.attempt, 'call', a.call, 'outcome', a.outcome, 'route', private.route_label(a.route_id),
            'usage', a.usage, 'prefix_hash', a.prefix_hash, 'prompt_tokens_estimated', a.prompt_tokens_estimated,
            'trace', case
              when a.trace is not null then
                private.readable_trace(a.trace, owns_character, talk.owner_id = caller, talk.character_id)
            end
          ) order by a.attempt, a.call
        ),
        '[]'
      )
      from private.generation_attempts as a
      where a.generation_id = target.id
    )
  );
end;
$$;

create function public.explain_prompt(generation_id uuid)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select private.explain_prompt(explain_prompt.generation_id);
$$;

revoke all on function
  private.fit_trace(jsonb), private.section_text(jsonb, jsonb), private.readable_trace(jsonb, boolean, boolean, uuid),
  private.explain_prompt(uuid), public.explain_prompt(uuid)
  from public, anon, authenticated, service_role;
grant execute on function private.explain_prompt(uuid), public.explain_prompt(uuid) to authenticated;
comment on function public.explain_prompt(uuid) is
'What was in the prompts of an answer, why, and what was left out: {generation_id, conversation_id, message_id, attempts: '
'[{attempt, call, outcome, route, usage, prefix_hash, prompt_tokens_estimated, trace}]}. Parts of characters and lorebooks of '
'others are a name and a size. Raises PT404 generation_not_found.';
