import type { Domain, Expectations } from './format.ts'

const id = (name: string) => `(select id from scene_ids where name = '${name}')`

const settings = 'name, description, scan_depth, token_budget, is_recursive, extras'
const entry =
  'position_in_book, name, comment, keys, secondary_keys, is_selective, is_constant, is_enabled, is_case_sensitive, ' +
  'matches_whole_words, uses_regex, insertion_order, priority, placement, depth, role, content, extras'

/** Lore is its owner's, whether the book is a character's or a conversation's. */
const onlyTheOwners: Expectations = {
  anon: 'denied denied denied denied',
  owner: 'yes yes yes yes',
  service_role: 'yes denied denied denied',
  rest: 'none denied none none',
}

export const lorebooks: Domain = {
  scene: `
    insert into public.lorebooks (owner_id, character_id) values (:owner, ${id('public character')});
    insert into scene_ids select 'lorebook', b.id from public.lorebooks as b where b.owner_id = :owner;
    insert into public.lore_entries (lorebook_id, owner_id, keys, content) values (${id('lorebook')}, :owner, '{ship}', 'Old.');
  `,
  tables: {
    'public.lorebooks': {
      grants: {
        authenticated: `select, insert(character_id, conversation_id, ${settings}), update(${settings}), delete`,
        service_role: 'select',
      },
      where: `id = ${id('lorebook')}`,
      insert: `insert into public.lorebooks (conversation_id) values (${id('conversation')})`,
      personas: onlyTheOwners,
    },
    'public.lore_entries': {
      grants: {
        authenticated: `select, insert(lorebook_id, ${entry}), update(${entry}), delete`,
        service_role: 'select',
      },
      where: `lorebook_id = ${id('lorebook')}`,
      insert: `insert into public.lore_entries (lorebook_id, keys, content) values (${id('lorebook')}, '{sea}', 'Wide.')`,
      // Whoever is active may add entries of their own, and the key to a book of somebody else's is refused.
      personas: {
        ...onlyTheOwners,
        suspended: 'none denied none none',
        deleted: 'none denied none none',
        rest: 'none 23503 none none',
      },
    },
  },
  functions: {
    'private.is_my_conversation(uuid)': 'authenticated',
    'private.is_lore_key_list(text[], boolean)': 'anon authenticated service_role',
    'private.replace_lorebook(jsonb, uuid, uuid)': 'authenticated',
    'public.replace_lorebook(jsonb, uuid, uuid)': {
      execute: 'authenticated',
      call: `select public.replace_lorebook('{"name": "New"}', character_id => ${id('public character')})`,
      personas: {
        anon: 'denied',
        owner: 'yes',
        suspended: 'account_not_active',
        deleted: 'account_not_active',
        service_role: 'denied',
        rest: 'character_not_found',
      },
    },
  },
}
