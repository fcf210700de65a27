import { randomUUID } from 'node:crypto'
import { afterAll, expect, it } from 'vitest'
import { named, readAll, send } from './support/chat.ts'
import { anonymous, type Client, functionsUrl, type Person, signUp, until } from './support/local.ts'
import { disconnectAll, join, PRIVATE, realtimeClient, received } from './support/realtime.ts'

/** What makes a character act is its owner's alone. */

afterAll(disconnectAll)

const secret = `secret-${randomUUID()}`
const definition = {
  personality: `${secret} loyal`,
  scenario: `${secret} a station`,
  backstory: `${secret} the war`,
  system_instruction: `${secret} speak in short sentences`,
  example_dialogue: `${secret} Mara: No.`,
  post_history_instructions: `${secret} stay dry`,
  uses_generated_behaviour: true,
  behaviour_preferences: { humour: `${secret} dry` },
  custom_descriptions: { Ship: `${secret} Second Wind` },
  group_only_greetings: [`${secret} All of you.`],
  depth_prompt: { prompt: `${secret} remember`, depth: 4, role: 'system' },
}
const tables = [
  ...([
    'characters',
    'character_definitions',
    'character_versions',
    'character_media',
    'lorebooks',
    'lore_entries',
  ] as const),
  ...(['conversations', 'conversation_participants', 'messages', 'generations', 'generation_chunks'] as const),
  ...(['conversation_summaries', 'inbox_entries', 'usage_receipts', 'reports', 'jobs', 'profiles'] as const),
]

it('B-12 shows its definition to nobody else, whoever they are and by whatever way they ask', async () => {
  const people = await Promise.all(Array.from({ length: 6 }, () => signUp()))
  const [owner, host, viewer, removed, blocked, stranger] = people as [Person, Person, Person, Person, Person, Person]
  const made = await owner.client
    .from('characters')
    .insert({ name: 'Mara', age: 41, greeting: 'Hello.', visibility: 'public' })
    .select()
    .single()
  const character_id = made.data!.id
  // The stranger owns a character, too.
  await stranger.client.from('characters').insert({ name: 'Other', age: 30 })
  await owner.client.rpc('update_character', { character_id, patch: definition })
  await owner.client.rpc('replace_lorebook', {
    lorebook: { name: secret, entries: [{ keys: ['ship', secret], content: secret, comment: secret }] },
    character_id,
  })
  const begin = async (who: Person) => (await who.client.rpc('start_conversation', { character_id })).data!
  const talk = await begin(host)
  const hidden = await begin(blocked)
  for (const guest of [viewer, removed]) {
    await host.client.rpc('invite_participant', { conversation_id: talk.id, user_id: guest.id, role: 'viewer' })
    await guest.client.rpc('accept_invitation', { conversation_id: talk.id })
  }
  const channel = (await realtimeClient({ token: viewer.token })).channel(talk.topic, PRIVATE)
  const heard = received(channel, 'broadcast')
  await join(channel)
  const streams = []
  for (const [person, conversationId] of [
    [host, talk.id],
    [blocked, hidden.id],
  ] as const) {
    streams.push(
      await readAll(await send({ person, characterId: character_id, conversationId }, { content: 'Your ship?' })),
    )
  }
  const [answer, unseen] = streams.map((all) => named(all, 'connected')!.data.generation_id as string)
  await until(() => heard.some(({ event }) => event === 'generation.completed'))
  await host.client.rpc('remove_participant', { conversation_id: talk.id, user_id: removed.id })
  await owner.client.from('blocks').insert({ blocked_id: blocked.id })

  const shown: unknown[] = [...streams, ...heard]
  const ask = async (client: Client, token: string | null) => {
    for (const table of tables) shown.push(await client.from(table).select('*'))
    shown.push(
      await client
        .from('conversations')
        .select('*, characters(*, character_definitions(*), lorebooks(*, lore_entries(*)))'),
      await client.from('character_definitions').select('character_id').like('personality', `${secret}%`),
      // What is refused tells nothing either.
      await client.from('character_definitions').update({ personality: 'x' }).eq('character_id', character_id).select(),
      await client.from('lore_entries').update({ content: 'x' }).eq('content', secret).select(),
      await client.rpc('update_character', { character_id, patch: { personality: '' } }),
      await client.rpc('replace_lorebook', { character_id, lorebook: { entries: [] } }),
      await client.rpc('delete_character', { character_id }),
      await client.rpc('get_character', { character_id }),
      await client.rpc('search_characters', { query: secret }),
      await client.rpc('list_conversations'),
      await client.rpc('conversation_branch', { conversation_id: talk.id }),
      await client.rpc('move_to_newest_version', { conversation_id: talk.id }),
      await client.rpc('report_content', { kind: 'character', id: character_id, reason: 'spam' }),
    )
    for (const generation_id of [answer!, unseen!]) {
      shown.push(
        await client.rpc('explain_prompt', { generation_id }),
        await client.rpc('read_generation', { generation_id }),
      )
    }
    for (const path of ['export', 'export?format=png', 'export?spec=v2', 'lorebook']) {
      const response = await fetch(`${functionsUrl}/characters/${character_id}/${path}`, {
        headers: token ? { authorization: `Bearer ${token}` } : {},
      })
      const bytes = Buffer.from(await response.arrayBuffer()).toString('latin1')
      shown.push(
        bytes,
        ...(bytes.match(/[A-Za-z0-9+/=]{40,}/g) ?? []).map((base64) => Buffer.from(base64, 'base64').toString()),
      )
    }
  }
  for (const { client, token } of [host, viewer, removed, blocked, stranger]) await ask(client, token)
  await ask(anonymous(), null)

  const telling = (word: string) => shown.filter((piece) => JSON.stringify(piece).includes(word))
  expect(telling(secret)).toEqual([])
  expect(telling('Your ship?').length).toBeGreaterThan(5)
  const own = await owner.client.from('character_definitions').select().eq('character_id', character_id).single()
  expect(own.data).toMatchObject(definition)
  const trace = await host.client.rpc('explain_prompt', { generation_id: answer! })
  expect(JSON.stringify(trace.data)).toContain('personality')
}, 60_000)
