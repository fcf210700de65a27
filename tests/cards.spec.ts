import { deepStrictEqual } from 'node:assert'
import { randomUUID } from 'node:crypto'
import { deflateSync } from 'node:zlib'
import fc from 'fast-check'
import { beforeEach, describe, expect, it } from 'vitest'
import * as given from './support/cards.ts'
import { database, functionsUrl, type Person, publishableKey, signUp, url } from './support/local.ts'
import {
  animatedPng,
  cardChunk,
  cardIn,
  decodePng,
  encodePng,
  shownChunks,
  textChunk,
  withChunks,
} from './support/png.ts'

// biome-ignore lint/suspicious/noExplicitAny: answers are documents; tests look into whatever they hold
type Answer = { status: number; body: any; response: Response }

// A new one each time: a plan has room for 25 characters.
let owner: Person
beforeEach(async () => {
  owner = await signUp()
})

async function answer(response: Response): Promise<Answer> {
  const isFile = response.headers.get('content-type')?.startsWith('image/')
  return {
    status: response.status,
    body: isFile ? new Uint8Array(await response.arrayBuffer()) : await response.json(),
    response,
  }
}

interface ImportOptions {
  person?: Person
  type?: string
  query?: string
  key?: string
}

/** Imports a file, or a card as JSON. */
async function importCard(card: unknown, { person = owner, type, query = 'age=30', key }: ImportOptions = {}) {
  const isFile = card instanceof Uint8Array
  const response = await fetch(`${functionsUrl}/characters/import?${query}`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${person.token}`,
      'content-type': type ?? (isFile ? 'image/png' : 'application/json'),
      ...(key && { 'idempotency-key': key }),
    },
    body: isFile ? (card as Uint8Array<ArrayBuffer>) : typeof card === 'string' ? card : JSON.stringify(card),
  })
  return answer(response)
}

async function get(path: string, person = owner) {
  return answer(
    await fetch(`${functionsUrl}/characters/${path}`, { headers: { authorization: `Bearer ${person.token}` } }),
  )
}

async function imported(card: unknown, options: ImportOptions = {}) {
  const { status, body } = await importCard(card, options)
  expect([status, body.code]).toEqual([201, undefined])
  return body as {
    character: { id: string; name: string } & Record<string, unknown>
    spec: string
    warnings: { code: string }[]
  }
}

const v1 = {
  name: 'Mira',
  description: '{{char}} flies the ship.',
  personality: 'dry, loyal',
  scenario: 'On the way to Vega.',
  first_mes: 'Hello, {{user}}.',
  mes_example: '<START>\n{{user}}: Hi\n{{char}}: Hm.',
}

const entry = {
  keys: ['ship', 'vessel'],
  content: 'The ship is old.',
  extensions: { 'app/x': { kept: true } },
  enabled: true,
  insertion_order: 10,
  case_sensitive: false,
  name: 'Ship',
  priority: 5,
  id: 1,
  comment: 'about the ship',
  selective: true,
  secondary_keys: ['old'],
  constant: false,
  position: 'after_char',
}

const v2 = {
  spec: 'chara_card_v2',
  spec_version: '2.0',
  data: {
    ...v1,
    creator_notes: 'Be kind to her.',
    system_prompt: '{{original}} You are Mira.',
    post_history_instructions: 'Stay brief. {{original}}',
    alternate_greetings: ['Oh. You.', 'Strap in.'],
    tags: ['Sci-Fi', 'Slow Burn', 'sci-fi'],
    creator: 'ann',
    character_version: '1.2',
    extensions: {
      depth_prompt: { prompt: 'She is tired.', depth: 3, role: 'system' },
      talkativeness: '0.5',
      fav: false,
      'other/app': [1, null],
    },
    character_book: {
      name: 'Ships',
      description: 'Of the line',
      scan_depth: 4,
      token_budget: 500,
      recursive_scanning: true,
      extensions: { a: 1 },
      entries: [entry, { keys: ['Vega'], content: '', extensions: {}, enabled: false, insertion_order: -1.5 }],
      unknown_in_book: 'kept',
    },
    unknown_in_data: { deep: [{ er: 'still' }] },
  },
  unknown_at_root: true,
}

const v3 = {
  spec: 'chara_card_v3',
  spec_version: '3.0',
  data: {
    ...v2.data,
    nickname: 'Mi',
    creator_notes_multilingual: { de: 'Sei nett zu ihr.' },
    source: ['https://example.com/mira', 'id:7'],
    group_only_greetings: ['Hello, all of you.'],
    creation_date: 1_700_000_000,
    modification_date: 0,
    assets: [
      { type: 'icon', uri: 'ccdefault:', name: 'main', ext: 'png' },
      { type: 'emotion', uri: 'http://127.0.0.1:1/asked-for-nothing.png', name: 'neutral', ext: 'png' },
      { type: 'x_custom', uri: 'embeded://assets/x.bin', name: 'x', ext: 'unknown' },
    ],
    character_book: {
      ...v2.data.character_book,
      entries: [
        { ...entry, use_regex: false, id: 'ship' },
        { ...entry, use_regex: true, keys: ['/ship[s]?/i', '(?<=no )look', '(broken'], id: 2 },
        { ...entry, use_regex: false, content: '@@depth 2\n@@unknown 1\n@@@role user\nThe ship hums.' },
      ],
    },
  },
}

/** One card with both chunks, the same object under two names, as SillyTavern writes it. */
const sillyTavern = () => {
  const card = {
    ...v2,
    data: {
      ...v2.data,
      character_book: {
        name: 'Ships',
        entries: [
          {
            id: 0,
            keys: ['Mr. Smith'],
            secondary_keys: [],
            comment: '',
            content: 'A captain.',
            constant: true,
            selective: true,
            insertion_order: 100,
            enabled: true,
            position: 'after_char',
            use_regex: true,
            extensions: {
              position: 4,
              depth: 4,
              role: 0,
              selectiveLogic: 0,
              match_whole_words: null,
              case_sensitive: null,
              probability: 100,
            },
          },
        ],
        extensions: {},
      },
    },
    ...v1,
    creatorcomment: v2.data.creator_notes,
    avatar: 'none',
    talkativeness: '0.5',
    fav: false,
    tags: v2.data.tags,
    create_date: '2024-9-28 @01h 02m 36s 100ms',
  }
  return { card, ccv3: { ...card, spec: 'chara_card_v3', spec_version: '3.0' } }
}

describe('B-10 a card as JSON', () => {
  it.each([
    ['v1', v1],
    ['v1', { ...v1, extra: 'kept', nested: { a: [1] } }],
    ['v2', v2],
    ['v3', v3],
    ['v2', { ...v2, ...v1 }],
  ] as const)('of %s comes in and goes out as it was', async (spec, card) => {
    const { character, spec: read } = await imported(card)

    const out = await get(`${character.id}/export?spec=${spec}`)

    expect(read).toBe(spec)
    expect(out.status).toBe(200)
    expect(out.body).toStrictEqual(card)
  })

  it('fills the columns that clients read, privately and as an adult', async () => {
    const { character } = await imported(v3, { query: 'age=44' })

    const row = await owner.client.from('characters').select().eq('id', character.id).single()
    const definition = await owner.client
      .from('character_definitions')
      .select()
      .eq('character_id', character.id)
      .single()
    const book = await owner.client
      .from('lorebooks')
      .select('*, lore_entries(*)')
      .eq('character_id', character.id)
      .single()

    expect(row.data).toMatchObject({
      name: 'Mira',
      nickname: 'Mi',
      description: '',
      greeting: 'Hello, {{user}}.',
      alternate_greetings: ['Oh. You.', 'Strap in.'],
      tags: ['sci-fi', 'slow burn'],
      visibility: 'private',
      age: 44,
      is_mature: false,
      creator_notes: 'Be kind to her.',
      creator: 'ann',
      card_version: '1.2',
      version: 1,
      avatar_path: null,
    })
    expect(definition.data).toMatchObject({
      system_instruction: '{{original}} You are Mira.',
      personality: 'dry, loyal',
      backstory: '{{char}} flies the ship.',
      post_history_instructions: 'Stay brief. {{original}}',
      group_only_greetings: ['Hello, all of you.'],
      depth_prompt: { prompt: 'She is tired.', depth: 3, role: 'system' },
    })
    expect(book.data).toMatchObject({ name: 'Ships', scan_depth: 4, token_budget: 500, is_recursive: true })
    const entries = book.data!.lore_entries.sort((a, b) => a.position_in_book - b.position_in_book)
    expect(entries).toMatchObject([
      { keys: ['ship', 'vessel'], is_selective: true, secondary_keys: ['old'], priority: 5, placement: 'after_char' },
      { keys: ['/ship[s]?/i'], uses_regex: true },
      { content: '@@depth 2\n@@unknown 1\n@@@role user\nThe ship hums.' },
    ])
  })

  it('reports patterns that can never match here, and gives them back', async () => {
    const { warnings } = await imported(v3)

    expect(warnings).toEqual([
      {
        pointer: '#/data/character_book/entries/1/keys',
        code: 'lore_pattern_not_understood',
        detail: expect.any(String),
      },
      {
        pointer: '#/data/character_book/entries/1/keys',
        code: 'lore_pattern_not_understood',
        detail: expect.any(String),
      },
    ])
  })

  it('goes out in every other version', async () => {
    const { character } = await imported(v2)

    const asV1 = await get(`${character.id}/export?spec=v1`)
    const asV3 = await get(`${character.id}/export`)

    expect(asV1.body).toEqual(v1)
    expect(asV3.body).toMatchObject({
      spec: 'chara_card_v3',
      data: { ...v1, group_only_greetings: [], tags: v2.data.tags },
    })
    expect(asV3.response.headers.get('content-disposition')).toContain('filename="Mira.json"')
  })

  it('is repaired where editors are careless, and stays right from then on', async () => {
    const { character } = await imported({
      spec: 'chara_card_v2',
      spec_version: 2,
      data: {
        name: 'Ann',
        alternate_greetings: null,
        tags: 'a, b',
        character_version: 2,
        character_book: null,
        extensions: null,
      },
    })

    const { body } = await get(`${character.id}/export?spec=v2`)

    expect(body).toStrictEqual({
      spec: 'chara_card_v2',
      spec_version: '2.0',
      data: {
        ...{ name: 'Ann', description: '', personality: '', scenario: '', first_mes: '', mes_example: '' },
        ...{ creator_notes: '', system_prompt: '', post_history_instructions: '', creator: '', character_version: '2' },
        ...{ alternate_greetings: [], tags: ['a', 'b'], extensions: {} },
      },
    })
  })

  it('with an id that no double holds comes in with a warning', async () => {
    const text = JSON.stringify({ ...v2, data: { ...v2.data, extensions: { id: 0 } } })

    const { warnings } = await imported(text.replace('"id":0', '"id":1234567890123456789'))

    expect(warnings).toEqual([{ pointer: '#/data/extensions/id', code: 'number_rounded', detail: expect.any(String) }])
  })

  it('of a newer version comes in with a warning', async () => {
    const { character, warnings } = await imported({ ...v3, spec_version: '3.7', data: { ...v3.data, telepathy: 3 } })

    expect(warnings.map(({ code }) => code)).toContain('card_version_newer')
    expect((await get(`${character.id}/export`)).body).toMatchObject({ spec_version: '3.7', data: { telepathy: 3 } })
  })

  it('has the edit that was made since it came in, and says when', async () => {
    const { character } = await imported(v3)
    const patch = { personality: 'warm', tags: ['space'] }
    expect((await owner.client.rpc('update_character', { character_id: character.id, patch })).error).toBeNull()

    const { body } = await get(`${character.id}/export`)

    expect(body).toStrictEqual({
      ...v3,
      data: { ...v3.data, ...patch, modification_date: expect.any(Number) },
    })
    expect(body.data.modification_date).toBeGreaterThan(1_700_000_000)
  })

  it('of a character that was made here has all of it', async () => {
    const { data } = await owner.client
      .from('characters')
      .insert({ name: 'Nora', age: 30, greeting: 'Hm?', tags: ['noir'], description: 'A detective.' })
      .select()
      .single()
    await owner.client.from('character_definitions').update({ backstory: 'Lost a case.' }).eq('character_id', data!.id)
    await owner.client.rpc('replace_lorebook', {
      character_id: data!.id,
      lorebook: {
        name: 'Town',
        entries: [{ keys: ['rain'], content: 'It rains.', placement: 'at_depth', depth: 2, role: 'user' }],
      },
    })

    const { body } = await get(`${data!.id}/export`)
    const again = await imported(body)

    expect(body.data).toMatchObject({
      name: 'Nora',
      description: 'A detective.\n\nLost a case.',
      first_mes: 'Hm?',
      creation_date: expect.any(Number),
      character_book: { name: 'Town', entries: [{ keys: ['rain'], extensions: { position: 4, depth: 2, role: 1 } }] },
    })
    expect((await get(`${again.character.id}/export`)).body).toStrictEqual(body)
  })

  it('comes back from the database as it went in, whatever it holds', async () => {
    const cards = fc.oneof(
      given.cardV1.map((card) => ['v1', card] as const),
      given.cardV2.map((card) => ['v2', card] as const),
      given.cardV3.map((card) => ['v3', card] as const),
    )
    await fc.assert(
      fc.asyncProperty(cards, async ([spec, card]) => {
        const { character } = await imported(card)
        const { body } = await get(`${character.id}/export?spec=${spec}`)
        await owner.client.rpc('delete_character', { character_id: character.id })
        // Not by vitest, which takes a key named `constructor` for a type.
        deepStrictEqual(body, card)
      }),
      { numRuns: 25 },
    )
  })
})

describe('B-10 a card in a picture', () => {
  const picture = animatedPng()
  const file = (...chunks: Parameters<typeof withChunks>[1]) => new Uint8Array(encodePng(withChunks(picture, chunks)))

  it('comes in and goes out with all that shows of the picture, animation included', async () => {
    const { character, warnings } = await imported(file(cardChunk('ccv3', v3)))

    const { body, response } = await get(`${character.id}/export?format=png`)

    expect(warnings.filter(({ code }) => code === 'picture_not_stored')).toEqual([])
    expect(response.headers.get('content-type')).toBe('image/png')
    expect(cardIn(body, 'ccv3')).toStrictEqual(v3)
    expect(cardIn(body, 'chara')).toMatchObject({
      spec: 'chara_card_v2',
      data: {
        name: 'Mira',
        creator_notes: expect.stringMatching(/^This is the V2 copy of a V3 card.*\n\nBe kind to her\.$/s),
      },
    })
    const isCard = ({ type, data }: { type: string; data: Buffer }) =>
      type === 'tEXt' && /^(ccv3|chara)\0/.test(data.toString('latin1'))
    expect(decodePng(body).filter((chunk) => !isCard(chunk))).toEqual(shownChunks(picture))
  })

  it('of V2 and V1 goes out in the one chunk that they know', async () => {
    const { character } = await imported(file(cardChunk('Chara', v2)))

    const asV2 = await get(`${character.id}/export?format=png&spec=v2`)
    const asV1 = await get(`${character.id}/export?format=png&spec=v1`)

    expect(cardIn(asV2.body, 'chara')).toStrictEqual(v2)
    expect(cardIn(asV2.body, 'ccv3')).toBeUndefined()
    expect(cardIn(asV1.body, 'chara')).toStrictEqual(v1)
  })

  it('as SillyTavern writes it, in both chunks, keeps both forms', async () => {
    const { card, ccv3 } = sillyTavern()

    const { character, spec } = await imported(file(cardChunk('chara', card), cardChunk('ccv3', ccv3)))

    expect(spec).toBe('v3')
    const { body } = await get(`${character.id}/export?spec=v3`)
    expect(body).toStrictEqual({ ...ccv3, data: { ...ccv3.data, group_only_greetings: [] } })
    const { data } = await owner.client
      .from('lore_entries')
      .select('*, lorebooks!inner(character_id)')
      .eq('lorebooks.character_id', character.id)
    expect(data).toMatchObject([
      { keys: ['Mr. Smith'], uses_regex: false, is_constant: true, placement: 'at_depth', depth: 4, role: 'system' },
    ])
  })

  it('gives the character its avatar, and the file of the avatar tells nothing of the definition', async () => {
    const secret = `secret ${randomUUID()}`
    const card = { ...v2, data: { ...v2.data, system_prompt: secret } }
    const copies = [cardChunk('Chara ', card), textChunk('naidata', secret)]
    const trailing = Buffer.concat([file(cardChunk('chara', card), ...copies), Buffer.from(secret)])

    const { character } = await imported(new Uint8Array(trailing))

    const { data } = await owner.client.from('characters').select('avatar_path').eq('id', character.id).single()
    expect(data?.avatar_path).toBe(`${owner.id}/${character.id}.png`)
    const stored = await fetch(`${url}/storage/v1/object/public/avatars/${data?.avatar_path}`)
    expect(stored.headers.get('content-type')).toBe('image/png')
    expect(Buffer.from(await stored.arrayBuffer())).toEqual(encodePng(shownChunks(picture)))
  })

  it('may be sent by a form, or as bytes of no known type', async () => {
    const form = new FormData()
    form.append('file', new File([file(cardChunk('chara', v2))], 'mira.png'))
    form.append('age', '31')
    form.append('is_mature', 'true')
    const byForm = await owner.client.functions.invoke('characters/import', { body: form })
    const byClient = await owner.client.functions.invoke('characters/import?age=32', {
      body: new Blob([file(cardChunk('chara', v2))]),
    })

    expect(byForm.data.character).toMatchObject({ name: 'Mira', age: 31, is_mature: true })
    expect(byClient.data.character).toMatchObject({ name: 'Mira', age: 32, avatar_path: expect.any(String) })
  })

  it('of another format is refused as no PNG, whatever type it has; JSON is read under any', async () => {
    const formats = {
      jpeg: Buffer.from([0xff, 0xd8, 0xff, 0xe0]),
      gif: Buffer.from('GIF89a'),
      webp: Buffer.from('RIFF\0\0\0\0WEBPVP8 '),
      avif: Buffer.from('\0\0\0\x20ftypavif'),
      cutPng: Buffer.from([0x89, 0x50, 0x4e, 0x47]),
    }
    for (const [name, bytes] of Object.entries(formats)) {
      for (const type of ['image/png', 'application/octet-stream', 'application/json']) {
        const { status, body } = await importCard(new Uint8Array(bytes), { type })
        expect([name, type, status, body.code]).toEqual([name, type, 400, 'png_signature_missing'])
      }
    }
    const form = new FormData()
    form.append('file', new File([formats.jpeg], 'mira.jpg', { type: 'image/jpeg' }))
    const headers = { authorization: `Bearer ${owner.token}` }
    const byForm = await fetch(`${functionsUrl}/characters/import?age=30`, { method: 'POST', headers, body: form })

    expect((await answer(byForm)).body.code).toBe('png_signature_missing')
    expect((await importCard(new Uint8Array(8), { type: 'image/png' })).body.code).toBe('png_signature_missing')
    expect((await importCard(`\n ${JSON.stringify(v1)}`, { type: 'image/png' })).status).toBe(201)
  })

  it('of a character whose avatar is no PNG is a plain picture', async () => {
    const { character } = await imported(v2)

    const { body } = await get(`${character.id}/export?format=png&spec=v2`)

    expect(cardIn(body, 'chara')).toStrictEqual(v2)
    expect(decodePng(body)[0]?.data.readUInt32BE(0)).toBe(128)
  })

  it('of a character whose avatar is a damaged PNG is a plain picture', async () => {
    const { character } = await imported(file(cardChunk('chara', v2)))
    const damaged = new Blob([file().slice(0, -20)], { type: 'image/png' })
    const path = character.avatar_path as string
    const upload = await owner.client.storage.from('avatars').upload(path, damaged, { upsert: true })
    expect(upload.error).toBeNull()

    const { status, body } = await get(`${character.id}/export?format=png&spec=v2`)

    expect(status).toBe(200)
    expect(decodePng(body)[0]?.data.readUInt32BE(0)).toBe(128)
  })

  it('that is compressed, as image editors save it, is read', async () => {
    const packed = deflateSync(Buffer.from(JSON.stringify(v2)).toString('base64'))

    const { character } = await imported(
      file({ type: 'zTXt', data: Buffer.concat([Buffer.from('chara\0\0'), packed]) }),
    )

    expect((await get(`${character.id}/export?spec=v2`)).body).toStrictEqual(v2)
  })

  it('that is hostile or damaged is refused with a code and leaves nothing behind', async () => {
    const whole = Buffer.from(file(cardChunk('chara', v2)))
    const broken = (change: (bytes: Buffer) => void) => {
      const bytes = Buffer.from(whole)
      change(bytes)
      return new Uint8Array(bytes)
    }
    const bomb = deflateSync(Buffer.alloc(16_000_000, 'A'))
    const person = await signUp()

    const refused = async (...args: Parameters<typeof importCard>) => {
      const { status, body } = await importCard(args[0], { person, ...args[1] })
      return `${status} ${body.code}`
    }

    expect({
      length: await refused(broken((bytes) => bytes.writeUInt32BE(0xfffffff0, 8))),
      crc: await refused(broken((bytes) => bytes.writeUInt8(bytes.readUInt8(18) ^ 255, 18))),
      cut: await refused(new Uint8Array(whole.subarray(0, whole.length - 12))),
      bomb: await refused(file({ type: 'zTXt', data: Buffer.concat([Buffer.from('chara\0\0'), bomb]) })),
      base64: await refused(file(textChunk('chara', '{}'))),
      noCard: await refused(file()),
      size: await refused(new Uint8Array(9 * 1024 * 1024)),
      decodedSize: await refused(file(textChunk('ccv3', 'A'.repeat(6 * 1024 * 1024)))),
      notUtf8: await refused(file(textChunk('chara', Buffer.from([0xc3, 0x28]).toString('base64')))),
      jpeg: await refused(new Uint8Array([0xff, 0xd8, 0xff]), { type: 'image/jpeg' }),
      jpegAsPng: await refused(new Uint8Array([0xff, 0xd8, 0xff])),
      form: await refused('no form', { type: 'multipart/form-data; boundary=x' }),
    }).toEqual({
      length: '400 png_chunk_length_invalid',
      crc: '400 png_crc_mismatch',
      cut: '400 png_truncated',
      bomb: '413 png_text_too_large',
      base64: '400 card_base64_broken',
      noCard: '422 card_missing',
      size: '413 body_too_large',
      decodedSize: '413 card_too_large',
      notUtf8: '400 card_not_utf8',
      jpeg: '415 content_type_unsupported',
      jpegAsPng: '400 png_signature_missing',
      form: '400 body_unreadable',
    })
    expect((await person.client.from('characters').select().eq('owner_id', person.id)).data).toEqual([])
    expect((await person.client.storage.from('avatars').list(person.id)).data).toEqual([])
  })
})

describe('B-10 an import', () => {
  it('asks for the age of the character, which is an adult', async () => {
    for (const query of ['', 'age=', 'age=17', 'age=-1', 'age=x', 'age=18.5', 'age=30&other=1']) {
      const { status, body } = await importCard(v2, { query })
      expect([query, status, body.code]).toEqual([query, 422, 'request_invalid'])
    }
  })

  it('takes an age that is said once, in digits', async () => {
    const byForm = async (query: string, ...ages: string[]) => {
      const form = new FormData()
      form.append('file', new File([JSON.stringify(v1)], 'mira.json'))
      for (const age of ages) form.append('age', age)
      const headers = { authorization: `Bearer ${owner.token}` }
      const response = await fetch(`${functionsUrl}/characters/import${query}`, { method: 'POST', headers, body: form })
      return refusalOf(await answer(response))
    }
    const byQuery = async (query: string) => refusalOf(await importCard(v1, { query }))
    const refusalOf = ({ status, body }: Answer) => [status, body.character?.age ?? body.errors].flat()
    const contradicted = [422, { pointer: '#/age', code: 'value_contradicted', detail: expect.any(String) }]
    const malformed = [422, { pointer: '#/age', code: 'invalid_format', detail: expect.any(String) }]

    expect(await byQuery('age=27&age=12')).toEqual(contradicted)
    expect(await byForm('?age=27', '12')).toEqual(contradicted)
    expect(await byForm('', '12', '27')).toEqual(contradicted)
    for (const age of ['1e3', '0x1E', '30.0', '%2030', '%2B30']) expect(await byQuery(`age=${age}`)).toEqual(malformed)
    expect(await byForm('?age=27', '27')).toEqual([201, 27])
  })

  it.each([
    ['says so', v2, 'age=30&is_mature=true', true],
    ['has a tag that says so', { ...v2, data: { ...v2.data, tags: ['Space', ' NSFW'] } }, 'age=30', true],
    ['says so nowhere', v2, 'age=30', false],
  ])('makes a mature character where the request or the card %s', async (_, card, query, isMature) => {
    expect((await imported(card, { query })).character.is_mature).toBe(isMature)
  })

  it('is refused where the plan has no room for another character', async () => {
    const many = Array.from({ length: 25 }, (_, index) => ({ name: `No. ${index}`, age: 20 }))
    expect((await owner.client.from('characters').insert(many)).error).toBeNull()

    const { status, body } = await importCard(v2)

    expect([status, body.code]).toEqual([403, 'too_many_characters'])
  })

  it('with the same idempotency key makes one character, and with another card none', async () => {
    const key = randomUUID()
    const card = { ...v2, data: { ...v2.data, name: 'Once' } }

    const both = await Promise.all([imported(card, { key }), imported(card, { key })])
    const other = await importCard(v1, { key })

    expect(both[0].character.id).toBe(both[1].character.id)
    expect([other.status, other.body.code]).toEqual([409, 'idempotency_key_reused'])
    expect((await owner.client.from('characters').select('id').eq('name', 'Once')).data).toHaveLength(1)
  })

  it('names what it refuses, and where it stands', async () => {
    const nested = (levels: number): unknown => (levels === 0 ? 1 : { a: nested(levels - 1) })
    const withBook = (book: object) => ({
      ...v2,
      data: { ...v2.data, character_book: { extensions: {}, entries: [], ...book } },
    })
    const refused = async (card: unknown) => {
      const { status, body } = await importCard(card)
      return `${status} ${body.code} ${body.errors?.[0]?.pointer.slice(0, 60) ?? ''}`.trim()
    }

    expect({
      notJson: await refused('{"name"'),
      deep: await refused({ ...v2, deep: nested(40) }),
      abyss: await refused(`{"name": ${'['.repeat(100_000)}${']'.repeat(100_000)}}`),
      nul: await refused({ ...v2, data: { ...v2.data, extensions: { x: ['\u0000'] } } }),
      half: await refused('{"name":"x","first_mes":"\\ud83d"}'),
      number: await refused('{"name":"x","n":1e400}'),
      unknown: await refused({ hello: 'world' }),
      lorebook: await refused({ spec: 'lorebook_v3', data: { entries: [] } }),
      longText: await refused({ ...v1, scenario: 'x'.repeat(16_001) }),
      entries: await refused(withBook({ entries: Array(2001).fill(entry) })),
      key: await refused(withBook({ entries: [{ ...entry, keys: ['k'.repeat(201)] }] })),
      keys: await refused(withBook({ entries: [{ ...entry, keys: Array(65).fill('k') }] })),
      extras: await refused({ ...v2, data: { ...v2.data, extensions: { x: 'y'.repeat(300_000) } } }),
    }).toEqual({
      notJson: '400 card_not_json',
      deep: `422 card_too_deep #/deep${'/a'.repeat(27)}`,
      abyss: expect.stringMatching(/^422 card_too_deep #\/name/),
      nul: '422 text_not_storable #/data/extensions/x/0',
      half: '422 text_not_storable #/first_mes',
      number: '422 card_number_too_large #/n',
      unknown: '422 card_not_recognised',
      lorebook: '422 card_not_recognised',
      longText: '422 card_text_too_long #/scenario',
      entries: '422 lore_entries_too_many #/data/character_book/entries',
      key: '422 lore_key_too_long #/data/character_book/entries/0/keys',
      keys: '422 lore_keys_too_many #/data/character_book/entries/0/keys',
      extras: '422 card_extras_too_large #',
    })
  })

  it('of a card at its limits is stored', async () => {
    const { character } = await imported({
      ...v2,
      data: {
        ...v2.data,
        name: '😀'.repeat(200),
        description: 'ä'.repeat(32_000),
        extensions: { x: 'y'.repeat(250_000) },
        character_book: {
          extensions: {},
          entries: [{ ...entry, keys: Array(64).fill('k'.repeat(200)) }, ...Array(1999).fill(entry)],
        },
      },
    })

    const { body } = await get(`${character.id}/export?spec=v2`)

    expect(character.name).toBe('😀'.repeat(80))
    expect(body.data.name).toBe('😀'.repeat(200))
    expect(body.data.character_book.entries).toHaveLength(2000)
  })
})

describe('B-10 the card of somebody else', () => {
  const parts = [
    v2.data.system_prompt,
    v1.description,
    v1.personality,
    v1.scenario,
    'tired',
    'The ship is old',
    'still',
  ]

  it.each(['public', 'unlisted'])('of a character that is %s is its face alone', async (visibility) => {
    const { character } = await imported(v2)
    await owner.client.from('characters').update({ visibility }).eq('id', character.id)
    const stranger = await signUp()

    const json = await get(`${character.id}/export?spec=v3`, stranger)
    const png = await get(`${character.id}/export?format=png&spec=v3`, stranger)

    expect(json.body.data).toMatchObject({ name: 'Mira', first_mes: v1.first_mes, description: '', system_prompt: '' })
    for (const card of [json.body, cardIn(png.body, 'ccv3'), cardIn(png.body, 'chara')]) {
      for (const part of parts) expect(JSON.stringify(card)).not.toContain(JSON.stringify(part).slice(1, -1))
    }
  })

  it('of a private, deleted or unknown character, or of one whose owner blocked the other, is absent', async () => {
    const stranger = await signUp()
    const secret = await imported(v2)
    const blocked = await imported(v2)
    await owner.client.from('characters').update({ visibility: 'public' }).eq('id', blocked.character.id)
    await owner.client.from('blocks').insert({ blocked_id: stranger.id })
    const deleted = await imported(v2)
    await owner.client.rpc('delete_character', { character_id: deleted.character.id })

    const seen = async (id: string, person = stranger) => {
      const { status, body } = await get(`${id}/export`, person)
      return `${status} ${body.code}`
    }

    expect([
      await seen(secret.character.id),
      await seen(blocked.character.id),
      await seen(deleted.character.id, owner),
      await seen(randomUUID()),
    ]).toEqual(Array(4).fill('404 character_not_found'))
  })

  it('of a mature character asks for the confirmation first', async () => {
    const { character } = await imported(v2, { query: 'age=30&is_mature=true' })
    await owner.client.from('characters').update({ visibility: 'public' }).eq('id', character.id)
    const stranger = await signUp()

    expect((await get(`${character.id}/export`, stranger)).body.code).toBe('mature_confirmation_required')
  })

  it('and one’s own are kept from a token that outlives its account', async () => {
    const { character } = await imported(v2)
    await database()`select admin.set_account_status(${owner.id}, 'suspended')`

    for (const path of ['export', 'export?format=png', 'lorebook']) {
      const { status, body } = await get(`${character.id}/${path}`)
      expect([status, body.code], path).toEqual([403, 'account_not_active'])
    }
  })

  it('has no lorebook, and gets none', async () => {
    const { character } = await imported(v2)
    await owner.client.from('characters').update({ visibility: 'public' }).eq('id', character.id)
    const stranger = await signUp()

    const read = await get(`${character.id}/lorebook`, stranger)
    const write = await putLorebook(
      character.id,
      { spec: 'lorebook_v3', data: { extensions: {}, entries: [] } },
      stranger,
    )

    expect([read.status, read.body.code]).toEqual([404, 'lorebook_not_found'])
    expect([write.status, write.body.code]).toEqual([404, 'character_not_found'])
    expect((await get(`${character.id}/lorebook`)).body.data.entries).toHaveLength(2)
  })

  it('is nobody’s without a sign-in', async () => {
    const { character } = await imported(v2)
    for (const [method, path] of [
      ['POST', 'import?age=30'],
      ['GET', `${character.id}/export`],
      ['POST', `${character.id}/lorebook`],
      ['GET', `${character.id}/lorebook`],
    ] as const) {
      const response = await fetch(`${functionsUrl}/characters/${path}`, {
        method,
        headers: { apikey: publishableKey },
      })
      expect([path, response.status]).toEqual([path, 401])
    }
  })
})

async function putLorebook(characterId: string, file: unknown, person = owner) {
  const response = await fetch(`${functionsUrl}/characters/${characterId}/lorebook`, {
    method: 'POST',
    headers: { authorization: `Bearer ${person.token}`, 'content-type': 'application/json' },
    body: JSON.stringify(file),
  })
  return answer(response)
}

describe('B-10 a lorebook as a file', () => {
  const file = { spec: 'lorebook_v3', data: { ...v3.data.character_book, name: 'Other' }, made_by: 'an editor' }

  it('comes in, takes the place of the one before, and goes out as it was', async () => {
    const { character } = await imported(v3)

    const put = await putLorebook(character.id, file)
    const again = await putLorebook(character.id, file)

    expect([put.status, put.body.entries, put.body.warnings.length]).toEqual([200, 3, 2])
    expect(put.body.lorebook).toMatchObject({ character_id: character.id, name: 'Other' })
    expect(again.status).toBe(200)
    expect((await get(`${character.id}/lorebook`)).body).toStrictEqual(file)
    expect((await get(`${character.id}/export`)).body.data.character_book).toStrictEqual(file.data)
  })

  it('is refused with a code where it is none, and the old one stays', async () => {
    const { character } = await imported(v2)
    const refused = async (body: unknown) => {
      const { status, body: problem } = await putLorebook(character.id, body)
      return `${status} ${problem.code}`
    }

    expect([
      await refused(v2),
      await refused({ spec: 'lorebook_v3', data: [] }),
      await refused({ spec: 'lorebook_v3', data: { entries: [{ keys: ['\u0000'] }] } }),
      await refused({ spec: 'lorebook_v3', data: { entries: Array(2001).fill(entry) } }),
    ]).toEqual([
      '422 lorebook_not_recognised',
      '422 lorebook_not_recognised',
      '422 text_not_storable',
      '422 lore_entries_too_many',
    ])
    expect((await get(`${character.id}/lorebook`)).body.data.entries).toHaveLength(2)
  })

  it('is absent where a character has none', async () => {
    const { character } = await imported(v1)

    expect((await get(`${character.id}/lorebook`)).body.code).toBe('lorebook_not_found')
  })
})
