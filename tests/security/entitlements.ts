import type { Domain } from './format.ts'

const serviceOnly = (call: string) => ({
  execute: 'service_role',
  call,
  personas: { service_role: 'yes', rest: 'denied' },
})

export const entitlements: Domain = {
  tables: {
    'public.plans': {
      grants: { anon: 'select', authenticated: 'select', service_role: 'select' },
      where: `id = 'free'`,
      personas: { rest: 'yes denied denied denied' },
    },
  },
  functions: {
    'private.my_models()': 'authenticated',
    'private.list_rate_rules()': 'service_role',
    'private.plan_of(uuid)': 'service_role',
    'private.take_rate(text, uuid, text)': 'service_role',
    'private.add_rate_hits(jsonb, timestamp with time zone)': 'service_role',
    'public.my_models()': {
      execute: 'authenticated',
      call: 'select public.my_models()',
      personas: {
        anon: 'denied',
        service_role: 'denied',
        suspended: 'account_not_active',
        deleted: 'account_not_active',
        rest: 'yes',
      },
    },
    'service.list_rate_rules()': serviceOnly('select service.list_rate_rules()'),
    'service.plan_of(uuid)': serviceOnly('select service.plan_of(:owner)'),
    'service.take_rate(text, uuid, text)': serviceOnly(`select service.take_rate('chat/messages', :owner, null)`),
    'service.add_rate_hits(jsonb)': serviceOnly(`select service.add_rate_hits('[]')`),
  },
}
