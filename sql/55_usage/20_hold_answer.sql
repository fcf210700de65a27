-- What an answer in a conversation may use at most, before its prompt is composed. Whoever composes it and finds
-- that it is more raises the hold (service.raise_hold) before a provider is asked.

-- Tokens of a text, about: four characters of Latin script make one, one of another script makes one or more.
-- Never much too low, without looking at each character.
create function private.estimate_tokens(value text)
returns bigint
language plpgsql
immutable
parallel safe
security invoker
set search_path = ''
as $$
begin
  return ceil(char_length(value) / 4.0 + 0.75 * (octet_length(value) - char_length(value)))::bigint;
end;
$$;

-- The prompt of the next answer: what the prompt and text of the answer before it were by the provider's figures,
-- else those of the newest answer that has any, or for the first one what the character's texts are, and the new
-- message; a quarter on top.
create function private.estimate_prompt(question public.messages)
returns bigint
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  before bigint;
begin
  select (g.usage ->> 'prompt_tokens')::bigint + (g.usage ->> 'completion_tokens')::bigint into before
  from public.messages as a
  join public.generations as g on g.id = a.generation_id
  where a.conversation_id = question.conversation_id and a.id = question.parent_id;
  if before is null then
    -- Of the newest few, or a conversation in which nothing but failures stand would be read through each time.
    select (g.usage ->> 'prompt_tokens')::bigint + (g.usage ->> 'completion_tokens')::bigint into before
    from (
      select n.usage, n.message_id
      from public.generations as n
      where n.conversation_id = question.conversation_id
      order by n.message_id desc
      limit 20
    ) as g
    where g.usage is not null
    order by g.message_id desc
    limit 1;
  end if;
  if before is null then
    select
      private.estimate_tokens(concat(
        c.name, c.description, c.greeting, d.system_instruction, d.personality, d.scenario, d.backstory, d.example_dialogue
      ))
    into before
    from public.conversations as v
    join public.characters as c on c.id = v.character_id
    left join public.character_definitions as d on d.character_id = c.id
    where v.id = question.conversation_id;
  end if;
  return ceil(1.25 * (200 + coalesce(before, 0) + private.estimate_tokens(question.content)))::bigint;
end;
$$;

-- Holds what an answer may use at most, and counts the request. Called by private.request_answer.
create function private.hold_answer(
  generation_id uuid,
  caller uuid,
  question public.messages,
  model public.ai_models,
  max_tokens integer
)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  perform private.hold_usage(
    user_id       => hold_answer.caller,
    model_id      => model.id,
    prompt_tokens => least(private.estimate_prompt(question), model.context_window::bigint),
    max_tokens    => least(hold_answer.max_tokens, model.max_output)::bigint,
    generation_id => hold_answer.generation_id
  );
end;
$$;

-- Tokens that the calls for a generation have used until now, those that came to nothing included.
create function private.tokens_spent_on(generation_id uuid)
returns bigint
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return (
    select coalesce(sum((c.usage ->> 'prompt_tokens')::bigint + (c.usage ->> 'completion_tokens')::bigint), 0)::bigint
    from (
      select a.usage from private.generation_attempts as a where a.generation_id = tokens_spent_on.generation_id
      union all
      select m.usage from private.model_calls as m where m.generation_id = tokens_spent_on.generation_id
    ) as c
    where c.usage is not null
  );
end;
$$;

revoke all on function
  private.estimate_tokens(text), private.estimate_prompt(public.messages),
  private.hold_answer(uuid, uuid, public.messages, public.ai_models, integer), private.tokens_spent_on(uuid)
  from public, anon, authenticated, service_role;
