import type { Domain } from './format.ts'

/** In the scene of chat.ts: the owner's conversation, which `participant` has joined and `creator` had to leave. */
const id = (name: string) => `(select id from scene_ids where name = '${name}')`

export const prompts: Domain = {
  scene: `
    insert into public.conversation_summaries (conversation_id, message_id, content)
      values (${id('conversation')}, ${id('user message')}, 'They met.');
  `,
  tables: {
    'public.conversation_summaries': {
      grants: { authenticated: 'select', service_role: 'select' },
      where: `conversation_id = ${id('conversation')}`,
      personas: {
        anon: 'denied denied denied denied',
        owner: 'yes denied denied denied',
        participant: 'yes denied denied denied',
        service_role: 'yes denied denied denied',
        rest: 'none denied denied denied',
      },
    },
  },
  functions: {
    'private.explain_prompt(uuid)': 'authenticated',
    'private.begin_summary(uuid, uuid)': 'service_role',
    'private.keep_summary(uuid, uuid, uuid, text, text)': 'service_role',
    'public.explain_prompt(uuid)': {
      execute: 'authenticated',
      call: `select public.explain_prompt(${id('generation')})`,
      personas: {
        anon: 'denied',
        owner: 'yes',
        participant: 'yes',
        service_role: 'denied',
        rest: 'generation_not_found',
      },
    },
    'service.begin_summary(uuid, uuid)': {
      execute: 'service_role',
      call: `select service.begin_summary(${id('conversation')}, ${id('user message')})`,
      personas: { service_role: 'yes', rest: 'denied' },
    },
    'service.keep_summary(uuid, uuid, uuid, text, text)': {
      execute: 'service_role',
      call: `select service.keep_summary(gen_random_uuid(), ${id('conversation')}, ${id('user message')}, '', 'x')`,
      personas: { service_role: 'yes', rest: 'denied' },
    },
  },
}
