import { randomUUID } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { admin, anonymous, type Client, database, type Person, signUp, until, url } from './support/local.ts'

/** Characters as their owners and everybody else meet them. */

const png = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==',
  'base64',
)
const code = (result: { error: { message: string } | null }) => result.error?.message

async function create(person: Person, values: Record<string, unknown> = {}) {
  const { data, error } = await person.client
    .from('characters')
    .insert({ name: 'Mira', age: 30, visibility: 'public', ...values })
    .select()
    .single()
  if (error) throw error
  return data
}

/** Everything that K-03 names, in the columns of the face and of the definition. */
const everything = {
  name: 'Captain Mara',
  nickname: 'Mara',
  age: 41,
  gender: 'woman',
  appearance: {
    heritage: 'Andean',
    skin_tone: 'brown',
    eye_colour: 'grey',
    hair_colour: 'black',
    hair_style: 'short',
    body_type: 'wiry',
    proportions: 'tall',
    custom_traits: ['a scar on her chin'],
  },
  tagline: 'Smuggler with principles',
  description: 'Flies an old freighter.',
  tags: ['space', 'adventure'],
  voice: 'low, dry',
  language: 'en',
  occupation: 'captain',
  hobbies: ['chess', 'old engines'],
  greeting: 'Talk fast.',
  alternate_greetings: ['You again.', 'Not now.'],
  creator_notes: 'Be kind to her.',
}
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
  group_only_greetings: [`${secret} All of you?`],
  depth_prompt: { prompt: `${secret} be brief`, depth: 4, role: 'system' },
  card_extras: { note: secret },
}

describe('a character', () => {
  it('K-03 has a face and a definition, written together as one version', async () => {
    const owner = await signUp()
    const { id } = await create(owner, { name: 'Draft' })

    const changed = await owner.client.rpc('update_character', {
      character_id: id,
      patch: { ...everything, ...definition },
    })

    expect(changed.error).toBeNull()
    const { data } = await owner.client.from('characters').select('*, character_definitions(*)').eq('id', id).single()
    expect(data).toMatchObject({ ...everything, version: 2, character_definitions: definition })
    const stale = await owner.client.rpc('update_character', {
      character_id: id,
      patch: { name: 'Late' },
      expected_version: 1,
    })
    expect([stale.status, code(stale)]).toEqual([409, 'character_version_conflict'])
    const misspelt = await owner.client.rpc('update_character', { character_id: id, patch: { nmae: 'X' } })
    expect([misspelt.status, code(misspelt)]).toEqual([422, 'fields_invalid'])
  })

  it('K-03 is an adult, by every way in', async () => {
    const owner = await signUp()
    const { id } = await create(owner)

    const answers = [
      await owner.client.from('characters').insert({ name: 'Child', age: 17 }),
      await owner.client.from('characters').update({ age: 17 }).eq('id', id),
      await owner.client.rpc('update_character', { character_id: id, patch: { age: 17 } }),
      await admin()
        .schema('service')
        .rpc('import_character', { owner_id: owner.id, parsed: { character: { name: 'Child', age: 17 } } }),
    ]

    expect(answers.map((answer) => (answer.error as { code: string } | null)?.code)).toEqual(Array(4).fill('23514'))
  })

  it('K-03 refuses shapes that are none of its own', async () => {
    const owner = await signUp()
    const { id } = await create(owner)
    const patches = [
      { appearance: { wings: 'two' } },
      { appearance: { custom_traits: 'one' } },
      { appearance: [] },
      { depth_prompt: { prompt: 'x', depth: -1, role: 'system' } },
      { depth_prompt: { prompt: 'x', depth: 1 } },
      { behaviour_preferences: { humour: 1 } },
      { custom_descriptions: Object.fromEntries(Array.from({ length: 33 }, (_, n) => [`Part ${n}`, 'x'])) },
      { card_extras: 'text' },
      { alternate_greetings: Array(33).fill('Hi') },
      { hobbies: ['two\nlines'] },
      { language: 'english' },
    ]

    const codes = []
    for (const patch of patches) {
      const { error } = await owner.client.rpc('update_character', { character_id: id, patch })
      codes.push((error as { code: string } | null)?.code)
    }

    expect(codes).toEqual(patches.map(() => '23514'))
  })

  it('K-03 is deleted for good, and other people’s conversations with it stay readable', async () => {
    const [owner, guest] = await Promise.all([signUp(), signUp()])
    const { id } = await create(owner, { greeting: 'Good evening.' })
    await owner.client.rpc('update_character', { character_id: id, patch: definition })
    const { data: talk } = await guest.client.rpc('start_conversation', { character_id: id })

    const { error } = await owner.client.rpc('delete_character', { character_id: id })

    expect(error).toBeNull()
    const { data: messages } = await guest.client.from('messages').select('content').eq('conversation_id', talk!.id)
    expect(messages).toEqual([{ content: 'Good evening.' }])
    const answer = await guest.client.rpc('send_message', { conversation_id: talk!.id, content: 'Are you there?' })
    expect([answer.status, code(answer)]).toEqual([409, 'character_unavailable'])
    const gone = await guest.client.rpc('get_character', { character_id: id })
    expect([gone.status, code(gone)]).toEqual([404, 'character_not_found'])
    const kept = await database()`
      select to_jsonb(c)::text || coalesce((select string_agg(v.snapshot::text, '') from character_versions as v where v.character_id = c.id), '')
        || coalesce((select d::text from character_definitions as d where d.character_id = c.id), '') as text
      from characters as c where c.id = ${id}`
    expect(kept[0]!.text).not.toContain(secret)
  })

  it('K-04 is read by its id, and absent where there is none or one may not see it', async () => {
    const [owner, other] = await Promise.all([signUp(), signUp()])
    const hidden = await create(owner, { visibility: 'private' })
    const linked = await create(owner, { visibility: 'unlisted', name: 'Linked' })

    const read = (who: Client, id: string) => who.rpc('get_character', { character_id: id })

    expect((await read(anonymous(), linked.id)).data).toMatchObject({ name: 'Linked' })
    for (const id of [hidden.id, randomUUID()]) {
      const absent = await read(other.client, id)
      expect([absent.status, code(absent)]).toEqual([404, 'character_not_found'])
    }
    expect((await read(owner.client, hidden.id)).data).toMatchObject({ id: hidden.id })
  })

  it('K-05 is changed by its owner alone; another’s looks absent', async () => {
    const [owner, other] = await Promise.all([signUp(), signUp()])
    const { id } = await create(owner)

    const refused = [
      await other.client.rpc('update_character', { character_id: id, patch: { name: 'Mine' } }),
      await other.client.rpc('delete_character', { character_id: id }),
      await other.client.rpc('replace_lorebook', { lorebook: { name: 'Mine' }, character_id: id }),
    ]
    const unchanged = await other.client.from('characters').update({ name: 'Mine' }).eq('id', id).select()

    expect(refused.map((answer) => [answer.status, code(answer)])).toEqual(Array(3).fill([404, 'character_not_found']))
    expect(unchanged.data).toEqual([])
    expect((await owner.client.rpc('get_character', { character_id: id })).data).toMatchObject({ name: 'Mira' })
  })

  it('B-12 keeps the version that a conversation began with, for who talks in it', async () => {
    const [owner, guest] = await Promise.all([signUp(), signUp()])
    const { id } = await create(owner, { greeting: 'First.' })
    const before = await guest.client.rpc('start_conversation', { character_id: id })

    await owner.client.rpc('update_character', {
      character_id: id,
      patch: { greeting: 'Second.', personality: 'New.' },
    })
    const after = await guest.client.rpc('start_conversation', { character_id: id })

    expect([before.data!.character_version, after.data!.character_version]).toEqual([1, 2])
    const { data } = await owner.client
      .from('character_versions')
      .select('version, snapshot')
      .eq('character_id', id)
      .order('version')
    expect(data).toMatchObject([
      { version: 1, snapshot: { greeting: 'First.', personality: '' } },
      { version: 2, snapshot: { greeting: 'Second.', personality: 'New.' } },
    ])
    expect((await guest.client.from('character_versions').select()).data).toEqual([])
  })
})

describe('search', () => {
  it('K-04 finds public characters by words and tags, page by page', async () => {
    const [owner, seeker] = await Promise.all([signUp(), signUp()])
    const word = `w${randomUUID().replaceAll('-', '').slice(0, 20)}`
    for (const name of [`${word} the first`, 'Second', 'Third']) {
      await create(owner, { name, description: `Knows ${word}.`, tags: [word] })
    }
    await create(owner, { name: `${word} hidden`, visibility: 'private', tags: [word] })

    const names = async (args: object) =>
      (await seeker.client.rpc('search_characters', args)).data!.map((row) => row.name)
    const first = await seeker.client.rpc('search_characters', { query: word, page_size: 2 })
    const rest = await seeker.client.rpc('search_characters', {
      query: word,
      page_size: 2,
      cursor: first.data![1]!.cursor!,
    })

    expect(first.data!.map((row) => row.name)).toEqual([`${word} the first`, 'Third'])
    expect(rest.data!.map((row) => row.name)).toEqual(['Second'])
    expect(await names({ tags: [word] })).toEqual(['Third', 'Second', `${word} the first`])
    expect(await names({ query: 'second', tags: [word] })).toEqual(['Second'])
    const wrong = await anonymous().rpc('search_characters', { cursor: 'page 2' })
    expect([wrong.status, code(wrong)]).toEqual([422, 'cursor_invalid'])
  })
})

describe('pictures', () => {
  const media = (who: Client) => who.storage.from('character-media')
  const upload = (person: Person, path: string, body: Buffer = png, contentType = 'image/png') =>
    media(person.client).upload(path, body, { contentType })

  it('K-16 of a character lie in the owner’s folder of avatars, and nobody puts one elsewhere', async () => {
    const [owner, other] = await Promise.all([signUp(), signUp()])
    const path = `${owner.id}/${randomUUID()}.png`
    const { id } = await create(owner)

    const stored = await owner.client.storage.from('avatars').upload(path, png, { contentType: 'image/png' })
    const chosen = await owner.client.from('characters').update({ avatar_path: path }).eq('id', id)
    const foreign = await other.client.storage
      .from('avatars')
      .upload(`${owner.id}/x.png`, png, { contentType: 'image/png' })
    const claimed = await other.client.from('characters').insert({ name: 'Thief', age: 30, avatar_path: path })
    const avatars = other.client.storage.from('avatars')
    const refused = [
      await avatars.update(path, png, { contentType: 'image/png' }),
      await avatars.move(path, `${other.id}/x.png`),
      await avatars.copy(path, `${other.id}/x.png`),
      await avatars.createSignedUploadUrl(`${owner.id}/y.png`),
    ]
    await avatars.remove([path])

    expect([stored.error, chosen.error]).toEqual([null, null])
    expect(foreign.error).not.toBeNull()
    expect(claimed.error).toMatchObject({ code: '23514' })
    expect(refused.map(({ error }) => error !== null)).toEqual(refused.map(() => true))
    expect((await avatars.list(owner.id)).data).toEqual([])
    const shown = await fetch(`${url}/storage/v1/object/public/avatars/${path}`)
    expect(Buffer.from(await shown.arrayBuffer()).equals(png)).toBe(true)
  })

  it('K-03 of its gallery are read by whoever may see the character, and listed by their owner alone', async () => {
    const [owner, other] = await Promise.all([signUp(), signUp()])
    const [open, closed] = [await create(owner), await create(owner, { visibility: 'private' })]
    const paths = [
      `${owner.id}/${randomUUID()}.png`,
      `${owner.id}/${randomUUID()}.png`,
      `${owner.id}/${randomUUID()}.png`,
    ]
    for (const path of paths) expect((await upload(owner, path)).error).toBeNull()
    const rows = await owner.client.from('character_media').insert([
      { character_id: open.id, path: paths[0]!, caption: 'On deck' },
      { character_id: closed.id, path: paths[1]!, caption: '' },
    ])
    expect(rows.error).toBeNull()

    for (const who of [other.client, anonymous()]) {
      expect((await media(who).download(paths[0]!)).error).toBeNull()
      expect((await media(who).createSignedUrl(paths[0]!, 60)).error).toBeNull()
      // Of a private character, and of none.
      for (const path of paths.slice(1)) {
        expect((await media(who).download(path)).error).not.toBeNull()
        expect((await media(who).createSignedUrl(path, 60)).error).not.toBeNull()
      }
      expect((await media(who).list(owner.id)).data).toEqual([])
      expect((await who.from('character_media').select('path')).data).toContainEqual({ path: paths[0] })
      expect((await who.from('character_media').select('path')).data).not.toContainEqual({ path: paths[1] })
    }
    expect((await media(owner.client).list(owner.id)).data).toHaveLength(3)
    // An unlisted one stands in no list, and shows its pictures to who has its id.
    await owner.client.from('characters').update({ visibility: 'unlisted' }).eq('id', open.id)
    expect((await other.client.from('character_media').select('path')).data).not.toContainEqual({ path: paths[0] })
    const shown = await other.client.rpc('get_character_media', { character_id: open.id })
    expect(shown.data).toMatchObject([{ path: paths[0], caption: 'On deck' }])
    expect((await media(other.client).download(paths[0]!)).error).toBeNull()
    const absent = await other.client.rpc('get_character_media', { character_id: closed.id })
    expect([absent.status, code(absent)]).toEqual([404, 'character_not_found'])
    expect((await fetch(`${url}/storage/v1/object/public/character-media/${paths[0]}`)).ok).toBe(false)

    await owner.client.from('characters').update({ is_mature: true }).eq('id', open.id)
    expect((await media(other.client).download(paths[0]!)).error).not.toBeNull()
    await other.client.rpc('confirm_mature_content')
    expect((await media(other.client).download(paths[0]!)).error).toBeNull()
    await owner.client.from('blocks').insert({ blocked_id: other.id })
    expect((await media(other.client).download(paths[0]!)).error).not.toBeNull()
  })

  it('K-03 go with their character, but for those that their owner shows elsewhere, and conversations stay', async () => {
    const [owner, other] = await Promise.all([signUp(), signUp()])
    const [doomed, kept] = [await create(owner), await create(owner)]
    const avatars = owner.client.storage.from('avatars')
    const [own, shared, clip] = [`${owner.id}/own.png`, `${owner.id}/shared.png`, `${owner.id}/clip.png`]
    const stored = [
      await avatars.upload(own, png, { contentType: 'image/png' }),
      await avatars.upload(shared, png, { contentType: 'image/png' }),
      await upload(owner, clip),
      await owner.client.from('characters').update({ avatar_path: own }).eq('id', doomed.id),
      await owner.client.from('characters').update({ avatar_path: shared }).eq('id', kept.id),
      await owner.client.from('character_media').insert({ character_id: doomed.id, path: clip }),
    ]
    expect(stored.map(({ error }) => error)).toEqual(stored.map(() => null))
    const talk = await other.client.rpc('start_conversation', { character_id: doomed.id })
    const another = await create(owner, { avatar_path: shared })

    for (const { id } of [doomed, another]) {
      expect((await owner.client.rpc('delete_character', { character_id: id })).error).toBeNull()
    }

    const left = async () => [
      ...(await avatars.list(owner.id)).data!.map(({ name }) => name),
      ...(await media(owner.client).list(owner.id)).data!.map(({ name }) => name),
    ]
    await until(async () => (await left()).length === 1, 20_000)
    expect(await left()).toEqual(['shared.png'])
    expect((await fetch(`${url}/storage/v1/object/public/avatars/${own}`)).ok).toBe(false)
    expect((await fetch(`${url}/storage/v1/object/public/avatars/${shared}`)).ok).toBe(true)
    const { data: list } = await other.client.rpc('list_conversations')
    expect(list).toMatchObject([{ id: talk.data!.id, character_id: null, character_avatar_path: null }])
    expect((await other.client.from('conversations').select('title').eq('id', talk.data!.id)).data).toHaveLength(1)
  })

  it('K-03 are refused in another’s folder, of another type and beyond the size, and are nobody else’s to change', async () => {
    const [owner, other] = await Promise.all([signUp(), signUp()])
    const path = `${owner.id}/${randomUUID()}.png`
    expect((await upload(owner, path)).error).toBeNull()
    const { id } = await create(owner)

    const refused = [
      await upload(other, `${owner.id}/x.png`),
      await upload(owner, `${owner.id}/x.svg`, Buffer.from('<svg/>'), 'image/svg+xml'),
      await upload(owner, `${owner.id}/x.html`, Buffer.from('<script>'), 'text/html'),
      await upload(owner, `${owner.id}/x.png`, Buffer.alloc(20 * 1024 * 1024 + 1)),
      await media(other.client).update(path, png, { contentType: 'image/png' }),
      await media(other.client).move(path, `${other.id}/x.png`),
      await media(other.client).copy(path, `${other.id}/x.png`),
    ]
    await media(other.client).remove([path])
    const foreign = await other.client.from('character_media').insert({ character_id: id, path: `${other.id}/x.png` })
    const claimed = await other.client.from('character_media').insert({ character_id: (await create(other)).id, path })

    expect(refused.map((answer) => answer.error !== null)).toEqual(refused.map(() => true))
    expect(foreign.error).toMatchObject({ code: '42501' })
    expect(claimed.error).toMatchObject({ code: '23514' })
    expect((await media(owner.client).list(owner.id)).data).toHaveLength(1)
  })
})

describe('reports', () => {
  it('reach moderators with what was reported, and hide it', async () => {
    const [owner, reporter, moderator] = await Promise.all([signUp(), signUp(), signUp()])
    await database()`select admin.grant_role(${moderator.id}, 'moderator')`
    const { id } = await create(owner, { description: 'Something vile.' })

    const filed = await reporter.client.rpc('report_content', {
      kind: 'character',
      id,
      reason: 'hate',
      detail: 'Read it.',
    })
    await owner.client.from('characters').update({ description: 'Something nice.' }).eq('id', id)
    const { data } = await moderator.client.rpc('list_reports', { page_size: 100 })
    await moderator.client.rpc('hide_character', { character_id: id })
    await moderator.client.rpc('resolve_report', { report_id: filed.data!.id, outcome: 'upheld' })

    expect((data as Record<string, unknown>[]).find((report) => report.id === filed.data!.id)).toMatchObject({
      accused_id: owner.id,
      evidence: { description: 'Something vile.' },
    })
    const gone = await reporter.client.rpc('get_character', { character_id: id })
    expect([gone.status, code(gone)]).toEqual([404, 'character_not_found'])
    expect((await reporter.client.from('reports').select('status')).data).toEqual([{ status: 'upheld' }])
    const refused = await reporter.client.rpc('list_reports')
    expect([refused.status, code(refused)]).toEqual([403, 'moderator_role_required'])
  })
})
