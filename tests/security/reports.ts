import type { Domain, Expectations } from './format.ts'

const id = (name: string) => `(select id from scene_ids where name = '${name}')`

/** Calls that moderators and admins make. */
const moderators = (call: string) => ({
  execute: 'authenticated',
  call,
  personas: {
    anon: 'denied',
    moderator: 'yes',
    admin: 'yes',
    suspended: 'account_not_active',
    deleted: 'account_not_active',
    service_role: 'denied',
    rest: 'moderator_role_required',
  } satisfies Expectations,
})

/** `participant` has reported the owner's public character. */
export const reports: Domain = {
  scene: `
    select set_config('request.jwt.claims', jsonb_build_object('sub', :participant, 'role', 'authenticated')::text, true);
    insert into scene_ids
      select 'report', r.id from private.report_content('character', ${id('public character')}, 'spam', 'Again.') as r;
    select set_config('request.jwt.claims', '', true);
  `,
  tables: {
    'public.reports': {
      grants: { authenticated: 'select', service_role: 'select' },
      where: `id = ${id('report')}`,
      personas: {
        anon: 'denied denied denied denied',
        participant: 'yes denied denied denied',
        service_role: 'yes denied denied denied',
        rest: 'none denied denied denied',
      },
    },
  },
  functions: {
    'private.report_content(text, uuid, text, text)': 'authenticated',
    'private.list_reports(text, uuid, integer)': 'authenticated',
    'private.resolve_report(uuid, text, text)': 'authenticated',
    'private.hide_character(uuid, boolean)': 'authenticated',
    'public.report_content(text, uuid, text, text)': {
      execute: 'authenticated',
      call: `select public.report_content('character', ${id('unlisted character')}, 'spam')`,
      personas: {
        anon: 'denied',
        suspended: 'account_not_active',
        deleted: 'account_not_active',
        service_role: 'denied',
        // Also who is blocked: people block first and report then.
        rest: 'yes',
      },
    },
    'public.list_reports(text, uuid, integer)': moderators('select public.list_reports()'),
    'public.resolve_report(uuid, text, text)': moderators(`select public.resolve_report(${id('report')}, 'upheld')`),
    'public.hide_character(uuid, boolean)': moderators(`select public.hide_character(${id('public character')})`),
  },
}
