import type { Domain } from './format.ts'

export const jobs: Domain = {
  scene: `
    select private.enqueue_job('erase', :owner, '{}', delay => '1 day');
  `,
  tables: {
    'public.jobs': {
      grants: { authenticated: 'select', service_role: 'select' },
      where: 'owner_id = :owner',
      personas: {
        anon: 'denied denied denied denied',
        owner: 'yes denied denied denied',
        service_role: 'yes denied denied denied',
        rest: 'none denied denied denied',
      },
    },
  },
  functions: {
    'private.cancel_job(uuid)': 'authenticated',
    'private.claim_job(uuid, bigint[])': 'service_role',
    'private.claim_jobs(uuid, integer, integer)': 'service_role',
    'private.deliver_events(integer, timestamp with time zone)': 'service_role',
    'private.extend_jobs(uuid, jsonb)': 'service_role',
    'private.finish_and_claim(uuid, uuid, jsonb, uuid)': 'service_role',
    'private.finish_job(uuid, uuid, jsonb)': 'service_role',
    'private.finish_jobs(jsonb)': 'service_role',
    'private.release_jobs(uuid)': 'service_role',
    'public.cancel_job(uuid)': {
      execute: 'authenticated',
      call: `select public.cancel_job((select id from public.jobs where kind = 'erase' and owner_id = :owner))`,
      personas: {
        owner: 'yes',
        suspended: 'account_not_active',
        deleted: 'account_not_active',
        anon: 'denied',
        service_role: 'denied',
        rest: 'job_not_found',
      },
    },
    'service.claim_jobs(uuid, integer, integer)': {
      execute: 'service_role',
      call: 'select service.claim_jobs(gen_random_uuid(), 1)',
      personas: { service_role: 'yes', rest: 'denied' },
    },
    'service.deliver_events(integer)': {
      execute: 'service_role',
      call: 'select service.deliver_events(1)',
      personas: { service_role: 'yes', rest: 'denied' },
    },
    'service.extend_jobs(uuid, jsonb)': {
      execute: 'service_role',
      call: `select service.extend_jobs(gen_random_uuid(), '[]')`,
      personas: { service_role: 'yes', rest: 'denied' },
    },
    'service.finish_and_claim(uuid, uuid, jsonb, uuid)': {
      execute: 'service_role',
      call: `select service.finish_and_claim(gen_random_uuid(), gen_random_uuid(), '{"status": "completed"}', gen_random_uuid())`,
      personas: { service_role: 'yes', rest: 'denied' },
    },
    'service.finish_job(uuid, uuid, jsonb)': {
      execute: 'service_role',
      call: `select service.finish_job(gen_random_uuid(), gen_random_uuid(), '{"status": "completed"}')`,
      personas: { service_role: 'yes', rest: 'denied' },
    },
    'service.finish_jobs(jsonb)': {
      execute: 'service_role',
      call: `select service.finish_jobs('[]')`,
      personas: { service_role: 'yes', rest: 'denied' },
    },
    'service.release_jobs(uuid)': {
      execute: 'service_role',
      call: 'select service.release_jobs(gen_random_uuid())',
      personas: { service_role: 'yes', rest: 'denied' },
    },
  },
}
