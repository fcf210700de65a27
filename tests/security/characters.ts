import type { Domain } from './format.ts'

const character = (name: string) => `(select id from scene_ids where name = '${name}')`

/** Columns that owners write. */
const face =
  'name, nickname, tagline, description, greeting, alternate_greetings, tags, visibility, age, is_mature, gender, ' +
  'occupation, hobbies, voice, language, appearance, avatar_path, creator_notes, creator, card_version'

export const characters: Domain = {
  scene: `
    insert into public.characters (owner_id, name, age, visibility) values (:owner, 'Everybody''s', 30, 'public');
    insert into public.characters (owner_id, name, age, visibility) values (:owner, 'Linked', 30, 'unlisted');
    insert into public.characters (owner_id, name, age, visibility) values (:owner, 'Hidden', 30, 'private');
    insert into scene_ids select c.visibility || ' character', c.id from public.characters as c where c.owner_id = :owner;
    update public.profile_private set mature_confirmed_at = now() where id = :creator;
    insert into public.characters (owner_id, name, age, visibility, is_mature) values (:admin, 'Mature', 30, 'public', true);
    insert into storage.objects (bucket_id, name, owner_id)
      select 'character-media', :owner || name, :owner from unnest(array['/picture.png', '/another.png']) as name;
    insert into public.character_media (character_id, owner_id, path)
      values (${character('public character')}, :owner, :owner || '/picture.png');
    insert into scene_ids select 'mature character', c.id from public.characters as c where c.owner_id = :admin;
    -- Versions are made at the end of a transaction; the matrix is one.
    set constraints all immediate;
    set constraints all deferred;
  `,
  tables: {
    'public.characters': {
      grants: {
        anon: 'select',
        authenticated: `select, insert(${face}), update(${face})`,
        service_role: 'select',
      },
      where: `id = ${character('public character')}`,
      insert: `insert into public.characters (name, age) values ('New', 18)`,
      personas: {
        anon: 'yes denied denied denied',
        owner: 'yes yes yes denied',
        blocked: 'none yes none denied',
        suspended: 'yes denied none denied',
        deleted: 'yes denied none denied',
        service_role: 'yes denied denied denied',
        rest: 'yes yes none denied',
      },
    },
    'public.character_definitions': {
      grants: {
        authenticated:
          'select, update(system_instruction, personality, scenario, backstory, example_dialogue, ' +
          'post_history_instructions, uses_generated_behaviour, behaviour_preferences, custom_descriptions, ' +
          'group_only_greetings, depth_prompt, card_extras)',
        service_role: 'select',
      },
      where: `character_id = ${character('public character')}`,
      personas: {
        anon: 'denied denied denied denied',
        owner: 'yes denied yes denied',
        service_role: 'yes denied denied denied',
        rest: 'none denied none denied',
      },
    },
    'public.character_versions': {
      grants: { authenticated: 'select', service_role: 'select' },
      where: `character_id = ${character('public character')}`,
      personas: {
        anon: 'denied denied denied denied',
        owner: 'yes denied denied denied',
        service_role: 'yes denied denied denied',
        rest: 'none denied denied denied',
      },
    },
    'public.character_media': {
      grants: {
        anon: 'select',
        authenticated:
          'select, insert(character_id, kind, path, "position", caption), update("position", caption), delete',
        service_role: 'select',
      },
      where: `character_id = ${character('public character')}`,
      insert: `
        insert into public.character_media (character_id, path)
        values (${character('public character')}, :me || '/another.png')`,
      personas: {
        anon: 'yes denied denied denied',
        owner: 'yes yes yes yes',
        blocked: 'none denied none none',
        service_role: 'yes denied denied denied',
        rest: 'yes denied none none',
      },
    },
  },
  functions: {
    'private.is_tag_list(text[])': 'anon authenticated service_role',
    'private.is_line_list(text[], integer, integer)': 'anon authenticated service_role',
    'private.is_text_list(text[], integer, integer)': 'anon authenticated service_role',
    'private.is_text_map(jsonb, integer, integer)': 'anon authenticated service_role',
    'private.is_appearance(jsonb)': 'anon authenticated service_role',
    'private.is_depth_prompt(jsonb)': 'anon authenticated service_role',
    'private.sees_mature_content()': 'anon authenticated',
    'private.finds_character(uuid)': 'anon authenticated',
    'private.is_my_character(uuid)': 'authenticated',
    'private.may_see_media(text)': 'anon authenticated',
    'private.get_character(uuid)': 'anon authenticated',
    'private.delete_character(uuid)': 'authenticated',
    'private.update_character(uuid, jsonb, integer)': 'authenticated',
    'private.get_character_media(uuid)': 'anon authenticated',
    'public.get_character_media(uuid)': {
      execute: 'anon authenticated',
      call: `select from public.get_character_media(${character('public character')})`,
      personas: { blocked: 'character_not_found', service_role: 'denied', rest: 'yes' },
    },
    'private.search_characters(text, text[], text, integer)': 'anon authenticated',
    'public.search_characters(text, text[], text, integer)': {
      execute: 'anon authenticated',
      call: `select from public.search_characters('everybody')`,
      personas: { blocked: 'none', service_role: 'denied', rest: 'yes' },
    },
    'private.import_character(uuid, jsonb, text)': 'service_role',
    'private.export_character(uuid, uuid)': 'service_role',
    'public.get_character(uuid)': {
      execute: 'anon authenticated',
      call: `select public.get_character(${character('unlisted character')}), public.get_character(${character('mature character')})`,
      personas: {
        creator: 'yes',
        // The owner of the mature one sees it unasked.
        admin: 'yes',
        blocked: 'character_not_found',
        service_role: 'denied',
        rest: 'mature_confirmation_required',
      },
    },
    'public.delete_character(uuid)': {
      execute: 'authenticated',
      call: `select public.delete_character(${character('public character')})`,
      personas: {
        anon: 'denied',
        owner: 'yes',
        suspended: 'account_not_active',
        deleted: 'account_not_active',
        service_role: 'denied',
        rest: 'character_not_found',
      },
    },
    'public.update_character(uuid, jsonb, integer)': {
      execute: 'authenticated',
      call: `select public.update_character(${character('public character')}, '{"personality": "Calm."}')`,
      personas: {
        anon: 'denied',
        owner: 'yes',
        suspended: 'account_not_active',
        deleted: 'account_not_active',
        service_role: 'denied',
        rest: 'character_not_found',
      },
    },
    'service.import_character(uuid, jsonb, text)': {
      execute: 'service_role',
      call: `select service.import_character(:owner, '{"character": {"name": "New", "age": 18}}')`,
      personas: { service_role: 'yes', rest: 'denied' },
    },
    'private.character_files_left(uuid, integer)': 'service_role',
    'service.character_files_left(uuid, integer)': {
      execute: 'service_role',
      call: `select service.character_files_left(${character('public character')})`,
      personas: { service_role: 'yes', rest: 'denied' },
    },
    'service.export_character(uuid, uuid)': {
      execute: 'service_role',
      call: `select service.export_character(null, ${character('public character')})`,
      personas: { service_role: 'yes', rest: 'denied' },
    },
  },
}
