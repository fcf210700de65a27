import type { Domain } from './format.ts'

const signedIn = { anon: 'denied', service_role: 'denied', deleted: 'account_not_active' }
const adminsOnly = { ...signedIn, admin: 'yes', suspended: 'account_not_active', rest: 'admin_role_required' }

export const identity: Domain = {
  scene: `
    insert into public.blocks (blocker_id, blocked_id) values (:owner, :stranger);
    delete from public.blocks where blocker_id = :owner and blocked_id = :stranger;
  `,
  tables: {
    'public.profiles': {
      grants: {
        anon: 'select',
        authenticated: 'select, update(username, display_name, avatar_path, bio, status_message, locale)',
        service_role: 'select',
      },
      where: 'id = :owner',
      personas: {
        anon: 'yes denied denied denied',
        owner: 'yes denied yes denied',
        blocked: 'none denied none denied',
        service_role: 'yes denied denied denied',
        rest: 'yes denied none denied',
      },
    },
    'public.profile_private': {
      grants: { authenticated: 'select', service_role: 'select' },
      where: 'id = :owner',
      personas: {
        anon: 'denied denied denied denied',
        owner: 'yes denied denied denied',
        service_role: 'yes denied denied denied',
        rest: 'none denied denied denied',
      },
    },
    'public.blocks': {
      grants: { authenticated: 'select, delete, insert(blocked_id)', service_role: 'select' },
      where: 'blocker_id = :owner and blocked_id = :blocked',
      insert: 'insert into public.blocks (blocked_id) values (:creator)',
      personas: {
        anon: 'denied denied denied denied',
        owner: 'yes yes denied yes',
        creator: 'none 23514 denied none',
        suspended: 'none denied denied none',
        deleted: 'none denied denied none',
        service_role: 'yes denied denied denied',
        rest: 'none yes denied none',
      },
    },
  },
  functions: {
    'private.blocked_user_ids()': 'anon authenticated service_role',
    'private.is_active_user()': 'authenticated',
    'private.holds_active_account()': 'authenticated',
    'private.require_active_user()': 'authenticated',
    'private.has_role(text)': 'authenticated',
    'private.custom_access_token(jsonb)': 'supabase_auth_admin',
    'private.me()': 'authenticated',
    'public.me()': {
      execute: 'authenticated',
      call: 'select public.me()',
      personas: { ...signedIn, rest: 'yes' },
    },
    'private.confirm_mature_content(boolean)': 'authenticated',
    'public.confirm_mature_content(boolean)': {
      execute: 'authenticated',
      call: 'select public.confirm_mature_content(true)',
      personas: { ...signedIn, suspended: 'account_not_active', rest: 'yes' },
    },
    'private.grant_role(uuid, text)': 'authenticated',
    'public.grant_role(uuid, text)': {
      execute: 'authenticated',
      call: `select public.grant_role(:me, 'admin')`,
      personas: adminsOnly,
    },
    'private.revoke_role(uuid, text)': 'authenticated',
    'public.revoke_role(uuid, text)': {
      execute: 'authenticated',
      call: `select public.revoke_role(:owner, 'admin')`,
      personas: adminsOnly,
    },
    'private.admin_get_user(uuid)': 'authenticated',
    'public.admin_get_user(uuid)': {
      execute: 'authenticated',
      call: 'select public.admin_get_user(:owner)',
      personas: adminsOnly,
    },
  },
}
