import type { Domain } from './format.ts'

const serviceOnly = (call: string) => ({
  execute: 'service_role',
  call,
  personas: { service_role: 'yes', rest: 'denied' },
})

/** What the person alone reads. */
const ownRow = {
  anon: 'denied denied denied denied',
  owner: 'yes denied denied denied',
  service_role: 'yes denied denied denied',
  rest: 'none denied denied denied',
}

const mine = (call: string) => ({
  execute: 'authenticated',
  call,
  personas: {
    anon: 'denied',
    service_role: 'denied',
    suspended: 'account_not_active',
    deleted: 'account_not_active',
    rest: 'yes',
  },
})

export const entitlements: Domain = {
  scene: `
    insert into public.usage_periods (user_id, period, requests) values (:owner, '2026-01-01', 1);
    insert into public.usage_daily (user_id, day, requests) values (:owner, (now() at time zone 'UTC')::date - 1, 1);
    insert into public.usage_receipts (
      owner_id, kind, completion_id, plan_id, day, calls, prompt_tokens, cached_tokens, completion_tokens, estimated
    ) values (private.owner_of(:owner), 'matrix', gen_random_uuid(), 'free', (now() at time zone 'UTC')::date, 1, 10, 0, 5, false);
  `,
  tables: {
    'public.usage_periods': {
      grants: { authenticated: 'select', service_role: 'select' },
      where: `user_id = :owner`,
      personas: ownRow,
    },
    'public.usage_daily': {
      grants: { authenticated: 'select', service_role: 'select' },
      where: `user_id = :owner`,
      personas: ownRow,
    },
    'public.usage_receipts': {
      grants: { authenticated: 'select', service_role: 'select' },
      where: `kind = 'matrix'`,
      personas: ownRow,
    },
    'public.plans': {
      grants: { anon: 'select', authenticated: 'select', service_role: 'select' },
      where: `id = 'free'`,
      personas: { rest: 'yes denied denied denied' },
    },
  },
  functions: {
    'private.my_models()': 'authenticated',
    'private.my_owner_id()': 'authenticated',
    'private.my_entitlements(timestamp with time zone)': 'authenticated',
    'private.has_room_for_character()': 'authenticated',
    'private.raise_hold(uuid, bigint, bigint)': 'service_role',
    'private.take_rate(text, uuid, text)': 'service_role',
    'private.add_rate_hits(jsonb, timestamp with time zone)': 'service_role',
    'public.my_models()': mine('select public.my_models()'),
    'public.my_entitlements()': mine('select public.my_entitlements()'),
    'public.my_usage(integer)': {
      execute: 'authenticated',
      call: 'select from public.my_usage() where requests > 0',
      personas: { anon: 'denied', service_role: 'denied', owner: 'yes', rest: 'none' },
    },
    'public.my_statement(uuid, integer)': {
      execute: 'authenticated',
      call: 'select public.my_statement()',
      personas: { anon: 'denied', service_role: 'denied', owner: 'yes', rest: 'none' },
    },
    'service.raise_hold(uuid, bigint, bigint)': serviceOnly('select service.raise_hold(gen_random_uuid(), 1, 1)'),
    'service.take_rate(text, uuid, text)': serviceOnly(`select service.take_rate('chat/messages', :owner, null)`),
    'service.add_rate_hits(jsonb)': serviceOnly(`select service.add_rate_hits('[]')`),
  },
}
