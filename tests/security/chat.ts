import type { Callable, Domain, Expectations } from './format.ts'

/** The owner's conversation: `participant` has joined, `moderator` is invited, `creator` was removed. */
const id = (name: string) => `(select id from scene_ids where name = '${name}')`
const conversation = id('conversation')
const act = (persona: string) =>
  `select set_config('request.jwt.claims', jsonb_build_object('sub', ${persona}, 'role', 'authenticated')::text, true)`

/** Only `owner` and `participant` see rows; nobody writes any. */
const readByParticipants: Expectations = {
  anon: 'denied denied denied denied',
  owner: 'yes denied denied denied',
  participant: 'yes denied denied denied',
  service_role: 'yes denied denied denied',
  rest: 'none denied denied denied',
}

const callable = (call: string, personas: Expectations): Callable => ({
  execute: 'authenticated',
  call,
  personas: {
    anon: 'denied',
    service_role: 'denied',
    suspended: 'account_not_active',
    deleted: 'account_not_active',
    ...personas,
  },
})

const serviceOnly = (call: string): Callable => ({
  execute: 'service_role',
  call,
  personas: { service_role: 'yes', rest: 'denied' },
})

export const chat: Domain = {
  scene: `
    insert into public.characters (owner_id, name, age, greeting) values (:owner, 'Partner', 30, 'Hello.');
    insert into scene_ids select 'partner', c.id from public.characters as c where c.owner_id = :owner and c.name = 'Partner';
    ${act(':owner')};
    insert into scene_ids select 'conversation', c.id from private.start_conversation(${id('partner')}, null, 0, null) as c;
    select private.invite_participant(${conversation}, :participant, 'member');
    select private.invite_participant(${conversation}, :moderator, 'member');
    select private.invite_participant(${conversation}, :creator, 'member');
    ${act(':participant')};
    select private.accept_invitation(${conversation});
    ${act(':creator')};
    select private.accept_invitation(${conversation});
    ${act(':owner')};
    select private.remove_participant(${conversation}, :creator);
    insert into scene_ids
      select 'generation', (private.send_message(${conversation}, 'Hi', null, 'inline') #>> '{generation,id}')::uuid;
    select private.claim_generation(${id('generation')});
    insert into scene_ids select m.role || ' message', m.id from public.messages as m
      where m.conversation_id = ${conversation} and m.parent_id is not null;
    ${act(':participant')};
    select private.rate_message(${id('assistant message')}, 1, '');
    insert into public.generation_chunks (generation_id, attempt, seq, text) values (${id('generation')}, 1, 1, 'He');
    select set_config('request.jwt.claims', '', true);
  `,
  tables: {
    'public.ai_models': {
      grants: { authenticated: 'select', service_role: 'select' },
      where: 'is_default',
      personas: {
        anon: 'denied denied denied denied',
        rest: 'yes denied denied denied',
      },
    },
    'public.conversations': {
      grants: {
        authenticated: 'select, update(title, model_id, temperature, max_tokens)',
        service_role: 'select',
      },
      where: `id = ${conversation}`,
      personas: {
        anon: 'denied denied denied denied',
        owner: 'yes denied yes denied',
        participant: 'yes denied none denied',
        // Invited: may look at what they are asked to join.
        moderator: 'yes denied none denied',
        service_role: 'yes denied denied denied',
        rest: 'none denied none denied',
      },
    },
    'public.conversation_participants': {
      grants: { authenticated: 'select', service_role: 'select' },
      where: `conversation_id = ${conversation} and user_id = :owner`,
      personas: readByParticipants,
    },
    'public.messages': {
      grants: { authenticated: 'select', service_role: 'select' },
      where: `conversation_id = ${conversation}`,
      personas: readByParticipants,
    },
    'public.inbox_entries': {
      grants: { authenticated: 'select', service_role: 'select' },
      where: `conversation_id = ${conversation} and user_id = :participant`,
      personas: {
        anon: 'denied denied denied denied',
        participant: 'yes denied denied denied',
        service_role: 'yes denied denied denied',
        rest: 'none denied denied denied',
      },
    },
    'public.message_feedback': {
      grants: { authenticated: 'select', service_role: 'select' },
      where: 'user_id = :participant',
      personas: {
        anon: 'denied denied denied denied',
        participant: 'yes denied denied denied',
        service_role: 'yes denied denied denied',
        rest: 'none denied denied denied',
      },
    },
    'public.generations': {
      grants: { authenticated: 'select', service_role: 'select' },
      where: `conversation_id = ${conversation}`,
      personas: readByParticipants,
    },
    'public.generation_chunks': {
      grants: { authenticated: 'select', service_role: 'select' },
      where: `generation_id = ${id('generation')}`,
      personas: readByParticipants,
    },
  },
  functions: {
    'private.my_conversation_ids(boolean)': 'authenticated',
    'private.may_read_generation(uuid)': 'authenticated',
    'private.may_read_topic(text, text)': 'authenticated',
    'private.may_write_topic(text, text)': 'authenticated',
    'private.start_conversation(uuid, text, integer, text)': 'authenticated',
    'private.send_message(uuid, text, text, text)': 'authenticated',
    'private.regenerate_message(uuid, uuid, text, text)': 'authenticated',
    'private.edit_message(uuid, text, text, text)': 'authenticated',
    'private.conversation_branch(uuid, uuid, integer)': 'authenticated',
    'private.select_variant(uuid)': 'authenticated',
    'private.delete_message(uuid, boolean)': 'authenticated',
    'private.rate_message(uuid, integer, text)': 'authenticated',
    'private.invite_participant(uuid, uuid, text)': 'authenticated',
    'private.set_participant_role(uuid, uuid, text)': 'authenticated',
    'private.list_conversations(text, integer, boolean)': 'authenticated',
    'private.mark_read(uuid, uuid)': 'authenticated',
    'private.update_inbox_entry(uuid, boolean, boolean)': 'authenticated',
    'private.delete_conversation(uuid)': 'authenticated',
    'private.move_to_newest_version(uuid)': 'authenticated',
    'private.accept_invitation(uuid)': 'authenticated',
    'private.leave_conversation(uuid)': 'authenticated',
    'private.remove_participant(uuid, uuid)': 'authenticated',
    'private.read_generation(uuid, integer, integer)': 'authenticated',
    'private.cancel_generation(uuid)': 'authenticated',
    'private.watch_conversation(uuid)': 'authenticated',
    'private.claim_generation(uuid)': 'service_role',
    'private.append_chunks(jsonb)': 'service_role',
    'private.follow_generations(jsonb)': 'service_role',
    'private.cancel_answer(uuid, uuid)': 'service_role',
    'private.talk_to_character(uuid, jsonb)': 'service_role',
    'private.finish_generation(uuid, integer, uuid, jsonb)': 'service_role',
    'private.list_providers(timestamp with time zone)': 'service_role',
    'private.moderation()': 'service_role',
    'private.report_call(jsonb)': 'service_role',
    'private.begin_completion(uuid, jsonb)': 'service_role',
    'private.finish_completion(uuid, jsonb)': 'service_role',
    'public.start_conversation(uuid, text, integer, text)': callable(
      `select public.start_conversation(${id('unlisted character')})`,
      {
        blocked: 'character_not_found',
        rest: 'yes',
      },
    ),
    'public.send_message(uuid, text, text, text)': callable(`select public.send_message(${conversation}, 'Hi')`, {
      owner: 'generation_in_progress',
      participant: 'generation_in_progress',
      rest: 'conversation_not_found',
    }),
    'public.regenerate_message(uuid, uuid, text, text)': callable(
      `select public.regenerate_message(message_id => ${id('assistant message')})`,
      { owner: 'generation_in_progress', participant: 'generation_in_progress', rest: 'message_not_found' },
    ),
    'public.edit_message(uuid, text, text, text)': callable(
      `select public.edit_message(${id('user message')}, 'Hi there')`,
      { owner: 'generation_in_progress', participant: 'generation_in_progress', rest: 'message_not_found' },
    ),
    'public.conversation_branch(uuid, uuid, integer)': callable(
      `select * from public.conversation_branch(${conversation})`,
      {
        owner: 'yes',
        participant: 'yes',
        suspended: 'conversation_not_found',
        deleted: 'conversation_not_found',
        rest: 'conversation_not_found',
      },
    ),
    'public.select_variant(uuid)': callable(`select public.select_variant(${id('user message')})`, {
      owner: 'yes',
      participant: 'yes',
      rest: 'message_not_found',
    }),
    // The message before, which is the character's greeting, is nobody's but the owner's.
    'public.delete_message(uuid, boolean)': callable(
      `select public.delete_message((select parent_id from public.messages where id = ${id('user message')}))`,
      { owner: 'yes', participant: 'message_not_yours', rest: 'message_not_found' },
    ),
    'public.rate_message(uuid, integer, text)': callable(`select public.rate_message(${id('assistant message')}, -1)`, {
      owner: 'yes',
      participant: 'yes',
      rest: 'message_not_found',
    }),
    'public.set_participant_role(uuid, uuid, text)': callable(
      `select public.set_participant_role(${conversation}, :participant, 'viewer')`,
      { owner: 'yes', participant: 'conversation_owner_required', rest: 'conversation_not_found' },
    ),
    'public.list_conversations(text, integer, boolean)': callable(
      `select from public.list_conversations() where id = ${conversation}`,
      { owner: 'yes', participant: 'yes', suspended: 'none', deleted: 'none', rest: 'none' },
    ),
    'public.mark_read(uuid, uuid)': callable(`select public.mark_read(${conversation})`, {
      owner: 'yes',
      participant: 'yes',
      rest: 'conversation_not_found',
    }),
    'public.update_inbox_entry(uuid, boolean, boolean)': callable(
      `select public.update_inbox_entry(${conversation}, is_pinned => true)`,
      { owner: 'yes', participant: 'yes', rest: 'conversation_not_found' },
    ),
    'public.delete_conversation(uuid)': callable(`select public.delete_conversation(${conversation})`, {
      owner: 'yes',
      participant: 'conversation_owner_required',
      rest: 'conversation_not_found',
    }),
    'public.move_to_newest_version(uuid)': callable(`select public.move_to_newest_version(${conversation})`, {
      owner: 'yes',
      participant: 'conversation_owner_required',
      rest: 'conversation_not_found',
    }),
    'public.invite_participant(uuid, uuid, text)': callable(
      `select public.invite_participant(${conversation}, :stranger)`,
      {
        owner: 'yes',
        participant: 'conversation_owner_required',
        rest: 'conversation_not_found',
      },
    ),
    'public.accept_invitation(uuid)': callable(`select public.accept_invitation(${conversation})`, {
      owner: 'yes',
      participant: 'yes',
      moderator: 'yes',
      rest: 'invitation_not_found',
    }),
    'public.leave_conversation(uuid)': callable(`select public.leave_conversation(${conversation})`, {
      owner: 'yes',
      participant: 'yes',
      moderator: 'yes',
      rest: 'conversation_not_found',
    }),
    'public.remove_participant(uuid, uuid)': callable(
      `select public.remove_participant(${conversation}, :participant)`,
      { owner: 'yes', participant: 'conversation_owner_required', rest: 'conversation_not_found' },
    ),
    'public.read_generation(uuid, integer, integer)': callable(`select public.read_generation(${id('generation')})`, {
      owner: 'yes',
      participant: 'yes',
      suspended: 'generation_not_found',
      deleted: 'generation_not_found',
      rest: 'generation_not_found',
    }),
    'public.cancel_generation(uuid)': callable(`select public.cancel_generation(${id('generation')})`, {
      owner: 'yes',
      participant: 'yes',
      rest: 'generation_not_found',
    }),
    'public.watch_conversation(uuid)': callable(`select public.watch_conversation(${conversation})`, {
      owner: 'yes',
      participant: 'yes',
      rest: 'conversation_not_found',
    }),
    'service.claim_generation(uuid)': serviceOnly(`select service.claim_generation(${id('generation')})`),
    'service.append_chunks(jsonb)': serviceOnly(`select service.append_chunks('[]')`),
    'service.follow_generations(jsonb)': serviceOnly(`select service.follow_generations('[]')`),
    'service.cancel_answer(uuid, uuid)': serviceOnly(`select service.cancel_answer(:owner, ${id('generation')})`),
    'service.talk_to_character(uuid, jsonb)': serviceOnly(
      `select service.talk_to_character(:owner, jsonb_build_object('character_id', ${id('partner')}, 'content', 'Hi'))`,
    ),
    'service.finish_generation(uuid, integer, uuid, jsonb)': serviceOnly(
      `select service.finish_generation(${id('generation')}, 1, gen_random_uuid(), '{"status": "completed"}')`,
    ),
    'service.moderation()': serviceOnly('select service.moderation()'),
    'service.report_call(jsonb)': serviceOnly(`select service.report_call('{}')`),
    'service.begin_completion(uuid, jsonb)': serviceOnly(
      `select service.begin_completion(:owner, '{"kind": "complete"}')`,
    ),
    'service.finish_completion(uuid, jsonb)': serviceOnly(
      `select service.finish_completion(gen_random_uuid(), '{"outcome": "completed"}')`,
    ),
    'private.read_catalogue(uuid, bigint)': 'service_role',
    'private.character_models(uuid, uuid)': 'service_role',
    'service.character_models(uuid, uuid)': serviceOnly('select service.character_models(:owner, null)'),
    'service.read_catalogue(uuid, bigint)': serviceOnly('select service.read_catalogue(null, null)'),
    'service.list_providers()': serviceOnly('select service.list_providers()'),
  },
}
