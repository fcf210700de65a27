-- What functions/characters reads from cards and writes to them. Cards are parsed there; here the same
-- constraints hold as for every other character. {character, definition: columns of the tables,
-- lorebook: columns and entries, or null, media: [{kind, path, position, caption}]}.

-- Makes a character of what a card says. Runs as its owner: functions reach no table.
create function private.import_character(owner_id uuid, parsed jsonb, idempotency_key text)
returns public.characters
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  definition jsonb := coalesce(nullif(import_character.parsed -> 'definition', 'null'), '{}');
  remembered jsonb;
  made       public.characters;
begin
  perform private.hold_active_account(import_character.owner_id);
  perform private.require_fields(import_character.parsed, array['character', 'definition', 'lorebook', 'media']);
  if import_character.idempotency_key is not null then
    -- Without paths: files are stored before this call, maybe once more for each attempt.
    remembered := private.remember_request(
      import_character.owner_id, 'import_character', import_character.idempotency_key,
      import_character.parsed - 'media' #- '{character,avatar_path}'
    );
    if remembered is not null then
      select c.* into made
      from public.characters as c
      where c.id = (remembered ->> 'id')::uuid and c.deleted_at is null;
      if not found then
        raise sqlstate 'PT404' using
          message = 'character_not_found',
          detail  = 'The character that this request made is gone.';
      end if;
      return made;
    end if;
  end if;

  perform private.require_room_for_character(import_character.owner_id);
  perform private.require_fields(import_character.parsed -> 'character', private.character_fields());
  perform private.require_fields(definition, private.character_definition_fields());
  insert into public.characters (owner_id, name, age)
  values (
    import_character.owner_id, import_character.parsed #>> '{character,name}',
    (import_character.parsed #>> '{character,age}')::smallint
  )
  returning * into made;
  made := private.write_character(made.id, (import_character.parsed -> 'character') || definition);

  if jsonb_typeof(import_character.parsed -> 'lorebook') <> 'null' then
    perform private.write_lorebook(
      import_character.owner_id, import_character.parsed -> 'lorebook', made.id, null
    );
  end if;
  insert into public.character_media (character_id, owner_id, kind, path, position, caption)
  select made.id, made.owner_id, coalesce(m.kind, 'image'), m.path, coalesce(m.position, 0), coalesce(m.caption, '')
  from jsonb_to_recordset(coalesce(nullif(import_character.parsed -> 'media', 'null'), '[]'))
    as m (kind text, path text, position smallint, caption text);

  if import_character.idempotency_key is not null then
    perform private.store_response(
      import_character.owner_id, 'import_character', import_character.idempotency_key,
      jsonb_build_object('id', made.id)
    );
  end if;
  return made;
end;
$$;

create function service.import_character(owner_id uuid, parsed jsonb, idempotency_key text default null)
returns public.characters
language sql
volatile
security invoker
set search_path = ''
as $$
  select c.*
  from private.import_character(
    import_character.owner_id, import_character.parsed, import_character.idempotency_key
  ) as c;
$$;

-- The same shape back: all of it to the owner, to others the face of a character that they may see by
-- its id. Runs as its owner: functions reach no table.
create function private.export_character(caller uuid, character_id uuid)
returns jsonb
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  subject  public.characters;
  is_owner boolean;
begin
  if export_character.caller is not null then
    perform private.require_active_account(export_character.caller);
  end if;
  subject := private.visible_character(export_character.character_id, export_character.caller);
  is_owner := subject.owner_id is not distinct from export_character.caller;
  return jsonb_build_object(
    'is_owner', is_owner,
    'character', to_jsonb(subject) - array['owner_id', 'hidden_at', 'deleted_at'],
    'definition', case when is_owner then (
      select to_jsonb(d) - array['character_id', 'owner_id', 'updated_at']
      from public.character_definitions as d
      where d.character_id = subject.id
    ) end,
    'lorebook', case when is_owner then (
      select private.lorebook_content(b.id) from public.lorebooks as b where b.character_id = subject.id
    ) end,
    'media', coalesce(
      (
        select jsonb_agg(
          jsonb_build_object('kind', m.kind, 'path', m.path, 'position', m.position, 'caption', m.caption)
          order by m.position, m.id
        )
        from public.character_media as m
        where m.character_id = subject.id
      ),
      '[]'
    )
  );
end;
$$;

create function service.export_character(caller uuid, character_id uuid)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select private.export_character(export_character.caller, export_character.character_id);
$$;

revoke all on function
  private.import_character(uuid, jsonb, text), service.import_character(uuid, jsonb, text), private.export_character(uuid, uuid),
  service.export_character(uuid, uuid)
  from public, anon, authenticated, service_role;
grant execute on function
  private.import_character(uuid, jsonb, text), service.import_character(uuid, jsonb, text),
  private.export_character(uuid, uuid), service.export_character(uuid, uuid)
  to service_role;
comment on function service.import_character(uuid, jsonb, text) is
'Makes a character of {character, definition, lorebook, media} for a user and returns it; the same idempotency key again '
'returns the same one. Raises PT403 account_not_active, PT403 too_many_characters, PT409 idempotency_key_reused, PT409 lorebook_full, '
'PT422 fields_invalid.';
comment on function service.export_character(uuid, uuid) is
'{is_owner, character, definition, lorebook, media} of a character that caller (null: nobody) may see by its id; definition '
'and lorebook are null for others than its owner. Raises PT403 account_not_active, PT404 character_not_found, '
'PT403 mature_confirmation_required.';
