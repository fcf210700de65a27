import { randomUUID } from 'node:crypto'
import OpenAI, { NotFoundError, PermissionDeniedError } from 'openai'
import { beforeAll, describe, expect, it } from 'vitest'
import { marker, modelRequests } from './support/chat.ts'
import { database, functionsUrl, type Person, signUp } from './support/local.ts'

const sql = database()
const baseURL = `${functionsUrl}/openai/v1`
const clientOf = (apiKey: string) => new OpenAI({ apiKey, baseURL, maxRetries: 0, organization: null, project: null })
const ask = (content: string): OpenAI.ChatCompletionMessageParam[] => [{ role: 'user', content }]
const failure = (call: PromiseLike<unknown>) =>
  call.then(
    (value) => {
      throw new Error(`It did not fail, but gave ${JSON.stringify(value)}.`)
    },
    (error) => error,
  )

/** A character of somebody's with something to know of it that only its owner may. */
async function createCharacter(owner: Person, row: object = {}) {
  const secret = `secret ${randomUUID()}`
  const { data, error } = await owner.client
    .from('characters')
    .insert({ name: 'Mira Vell', age: 30, visibility: 'public', greeting: 'Hello, {{user}}.', ...row })
    .select()
    .single()
  if (error) throw error
  const { error: refused } = await owner.client
    .from('character_definitions')
    .update({ system_instruction: `You are Mira, a pilot. ${secret}` })
    .eq('character_id', data.id)
  if (refused) throw refused
  return { id: data.id, model: `character:${data.id}`, secret }
}

let owner: Person
let other: Person
let client: OpenAI
beforeAll(async () => {
  owner = await signUp()
  other = await signUp()
  const { data } = await other.client.rpc('create_api_key', { name: 'Client' })
  client = clientOf((data as unknown as { key: string }).key)
})

describe('a character as a model', () => {
  it('B-26 answers any OpenAI client as itself, with the history that the client sends', async () => {
    const character = await createCharacter(owner)
    const said = marker()
    const messages: OpenAI.ChatCompletionMessageParam[] = [
      { role: 'system', content: 'You are a helpful assistant.' },
      { role: 'user', content: 'Where are we?' },
      { role: 'assistant', content: 'Above the clouds.' },
      ...ask(said),
    ]

    const completion = await client.chat.completions.create({ model: character.model, messages })

    expect(completion.model).toBe(character.model)
    expect(completion.choices[0]!.message.content).toContain(said)
    expect(JSON.stringify(completion)).not.toContain(character.secret)
    const [request] = await modelRequests(said)
    const [system, ...history] = request!.body.messages as { role: string; content: string }[]
    expect(system).toMatchObject({ role: 'system' })
    expect(system!.content).toContain(character.secret)
    expect(system!.content).not.toContain('helpful assistant')
    expect(history).toEqual(messages.slice(1))
    const [left] = await sql`select count(*)::int as kept from public.conversations where owner_id = ${other.id}`
    expect(left!.kept).toBe(0)
  })

  it('B-26 streams, and its lore and newest version are in', async () => {
    const character = await createCharacter(owner)
    await sql`
      with book as (
        insert into public.lorebooks (owner_id, character_id, name) values (${owner.id}, ${character.id}, 'Lore') returning id
      )
      insert into public.lore_entries (lorebook_id, owner_id, keys, content, is_constant)
      select id, ${owner.id}, array['ship'], 'The ship is called Heron.', true from book`
    await owner.client
      .from('character_definitions')
      .update({ system_instruction: 'You are Mira, a captain now.' })
      .eq('character_id', character.id)
    const said = marker()

    const text = await client.chat.completions.stream({ model: character.model, messages: ask(said) }).finalContent()

    expect(text).toContain(said)
    const [request] = await modelRequests(said)
    const sent = JSON.stringify(request!.body.messages)
    expect(sent).toContain('a captain now')
    expect(sent).toContain('Heron')
    expect(sent).not.toContain(character.secret)
  })

  it('is there for those alone who may see it', async () => {
    const hidden = await createCharacter(owner, { visibility: 'private' })
    const unlisted = await createCharacter(owner, { visibility: 'unlisted' })
    const mature = await createCharacter(owner, { is_mature: true })
    const blocking = await signUp()
    const theirs = await createCharacter(blocking)
    await blocking.client.from('blocks').insert({ blocked_id: other.id })
    const create = (model: string, by = client) => by.chat.completions.create({ model, messages: ask('Hi') })

    for (const model of [hidden.model, theirs.model, `character:${randomUUID()}`]) {
      const error = await failure(create(model))
      expect(error).toBeInstanceOf(NotFoundError)
      expect(error).toMatchObject({ code: 'model_not_found', param: 'model' })
      expect(error.error.reason).toBe('character_not_found')
    }
    const refused = await failure(create(mature.model))
    expect(refused).toBeInstanceOf(PermissionDeniedError)
    expect(refused.code).toBe('mature_confirmation_required')
    expect((await create(unlisted.model)).choices).toHaveLength(1)
    expect((await create(hidden.model, clientOf(owner.token))).choices).toHaveLength(1)
  })

  it('M-07 stands in the list of its owner, and is found by its id by who may see it', async () => {
    const hidden = await createCharacter(owner, { visibility: 'private' })
    const open = await createCharacter(owner)
    const listed = async (by: OpenAI) => (await by.models.list()).data.map(({ id }) => id)

    expect(await listed(clientOf(owner.token))).toEqual(expect.arrayContaining([hidden.model, open.model]))
    expect(await listed(client)).not.toContain(open.model)
    expect(await client.models.retrieve(open.model)).toMatchObject({
      id: open.model,
      name: 'Mira Vell',
      kind: 'character',
    })
    expect(await failure(client.models.retrieve(hidden.model))).toBeInstanceOf(NotFoundError)
  })
})
