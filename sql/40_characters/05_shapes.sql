-- Shapes of what makes up a character, for the constraints of its tables.

-- Tags: at most 16, each one lower-case line of at most 32 characters, none twice.
create function private.is_tag_list(tags text[])
returns boolean
language sql
immutable
parallel safe
security invoker
set search_path = ''
as $$
  select coalesce(array_ndims(tags), 1) = 1
    and cardinality(tags) <= 16
    and not exists (
      select from unnest(tags) as t (tag)
      where t.tag is null or t.tag <> lower(t.tag) or not private.is_line(t.tag, 32)
    )
    and cardinality(tags) = (select count(distinct t.tag) from unnest(tags) as t (tag));
$$;

revoke all on function private.is_tag_list(text[]) from public, anon, authenticated, service_role;
grant execute on function private.is_tag_list(text[]) to anon, authenticated, service_role;
comment on function private.is_tag_list(text[]) is 'True for at most 16 distinct lower-case tags of at most 32 characters.';

-- A list of lines: at most max_items, each of at most max_characters.
create function private.is_line_list(lines text[], max_items integer, max_characters integer)
returns boolean
language sql
immutable
parallel safe
security invoker
set search_path = ''
as $$
  select coalesce(array_ndims(lines), 1) = 1
    and cardinality(lines) <= max_items
    and not exists (
      select from unnest(lines) as l (line) where l.line is null or not private.is_line(l.line, max_characters)
    );
$$;

-- A list of texts, none of them blank.
create function private.is_text_list(texts text[], max_items integer, max_characters integer)
returns boolean
language sql
immutable
parallel safe
security invoker
set search_path = ''
as $$
  select coalesce(array_ndims(texts), 1) = 1
    and cardinality(texts) <= max_items
    and not exists (
      select from unnest(texts) as t (content)
      where t.content is null or t.content !~ '\S' or not private.is_text(t.content, max_characters)
    );
$$;

-- An object of name to text: at most max_pairs; names are lines of at most 60 characters.
create function private.is_text_map(value jsonb, max_pairs integer, max_characters integer)
returns boolean
language plpgsql
immutable
parallel safe
security invoker
set search_path = ''
as $$
begin
  -- Nested, since the parts of one condition have no order, and jsonb_each refuses what is no object.
  if jsonb_typeof(value) = 'object' then
    return (
      select count(*) <= max_pairs
        and coalesce(bool_and(
          private.is_line(e.key, 60)
          and jsonb_typeof(e.value) = 'string'
          and private.is_text(e.value #>> '{}', max_characters)
        ), true)
      from jsonb_each(value) as e
    );
  end if;
  return false;
end;
$$;

-- How a character looks: known names with lines of at most 200 characters, and up to 32 traits.
create function private.is_appearance(value jsonb)
returns boolean
language plpgsql
immutable
parallel safe
security invoker
set search_path = ''
as $$
begin
  if jsonb_typeof(value) = 'object' then
    return (
      select coalesce(bool_and(
        case
          when e.key = 'custom_traits' then
            jsonb_typeof(e.value) = 'array'
            and jsonb_array_length(e.value) <= 32
            and not exists (
              select from jsonb_array_elements(e.value) as t (trait)
              where jsonb_typeof(t.trait) <> 'string' or not private.is_line(t.trait #>> '{}', 200)
            )
          when e.key in (
            'heritage', 'skin_tone', 'eye_colour', 'hair_colour', 'hair_style', 'body_type', 'proportions'
          ) then
            jsonb_typeof(e.value) = 'string' and private.is_line(e.value #>> '{}', 200)
          else false
        end
      ), true)
      from jsonb_each(value) as e
    );
  end if;
  return false;
end;
$$;

-- A prompt that is put so many messages before the newest one: {prompt, depth, role}.
create function private.is_depth_prompt(value jsonb)
returns boolean
language plpgsql
immutable
parallel safe
security invoker
set search_path = ''
as $$
begin
  if jsonb_typeof(value) = 'object' then
    return value - array['prompt', 'depth', 'role'] = '{}'
      and jsonb_typeof(value -> 'prompt') is not distinct from 'string'
      and private.is_text(value ->> 'prompt', 16000)
      and value ->> 'prompt' ~ '[^ \t\r\n]'
      and jsonb_typeof(value -> 'depth') is not distinct from 'number'
      and value ->> 'depth' ~ '^[0-9]{1,4}$'
      and coalesce(value ->> 'role' in ('system', 'user', 'assistant'), false);
  end if;
  return false;
end;
$$;

revoke all on function
  private.is_line_list(text[], integer, integer), private.is_text_list(text[], integer, integer),
  private.is_text_map(jsonb, integer, integer), private.is_appearance(jsonb),
  private.is_depth_prompt(jsonb)
  from public, anon, authenticated, service_role;
grant execute on function
  private.is_line_list(text[], integer, integer), private.is_text_list(text[], integer, integer),
  private.is_text_map(jsonb, integer, integer), private.is_appearance(jsonb),
  private.is_depth_prompt(jsonb)
  to anon, authenticated, service_role;
