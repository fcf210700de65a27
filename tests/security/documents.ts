import type { Domain } from './format.ts'

const update = `select public.update_document((select id from scene_ids where name = 'document'), 1, '{"a": 2}')`

export const documents: Domain = {
  scene: `
    insert into public.documents (owner_id, collection, data) values (:owner, 'notes', '{"a": 1}');
    insert into scene_ids select 'document', id from public.documents where owner_id = :owner;
  `,
  tables: {
    'public.documents': {
      grants: { authenticated: 'select, delete, insert(collection, data)', service_role: 'select' },
      where: 'owner_id = :owner',
      insert: `insert into public.documents (collection, data) values ('notes', '{}')`,
      personas: {
        anon: 'denied denied denied denied',
        owner: 'yes yes denied yes',
        suspended: 'none denied denied none',
        deleted: 'none denied denied none',
        service_role: 'yes denied denied denied',
        rest: 'none yes denied none',
      },
    },
  },
  functions: {
    'private.update_document(uuid, integer, jsonb)': 'authenticated',
    'public.update_document(uuid, integer, jsonb)': {
      execute: 'authenticated',
      call: update,
      personas: {
        anon: 'denied',
        owner: 'yes',
        suspended: 'account_not_active',
        deleted: 'account_not_active',
        service_role: 'denied',
        rest: 'document_not_found',
      },
    },
  },
}
