import type { Domain } from './format.ts'

export const account: Domain = {
  functions: {
    'private.begin_account_deletion(uuid)': 'service_role',
    'service.begin_account_deletion(uuid)': {
      execute: 'service_role',
      call: 'select service.begin_account_deletion(:stranger)',
      personas: { service_role: 'yes', rest: 'denied' },
    },
    'private.erase_plan(uuid, integer)': 'service_role',
    'private.purge_conversations_of(uuid)': 'service_role',
    'service.purge_conversations_of(uuid)': {
      execute: 'service_role',
      call: 'select service.purge_conversations_of(:owner)',
      personas: { service_role: 'yes', rest: 'denied' },
    },
    'service.erase_plan(uuid, integer)': {
      execute: 'service_role',
      call: 'select service.erase_plan(:owner)',
      personas: { service_role: 'account_not_deleted', rest: 'denied' },
    },
  },
}
