-- Shape checks that table constraints share. Constraints run with the rights of the role that
-- writes, so the API roles may execute them. Postgres itself refuses NUL and lone surrogates.

-- One line that people read: something to see, no space of any script around it, no control,
-- direction-changing or blank characters (with those a name can imitate another one, be none at all,
-- or break a log line). Joiners stay: scripts and emoji need them.
create function private.is_line(value text, max_characters integer)
returns boolean
language plpgsql
immutable
parallel safe
security invoker
set search_path = ''
as $$
declare
  spaces  constant text := U&' \00a0\1680\2000\2001\2002\2003\2004\2005\2006\2007\2008\2009\200a\202f\205f\3000';
  joiners constant text := U&'\200c\200d\fe00\fe01\fe02\fe03\fe04\fe05\fe06\fe07\fe08\fe09\fe0a\fe0b\fe0c\fe0d\fe0e\fe0f';
begin
  return char_length(value) between 1 and max_characters
    and value = btrim(value, spaces)
    and value !~ '[\u0001-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f]'
    and value !~ '[\u2028-\u202e\u2060-\u206f\u2800\u3164\ufeff\uffa0\ufff9-\ufffb]'
    and btrim(value, spaces || joiners) <> '';
end;
$$;

revoke all on function private.is_line(text, integer) from public, anon, authenticated, service_role;
grant execute on function private.is_line(text, integer) to anon, authenticated, service_role;
comment on function private.is_line(text, integer) is
'True for one visible line of at most max_characters, trimmed, without control, bidi or blank characters.';

-- Text of several lines: any characters but control characters other than tab and line ends.
create function private.is_text(value text, max_characters integer)
returns boolean
language plpgsql
immutable
parallel safe
security invoker
set search_path = ''
as $$
begin
  return char_length(value) <= max_characters
    and value !~ '[\u0001-\u0008\u000b\u000c\u000e-\u001f\u007f]';
end;
$$;

revoke all on function private.is_text(text, integer) from public, anon, authenticated, service_role;
grant execute on function private.is_text(text, integer) to anon, authenticated, service_role;
comment on function private.is_text(text, integer) is
'True for text of at most max_characters whose only control characters are tabs and line ends.';

-- A JSON object within bounds. Size is counted in octets of its text, since a character may be
-- four of them; depth counts the object itself as 1. No number may be longer than 400 digits, which
-- is more than any double has: 1e131071 is a dozen bytes here and 131,072 as text, so writing out an
-- object of many to measure it would take gigabytes. Small objects can do no such harm.
create function private.is_json_object(value jsonb, max_octets integer, max_depth integer)
returns boolean
language plpgsql
immutable
parallel safe
security invoker
set search_path = ''
as $$
declare
  written text;
begin
  -- Nested, so that objects of usual size cost no query.
  if pg_column_size(value) > 4096 then
    if exists (
      select from jsonb_path_query(value, 'strict $.** ? (@.type() == "number")') as n (number)
      where octet_length(n.number::text) > 400
    ) then
      return false;
    end if;
  end if;
  written := value::text;
  return jsonb_typeof(value) = 'object'
    and octet_length(written) <= max_octets
    and (
      -- A flat object, as most are, has one bracket that opens.
      (max_depth >= 1 and strpos(written, '[') = 0 and strpos(substr(written, 2), '{') = 0)
      or not jsonb_path_exists(
        value, ('strict $.**{' || max_depth::text || '} ? (@.type() == "object" || @.type() == "array")')::jsonpath
      )
    );
end;
$$;

revoke all on function private.is_json_object(jsonb, integer, integer) from public, anon, authenticated, service_role;
grant execute on function private.is_json_object(jsonb, integer, integer) to anon, authenticated, service_role;
comment on function private.is_json_object(jsonb, integer, integer) is
'True for a JSON object of at most max_octets as text and at most max_depth nested objects or arrays, '
'without numbers that are gigantic as text.';

-- A BCP 47 language tag in its usual spelling, for example en, de-AT, zh-Hant-TW.
create function private.is_language_tag(tag text)
returns boolean
language sql
immutable
parallel safe
security invoker
set search_path = ''
as $$
  select char_length(tag) <= 35
    and tag ~ '^[a-z]{2,3}(-[A-Z][a-z]{3})?(-([A-Z]{2}|[0-9]{3}))?(-([a-z0-9]{5,8}|[0-9][a-z0-9]{3}))*$';
$$;

revoke all on function private.is_language_tag(text) from public, anon, authenticated, service_role;
grant execute on function private.is_language_tag(text) to anon, authenticated, service_role;
comment on function private.is_language_tag(text) is 'True for a BCP 47 language tag in its usual spelling.';
