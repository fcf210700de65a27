-- Shape checks that table constraints share. Constraints run with the rights of the role that
-- writes, so the API roles may execute them. Postgres itself refuses NUL and lone surrogates.

-- One line that people read: trimmed, not empty, no control or direction-changing characters
-- (with those a name can imitate another one or break a log line).
create function private.is_line(value text, max_characters integer)
returns boolean
language plpgsql
immutable
parallel safe
security invoker
set search_path = ''
as $$
begin
  return char_length(value) between 1 and max_characters
    and value = btrim(value)
    and value !~ '[\u0001-\u001f\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]';
end;
$$;

revoke all on function private.is_line(text, integer) from public, anon, authenticated, service_role;
grant execute on function private.is_line(text, integer) to anon, authenticated, service_role;
comment on function private.is_line(text, integer) is
'True for one visible line of at most max_characters, trimmed, without control or bidi characters.';

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
-- four of them; depth counts the object itself as 1.
create function private.is_json_object(value jsonb, max_octets integer, max_depth integer)
returns boolean
language plpgsql
immutable
parallel safe
security invoker
set search_path = ''
as $$
begin
  return jsonb_typeof(value) = 'object'
    and octet_length(value::text) <= max_octets
    and not jsonb_path_exists(
      value, ('strict $.**{' || max_depth::text || '} ? (@.type() == "object" || @.type() == "array")')::jsonpath
    );
end;
$$;

revoke all on function private.is_json_object(jsonb, integer, integer) from public, anon, authenticated, service_role;
grant execute on function private.is_json_object(jsonb, integer, integer) to anon, authenticated, service_role;
comment on function private.is_json_object(jsonb, integer, integer) is
'True for a JSON object of at most max_octets as text and at most max_depth nested objects or arrays.';
