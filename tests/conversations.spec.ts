import { afterEach, describe, expect, it } from 'vitest'
import { followBroadcasts } from '../client/follow-answer.ts'
import { marker, modelRequests, releaseModel, send, startTalk } from './support/chat.ts'
import { invite } from './support/follow.ts'
import { anonymous, type Person, signUp, until } from './support/local.ts'
import { disconnectAll, join, PRIVATE, realtimeClient, received } from './support/realtime.ts'

/** Characters and conversations as a front end meets them: supabase-js, the publishable key, signed-in people. */
afterEach(disconnectAll)

type Character = { id: string; name: string }

async function createCharacter(person: Person, details: object = {}): Promise<Character> {
  const { data, error } = await person.client
    .from('characters')
    .insert({ name: 'Mira', age: 30, greeting: 'Hello, you.', ...details } as never)
    .select()
    .single()
  if (error) throw error
  return data
}

async function start(person: Person, character: Character) {
  const { data, error } = await person.client.rpc('start_conversation', { character_id: character.id })
  if (error) throw error
  return data
}

async function joinConversation(owner: Person, guest: Person, conversation: string): Promise<void> {
  const invited = await owner.client.rpc('invite_participant', { conversation_id: conversation, user_id: guest.id })
  if (invited.error) throw invited.error
  const accepted = await guest.client.rpc('accept_invitation', { conversation_id: conversation })
  if (accepted.error) throw accepted.error
}

const live = (person: Person) => realtimeClient({ token: person.token })

describe('characters', () => {
  it('K-04 are read by id by whoever may see them, and look absent otherwise', async () => {
    const [owner, stranger] = await Promise.all([signUp(), signUp()])
    const shown = await createCharacter(owner, { visibility: 'public' })
    const linked = await createCharacter(owner, { visibility: 'unlisted' })
    const hidden = await createCharacter(owner)

    const byId = (id: string) => stranger.client.from('characters').select('id').eq('id', id)
    expect((await byId(shown.id)).data).toEqual([{ id: shown.id }])
    expect((await byId(hidden.id)).data).toEqual([])
    expect((await stranger.client.rpc('get_character', { character_id: linked.id })).data).toMatchObject({
      id: linked.id,
    })
    const refused = await stranger.client.rpc('get_character', { character_id: hidden.id })
    expect([refused.status, refused.error?.message]).toEqual([404, 'character_not_found'])
    expect((await anonymous().from('characters').select('id').eq('id', shown.id)).data).toEqual([{ id: shown.id }])
  })

  it('K-05 are changed by their owner alone, and their definitions are read by nobody else', async () => {
    const [owner, stranger] = await Promise.all([signUp(), signUp()])
    const character = await createCharacter(owner, { visibility: 'public' })
    const define = (person: Person) =>
      person.client
        .from('character_definitions')
        .update({ system_instruction: 'You are Mira.' })
        .eq('character_id', character.id)
        .select('system_instruction')

    expect((await define(owner)).data).toEqual([{ system_instruction: 'You are Mira.' }])
    expect((await define(stranger)).data).toEqual([])
    expect(
      (await stranger.client.from('character_definitions').select().eq('character_id', character.id)).data,
    ).toEqual([])
    expect(
      (await stranger.client.from('characters').update({ name: 'Mine' }).eq('id', character.id).select()).data,
    ).toEqual([])
    expect((await stranger.client.rpc('delete_character', { character_id: character.id })).status).toBe(404)
  })

  it('are adults, and mature ones ask for the confirmation', async () => {
    const [owner, viewer] = await Promise.all([signUp(), signUp()])
    const young = await owner.client.from('characters').insert({ name: 'Young', age: 17 })
    const mature = await createCharacter(owner, { visibility: 'public', is_mature: true })
    const begin = () => viewer.client.rpc('start_conversation', { character_id: mature.id })

    expect(young.error?.code).toBe('23514')
    expect((await begin()).error?.message).toBe('mature_confirmation_required')
    await viewer.client.rpc('confirm_mature_content')
    expect((await begin()).status).toBe(200)
  })
})

describe('conversations', () => {
  it('K-06 begin with the greeting of the character', async () => {
    const person = await signUp()
    const conversation = await start(person, await createCharacter(person))

    const { data } = await person.client.from('messages').select('role, content').eq('conversation_id', conversation.id)

    expect(data).toEqual([{ role: 'assistant', content: 'Hello, you.' }])
  })

  it('K-06 begin with the greeting that was chosen, under a title of one’s own', async () => {
    const person = await signUp()
    const character = await createCharacter(person, { alternate_greetings: ['Back again, {{user}}?'] })
    const begin = (greeting_index: number) =>
      person.client.rpc('start_conversation', { character_id: character.id, greeting_index, title: 'Evenings' })

    const { data: conversation } = await begin(1)

    expect(conversation!.title).toBe('Evenings')
    const { data: rows } = await person.client.rpc('conversation_branch', { conversation_id: conversation!.id })
    const { data: profile } = await person.client.from('profiles').select('display_name').eq('id', person.id).single()
    expect(rows!.map(({ content }) => content)).toEqual([`Back again, ${profile!.display_name}?`])
    expect((await begin(2)).error?.message).toBe('greeting_unknown')
  })

  it('V-15 are shared by several people: invited, joined, listed with who takes part', async () => {
    const [owner, guest, stranger] = await Promise.all([signUp(), signUp(), signUp()])
    const conversation = await start(owner, await createCharacter(owner))
    await joinConversation(owner, guest, conversation.id)

    const list = (person: Person) =>
      person.client.from('conversations').select('id, conversation_participants(user_id, role, state)')
    const taking = [
      { user_id: owner.id, role: 'owner', state: 'joined' },
      { user_id: guest.id, role: 'member', state: 'joined' },
    ]
    for (const person of [owner, guest]) {
      const { data, error } = await list(person)
      expect(error).toBeNull()
      expect(data).toEqual([{ id: conversation.id, conversation_participants: expect.arrayContaining(taking) }])
    }
    expect((await list(stranger)).data).toEqual([])
  })

  it('B-30 let nobody forge an event of the server, and hide the topic from strangers', async () => {
    const [owner, guest, stranger] = await Promise.all([signUp(), signUp(), signUp()])
    const conversation = await start(owner, await createCharacter(owner))
    await joinConversation(owner, guest, conversation.id)
    const [ownerLive, guestLive, strangerLive] = await Promise.all([owner, guest, stranger].map(live))
    const listening = ownerLive!.channel(conversation.topic, PRIVATE)
    const heard = received(listening, 'broadcast')
    const forging = guestLive!.channel(conversation.topic, PRIVATE)
    await Promise.all([join(listening), join(forging)])

    const forged = { type: 'broadcast' as const, event: 'generation.delta', payload: { text: 'forged' } }
    await forging.send(forged)
    await forging.httpSend(forged.event, forged.payload).catch(() => {})
    await expect(join(strangerLive!.channel(conversation.topic, PRIVATE))).rejects.toThrow()

    // An event of the server that comes later arrives; the forged one never did.
    await owner.client.rpc('invite_participant', { conversation_id: conversation.id, user_id: stranger.id })
    await until(() => heard.some((message) => message.event === 'participant.invited'))
    expect(heard.map((message) => message.event)).not.toContain('generation.delta')
  })

  it('B-30 fall silent for who was removed, in the same moment, while the others go on', async () => {
    const [owner, guest, friend] = await Promise.all([signUp(), signUp(), signUp()])
    const conversation = await start(owner, await createCharacter(owner))
    await joinConversation(owner, guest, conversation.id)
    await joinConversation(owner, friend, conversation.id)
    const [guestLive, friendLive] = await Promise.all([guest, friend].map(live))
    const { data: friendPrivate } = await friend.client.from('profile_private').select('topic').single()
    const friendOwn = friendLive!.channel(friendPrivate!.topic, PRIVATE)
    const told = received(friendOwn, 'broadcast', 'conversation.topic_changed')
    const old = guestLive!.channel(conversation.topic, PRIVATE)
    const stillHeard = received(old, 'broadcast')
    await Promise.all([join(friendOwn), join(old)])

    await owner.client.rpc('remove_participant', { conversation_id: conversation.id, user_id: guest.id })

    const { payload } = await until(() => told[0])
    const moved = friendLive!.channel(payload.topic, PRIVATE)
    const created = received(moved, 'broadcast', 'message.created')
    await join(moved)
    const sent = await owner.client.rpc('send_message', { conversation_id: conversation.id, content: 'Alone at last.' })
    expect(sent.error).toBeNull()
    await until(() => created[0])
    expect(stillHeard).toEqual([])
    await expect(join(guestLive!.channel(payload.topic, PRIVATE))).rejects.toThrow()
    expect((await guest.client.from('messages').select().eq('conversation_id', conversation.id)).data).toEqual([])
  })

  it('B-30 let who is removed in the middle of an answer hear not one piece more of it, while the others hear it all', async () => {
    const talk = await startTalk({ model: 'sandbox/stall' })
    const { conversationId: conversation_id, person: owner } = talk
    const [guest, friend] = await Promise.all([signUp(), signUp()])
    await invite(talk, guest)
    await invite(talk, friend)
    const watch = async (person: Person) => {
      const { data } = await person.client.rpc('watch_conversation', { conversation_id })
      const channel = (await live(person)).channel((data as { topic: string }).topic, PRIVATE)
      const heard = received(channel, 'broadcast')
      await join(channel)
      return heard
    }
    const removed = await watch(guest)
    const said = marker()
    const { generation } = await (await send(talk, { content: said, body: { run: 'queued', stream: false } })).json()
    const supabase = await live(friend)
    const following = followBroadcasts({ supabase, conversation_id, generation_id: generation.id, quietMs: 500 })
    await until(async () => (await modelRequests(said))[0]?.state === 'stalled')
    await until(() => removed.some(({ event }) => event === 'generation.delta'))

    const { error } = await owner.client.rpc('remove_participant', { conversation_id, user_id: guest.id })
    expect(error).toBeNull()
    const hadHeard = removed.map(({ event }) => event)
    const later = await watch(friend)
    await until(async () => (await (await releaseModel(said)).json()).released > 0)
    const answer = await following

    // The rest went out piece by piece on the topic of those who stayed, and on no other.
    await until(() => later.some(({ event }) => event === 'generation.completed'))
    expect(later.map(({ event }) => event)).toContain('generation.delta')
    expect(answer).toMatchObject({ status: 'completed', text: answer.message!.content })
    expect(removed.map(({ event }) => event)).toEqual(hadHeard)
    const read = await guest.client.rpc('read_generation', { generation_id: generation.id })
    expect([read.status, read.error?.message]).toEqual([404, 'generation_not_found'])
  })

  it('come to an end between two people when one blocks the other', async () => {
    const [owner, guest] = await Promise.all([signUp(), signUp()])
    const character = await createCharacter(owner, { visibility: 'public' })
    const conversation = await start(owner, character)
    await joinConversation(owner, guest, conversation.id)

    await guest.client.from('blocks').insert({ blocked_id: owner.id })

    expect((await guest.client.from('conversations').select()).data).toEqual([])
    expect((await guest.client.from('characters').select().eq('id', character.id)).data).toEqual([])
    const again = await owner.client.rpc('invite_participant', { conversation_id: conversation.id, user_id: guest.id })
    expect([again.status, again.error?.message]).toEqual([404, 'user_not_found'])
  })
})

describe('the list of conversations', () => {
  const list = async (person: Person, options: object = {}) =>
    (await person.client.rpc('list_conversations', options)).data!

  it('M-08 V-15 comes page by page, by the last message, with what is unread and pinned for each person', async () => {
    const [owner, guest] = await Promise.all([signUp(), signUp()])
    const character = await createCharacter(owner)
    const [first, second, third] = [
      await start(owner, character),
      await start(owner, character),
      await start(owner, character),
    ]
    await joinConversation(owner, guest, first.id)
    await owner.client.rpc('send_message', { conversation_id: first.id, content: 'Hi, you two.' })

    await owner.client.rpc('update_inbox_entry', { conversation_id: second.id, is_pinned: true })
    await owner.client.rpc('update_inbox_entry', { conversation_id: third.id, is_archived: true })

    const [pinned] = await list(owner, { page_size: 1 })
    const rest = await list(owner, { cursor: pinned!.cursor })
    expect([pinned!.id, ...rest.map(({ id }) => id)]).toEqual([second.id, first.id])
    expect((await list(owner, { archived: true })).map(({ id }) => id)).toEqual([third.id])
    const [theirs] = await list(guest)
    expect(theirs).toMatchObject({
      id: first.id,
      my_role: 'member',
      participant_count: 2,
      unread_count: 2,
      is_pinned: false,
    })
    expect((await guest.client.rpc('mark_read', { conversation_id: first.id })).error).toBeNull()
    expect((await list(guest))[0]!.unread_count).toBe(0)
    expect((await guest.client.from('inbox_entries').select('user_id')).data).toEqual([{ user_id: guest.id }])
  })

  it('M-08 loses what is deleted, for everybody, also while an answer is on its way', async () => {
    const [owner, guest] = await Promise.all([signUp(), signUp()])
    const conversation = await start(owner, await createCharacter(owner))
    await joinConversation(owner, guest, conversation.id)
    const renamed = await owner.client
      .from('conversations')
      .update({ title: 'Evenings' })
      .eq('id', conversation.id)
      .select('title')
    await owner.client.rpc('send_message', {
      conversation_id: conversation.id,
      content: 'The last word.',
      run: 'queued',
    })
    const remove = (person: Person) => person.client.rpc('delete_conversation', { conversation_id: conversation.id })

    expect(renamed.data).toEqual([{ title: 'Evenings' }])
    expect((await remove(guest)).error?.message).toBe('conversation_owner_required')
    expect((await remove(owner)).error).toBeNull()

    for (const person of [owner, guest]) {
      expect(await list(person)).toEqual([])
      expect((await person.client.from('conversations').select()).data).toEqual([])
      expect((await person.client.from('messages').select()).data).toEqual([])
      expect((await person.client.rpc('conversation_branch', { conversation_id: conversation.id })).status).toBe(404)
    }
  })
})

describe('jobs', () => {
  it('K-09 show their owner the state of an answer, and tell of changes on their own topic', async () => {
    const [person, stranger] = await Promise.all([signUp(), signUp()])
    const conversation = await start(person, await createCharacter(person))
    const { data: own } = await person.client.from('profile_private').select('topic').single()
    const channel = (await live(person)).channel(own!.topic, PRIVATE)
    const updates = received(channel, 'broadcast', 'job.updated')
    await join(channel)

    const sent = await person.client.rpc('send_message', {
      conversation_id: conversation.id,
      content: 'Hi',
      run: 'queued',
    })
    const { job_id } = sent.data as { job_id: string }

    const job = await until(async () => {
      const { data } = await person.client.from('jobs').select().eq('id', job_id).single()
      return data?.status === 'completed' && data
    }, 20_000)
    expect(job).toMatchObject({ kind: 'generation', progress: 100, result: { generation_id: expect.any(String) } })
    await until(() => updates.some(({ payload }) => payload.job_id === job_id && payload.status === 'completed'))
    expect((await stranger.client.from('jobs').select().eq('id', job_id)).data).toEqual([])
  })
})
