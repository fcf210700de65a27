-- Changing a character in one call: its face and its definition, one transaction, one version.

insert into private.error_codes (code, status, meaning) values
  ('fields_invalid', 422, 'The value is no object, or names a field that does not exist or cannot be written.'),
  ('character_version_conflict', 409, 'The character was changed since the version that the caller read.');

-- Refuses what is no object, and names that are not among the allowed ones: a misspelt field would
-- else be lost without a word.
create function private.require_fields(value jsonb, allowed text[])
returns void
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  if jsonb_typeof(value) is distinct from 'object' or value - allowed <> '{}' then
    raise sqlstate 'PT422' using
      message = 'fields_invalid',
      detail  = 'The value must be an object of these fields: ' || array_to_string(allowed, ', ') || '.';
  end if;
end;
$$;

-- The columns of characters that its owner writes; the grants on the table name the same.
create function private.character_fields()
returns text[]
language sql
immutable
security invoker
set search_path = ''
as $$
  select array[
    'name', 'nickname', 'tagline', 'description', 'greeting', 'alternate_greetings', 'tags', 'visibility', 'age',
    'is_mature', 'gender', 'occupation', 'hobbies', 'voice', 'language', 'appearance', 'avatar_path', 'creator_notes',
    'creator', 'card_version'
  ];
$$;

-- The same of character_definitions.
create function private.character_definition_fields()
returns text[]
language sql
immutable
security invoker
set search_path = ''
as $$
  select array[
    'system_instruction', 'personality', 'scenario', 'backstory', 'example_dialogue', 'post_history_instructions',
    'uses_generated_behaviour', 'behaviour_preferences', 'custom_descriptions', 'group_only_greetings', 'depth_prompt',
    'card_extras'
  ];
$$;

-- Writes the fields of a patch, whose names the caller has checked; those it does not name stay. The
-- caller has locked the definition and the character, in this order.
create function private.write_character(character_id uuid, patch jsonb)
returns public.characters
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  face       public.characters;
  definition public.character_definitions;
begin
  select c.* into face from public.characters as c where c.id = write_character.character_id;
  if write_character.patch ?| private.character_fields() then
    face := jsonb_populate_record(face, write_character.patch);
    update public.characters as c
    set name = face.name, nickname = face.nickname, tagline = face.tagline, description = face.description,
      greeting = face.greeting, alternate_greetings = face.alternate_greetings, tags = face.tags,
      visibility = face.visibility, age = face.age, is_mature = face.is_mature, gender = face.gender,
      occupation = face.occupation, hobbies = face.hobbies, voice = face.voice, language = face.language,
      appearance = face.appearance, avatar_path = face.avatar_path, creator_notes = face.creator_notes,
      creator = face.creator, card_version = face.card_version
    where c.id = write_character.character_id;
  end if;

  if write_character.patch ?| private.character_definition_fields() then
    select d.* into definition
    from public.character_definitions as d
    where d.character_id = write_character.character_id;
    definition := jsonb_populate_record(definition, write_character.patch);
    update public.character_definitions as d
    set system_instruction = definition.system_instruction, personality = definition.personality,
      scenario = definition.scenario, backstory = definition.backstory,
      example_dialogue = definition.example_dialogue,
      post_history_instructions = definition.post_history_instructions,
      uses_generated_behaviour = definition.uses_generated_behaviour,
      behaviour_preferences = definition.behaviour_preferences, custom_descriptions = definition.custom_descriptions,
      group_only_greetings = definition.group_only_greetings, depth_prompt = definition.depth_prompt,
      card_extras = definition.card_extras
    where d.character_id = write_character.character_id;
  end if;

  perform private.settle_character_version(write_character.character_id);
  select c.* into strict face from public.characters as c where c.id = write_character.character_id;
  return face;
end;
$$;

-- Runs as its owner, since it locks rows; the owner is compared here.
create function private.update_character(character_id uuid, patch jsonb, expected_version integer)
returns public.characters
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  caller  uuid := private.hold_active_user();
  subject public.characters;
begin
  perform private.require_fields(
    update_character.patch, private.character_fields() || private.character_definition_fields()
  );

  -- The definition before the character, as all who lock both: whoever changes a definition directly
  -- locks the character when the transaction ends.
  perform from public.character_definitions as d
  where d.character_id = update_character.character_id and d.owner_id = caller
  for no key update;
  select c.* into subject
  from public.characters as c
  where c.id = update_character.character_id and c.owner_id = caller and c.deleted_at is null
  for no key update;
  if not found then
    raise sqlstate 'PT404' using
      message = 'character_not_found',
      detail  = 'You have no character with this id.';
  end if;
  if subject.version <> update_character.expected_version then
    raise sqlstate 'PT409' using
      message = 'character_version_conflict',
      detail  = format('The character has version %s.', subject.version),
      hint    = 'Read it again, apply the change, and send the version you read.';
  end if;
  return private.write_character(subject.id, update_character.patch);
end;
$$;

create function public.update_character(character_id uuid, patch jsonb, expected_version integer default null)
returns public.characters
language sql
volatile
security invoker
set search_path = ''
as $$
  select c.*
  from private.update_character(
    update_character.character_id, update_character.patch, update_character.expected_version
  ) as c;
$$;

revoke all on function
  private.require_fields(jsonb, text[]), private.character_fields(), private.character_definition_fields(),
  private.write_character(uuid, jsonb), private.update_character(uuid, jsonb, integer),
  public.update_character(uuid, jsonb, integer)
  from public, anon, authenticated, service_role;
grant execute on function private.update_character(uuid, jsonb, integer), public.update_character(uuid, jsonb, integer)
  to authenticated;
comment on function public.update_character(uuid, jsonb, integer) is
'Changes the named columns of a character of one''s own and of its definition together, which is one version, and returns '
'the character. With expected_version only while that is its version. '
'Raises PT404 character_not_found, PT409 character_version_conflict, PT422 fields_invalid.';
