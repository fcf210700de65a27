import type { Domain } from './format.ts'

const signedIn = {
  anon: 'denied',
  service_role: 'denied',
  suspended: 'account_not_active',
  deleted: 'account_not_active',
}
const act = (persona: string) =>
  `select set_config('request.jwt.claims', jsonb_build_object('sub', ${persona}, 'role', 'authenticated')::text, true)`

export const apiKeys: Domain = {
  scene: `
    ${act(':owner')};
    select private.create_api_key('Scene', array['chat'], null);
    insert into scene_ids select 'api key', k.id from public.api_keys as k where k.user_id = :owner;
    select set_config('request.jwt.claims', '', true);
  `,
  tables: {
    'public.api_keys': {
      grants: { authenticated: 'select', service_role: 'select' },
      where: 'user_id = :owner',
      personas: {
        anon: 'denied denied denied denied',
        owner: 'yes denied denied denied',
        service_role: 'yes denied denied denied',
        rest: 'none denied denied denied',
      },
    },
  },
  functions: {
    'private.create_api_key(text, text[], integer)': 'authenticated',
    'private.revoke_api_key(uuid)': 'authenticated',
    'private.authenticate_api_key(bytea, text, timestamp with time zone)': 'service_role',
    'public.create_api_key(text, text[], integer)': {
      execute: 'authenticated',
      call: `select public.create_api_key('Mine')`,
      personas: { ...signedIn, rest: 'yes' },
    },
    'public.revoke_api_key(uuid)': {
      execute: 'authenticated',
      call: `select public.revoke_api_key((select id from scene_ids where name = 'api key'))`,
      personas: { ...signedIn, owner: 'yes', rest: 'api_key_not_found' },
    },
    'service.authenticate_api_key(bytea, text)': {
      execute: 'service_role',
      call: `select service.authenticate_api_key('\\x00', 'chat')`,
      personas: { service_role: 'api_key_unknown', rest: 'denied' },
    },
  },
}
