import { deepStrictEqual as deepEqual, strictEqual as equal, ok } from 'node:assert'
import { Buffer } from 'node:buffer'
import { deflateSync } from 'node:zlib'
import fc from 'fast-check'
import { readCard } from '../../functions/_shared/cards/card.ts'
import { CardError } from '../../functions/_shared/cards/error.ts'
import { parseJson } from '../../functions/_shared/cards/json.ts'
import { limits } from '../../functions/_shared/cards/limits.ts'
import { readPicture, writePicture } from '../../functions/_shared/cards/picture.ts'
import {
  animatedPng,
  cardChunk,
  cardIn,
  decodePng,
  encodeChunk,
  encodePng,
  type PngChunk,
  shownChunks,
  textChunk,
  withChunks,
} from '../support/png.ts'

const card = { spec: 'chara_card_v2', spec_version: '2.0', data: { name: 'Mira – 美羅 🚀' } }
const picture = animatedPng()
const withCard = (...chunks: PngChunk[]) => encodePng(withChunks(picture, chunks))
const base64 = (text: string) => Buffer.from(text).toString('base64')

const cardOf = async (file: Uint8Array) => parseJson((await readPicture(file)).json)

/** The code of a refusal. */
async function refusal(act: () => unknown): Promise<string> {
  try {
    await act()
    return 'accepted'
  } catch (error) {
    if (error instanceof CardError) return error.code
    throw error
  }
}
const refusalOf = (file: Uint8Array) => refusal(() => cardOf(file))
const refusalOfJson = (value: unknown) =>
  refusal(() => readCard(parseJson(new TextEncoder().encode(JSON.stringify(value))), () => true))

Deno.test('a card goes into a picture and comes out, and every other byte of the picture stays', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.json({ stringUnit: 'binary', maxDepth: 2 }),
      fc.uint8Array({ maxLength: 50 }),
      async (json, extra) => {
        const given = withChunks(picture, [{ type: 'prIv', data: Buffer.from(extra) }])
        const value = JSON.parse(json.replaceAll('\\u0000', ' '))

        const file = writePicture(encodePng(withChunks(given, [cardChunk('Chara', 'old'), cardChunk('CCV3', 'old')])), {
          chara: value,
          ccv3: value,
        })

        deepEqual(cardIn(file, 'chara'), cardIn(file, 'ccv3'))
        deepEqual(await cardOf(file), JSON.parse(JSON.stringify(value)))
        const { picture: bare } = await readPicture(file)
        deepEqual(Buffer.from(bare), encodePng(shownChunks(given)))
        deepEqual(decodePng(file).slice(0, given.length - 1), given.slice(0, -1))
        equal(decodePng(file).length, given.length + 2)
      },
    ),
    { numRuns: 30 },
  )
})

Deno.test('ccv3 is read before chara, the first of a kind before others, in any case', async () => {
  const named = (name: string) => ({ ...card, data: { name } })
  const file = withCard(
    cardChunk('chara', named('old')),
    cardChunk('CcV3', named('new')),
    cardChunk('ccv3', named('late')),
  )

  deepEqual(await cardOf(file), named('new'))
  deepEqual(await cardOf(withCard(cardChunk('Chara', named('old')))), named('old'))
})

Deno.test('what follows the end of a picture is no part of it', async () => {
  const file = Buffer.concat([withCard(cardChunk('chara', card)), Buffer.from('PK and more')])

  deepEqual(await cardOf(file), card)
  ok(!Buffer.from((await readPicture(file)).picture).includes('PK and more'))
})

Deno.test('base64 may be broken into lines and lack its padding', async () => {
  const text = base64(JSON.stringify(card))
    .replace(/=+$/, '')
    .replace(/(.{20})/g, '$1\n')

  deepEqual(await cardOf(withCard(textChunk('chara', text))), card)
})

Deno.test('text that an editor compressed or made international is read too, and leaves the picture with the card', async () => {
  const text = base64(JSON.stringify(card))
  const international = (flag: number, data: Buffer) =>
    Buffer.concat([Buffer.from('ccv3\0'), Buffer.from([flag, 0]), Buffer.from('en\0Karte\0'), data])

  for (const chunk of [
    { type: 'zTXt', data: Buffer.concat([Buffer.from('chara\0\0'), deflateSync(text)]) },
    { type: 'iTXt', data: international(0, Buffer.from(text)) },
    { type: 'iTXt', data: international(1, deflateSync(text)) },
  ]) {
    deepEqual(await cardOf(withCard(chunk)), card)
    deepEqual(Buffer.from((await readPicture(withCard(chunk))).picture), encodePng(shownChunks(picture)))
  }
})

Deno.test('a picture that others see has no words of its card or its maker, whatever they are called', async () => {
  const words = 'a secret of the card'
  const data = Buffer.from(`XML:com.adobe.xmp\0\0\0\0\0${words}`)
  const profile = { type: 'iCCP', data: Buffer.concat([Buffer.from('sRGB\0\0'), deflateSync('a profile')]) }
  const [header, ...rest] = withChunks(picture, [
    cardChunk('chara', card),
    ...['Chara ', 'naidata', 'parameters', 'Comment'].map((keyword) => textChunk(keyword, words)),
    { type: 'iTXt', data },
    { type: 'zTXt', data: Buffer.concat([Buffer.from('Notes\0\0'), deflateSync(words)]) },
    ...['eXIf', 'tIME', 'caRd', 'CARD'].map((type) => ({ type, data: Buffer.from(words) })),
  ])

  const read = await readPicture(encodePng([header!, profile, ...rest]))

  deepEqual(Buffer.from(read.picture), encodePng([header!, profile, ...shownChunks(picture).slice(1)]))
})

Deno.test('embedded assets are named and leave the picture with the card', async () => {
  const file = withCard(cardChunk('ccv3', card), textChunk('chara-ext-asset_:1.png', 'AAAA'))

  const read = await readPicture(file)

  deepEqual(read.assets, ['1.png'])
  deepEqual(Buffer.from(read.picture), encodePng(shownChunks(picture)))
})

Deno.test('a damaged or hostile file is refused by name', async () => {
  const whole = withCard(cardChunk('chara', card))
  const header = picture[0]!
  const changed = (change: (bytes: Buffer) => void) => {
    const bytes = Buffer.from(whole)
    change(bytes)
    return bytes
  }
  const bomb = deflateSync(Buffer.alloc(16 * 1024 * 1024, 'A'))
  const cases: [string, Uint8Array][] = [
    ['png_signature_missing', Buffer.from('GIF89a')],
    ['png_signature_missing', new Uint8Array(0)],
    ['png_truncated', encodePng([])],
    ['png_chunk_length_invalid', whole.subarray(0, whole.length - 20)],
    ['png_truncated', whole.subarray(0, whole.length - 12)],
    ['png_chunk_length_invalid', changed((bytes) => bytes.writeUInt32BE(0xffffffff, 8))],
    ['png_chunk_length_invalid', changed((bytes) => bytes.writeUInt32BE(0x7fffffff, 8 + 25))],
    ['png_chunk_type_invalid', encodePng([header, { type: '1DAT', data: Buffer.alloc(0) }])],
    ['png_crc_mismatch', changed((bytes) => bytes.writeUInt8(bytes.readUInt8(20) ^ 1, 20))],
    [
      'png_crc_mismatch',
      changed((bytes) => bytes.writeUInt8(bytes.readUInt8(bytes.length - 20) ^ 1, bytes.length - 20)),
    ],
    ['png_header_invalid', encodePng(picture.slice(1))],
    ['png_picture_missing', encodePng([header, cardChunk('chara', card), picture.at(-1)!])],
    [
      'png_too_many_chunks',
      encodePng(withChunks(picture, Array(limits.chunks).fill({ type: 'prIv', data: Buffer.alloc(0) }))),
    ],
    ['card_missing', encodePng(picture)],
    ['card_missing', withCard(textChunk('charade', 'x'))],
    ['card_missing', withCard({ type: 'tEXt', data: Buffer.from('chara without an end') })],
    ['card_base64_broken', withCard(textChunk('chara', '{"name":"not base64"}'))],
    ['card_base64_broken', withCard(textChunk('chara', 'AAAAA'))],
    ['card_not_utf8', withCard(textChunk('chara', Buffer.from([0x7b, 0xff, 0x7d]).toString('base64')))],
    ['card_not_json', withCard(textChunk('chara', base64('{"name":')))],
    ['card_not_json', withCard(textChunk('chara', ''))],
    ['card_too_large', withCard(textChunk('chara', 'A'.repeat(limits.json * 2)))],
    ['png_text_too_large', withCard({ type: 'zTXt', data: Buffer.concat([Buffer.from('chara\0\0'), bomb]) })],
    ['png_text_invalid', withCard({ type: 'zTXt', data: Buffer.from('chara\0\x01xx') })],
    ['png_text_invalid', withCard({ type: 'zTXt', data: Buffer.from('chara\0\0not deflated') })],
    ['png_text_invalid', withCard({ type: 'iTXt', data: Buffer.from('chara\0\0') })],
    ['png_text_invalid', withCard({ type: 'iTXt', data: Buffer.from('chara\0\x01\x07en\0\0x') })],
  ]
  for (const [code, file] of cases) equal(await refusalOf(file), code, `${code}: ${file.length} bytes`)
})

Deno.test('a picture that no viewer could show is refused by name', async () => {
  const shown = (changes: Record<number, number>, pixels = picture.find(({ type }) => type === 'IDAT')!.data) => {
    const header = Buffer.from(picture[0]!.data)
    for (const [at, value] of Object.entries(changes)) header.writeUInt8(value, Number(at))
    const [first, last] = [pixels.subarray(0, 1), pixels.subarray(1)]
    return encodePng([
      { type: 'IHDR', data: header },
      ...[Buffer.alloc(0), first, last].map((data) => ({ type: 'IDAT', data })),
      cardChunk('chara', card),
      picture.at(-1)!,
    ])
  }
  const cases: [string, Uint8Array][] = [
    ['accepted', shown({})],
    ['accepted', shown({ 2: 0x40, 3: 0 })],
    ['accepted', shown({}, deflateSync(Buffer.alloc(100_000)).subarray(0, -6))],
    ['png_header_invalid', shown({ 2: 0x40, 3: 1 })],
    ['png_header_invalid', shown({ 3: 0 })],
    ['png_header_invalid', shown({ 7: 0 })],
    ['png_header_invalid', shown({ 4: 0x7f, 5: 0xff, 6: 0xff, 7: 0xff })],
    ['png_header_invalid', shown({ 8: 4 })],
    ['png_header_invalid', shown({ 9: 5 })],
    ['png_header_invalid', shown({ 10: 1 })],
    ['png_header_invalid', shown({ 11: 1 })],
    ['png_header_invalid', shown({ 12: 2 })],
    ['png_picture_broken', shown({}, Buffer.from('no stream of zlib'))],
    ['png_picture_broken', shown({}, Buffer.alloc(0))],
    ['png_picture_broken', shown({}, deflateSync(Buffer.alloc(0)))],
  ]
  for (const [code, file] of cases) equal(await refusalOf(file), code)
  // A picture that is large, for its own sake or to hurt, is not unpacked whole.
  equal(await refusalOf(shown({}, deflateSync(Buffer.alloc(64 * 1024 * 1024)))), 'accepted')
})

Deno.test('no cut and no changed byte makes a file hang or fail without a name', async () => {
  const whole = withCard(cardChunk('chara', card))
  await fc.assert(
    fc.asyncProperty(fc.nat(whole.length - 1), fc.nat(255), fc.nat(whole.length), async (at, byte, end) => {
      const bytes = Buffer.from(whole.subarray(0, end))
      if (at < end) bytes[at] = byte
      await refusalOf(bytes)
    }),
    { numRuns: 500 },
  )
})

Deno.test('a text whose form cannot be kept is refused by name', async () => {
  const nested = (levels: number): unknown => (levels === 0 ? 0 : [nested(levels - 1)])
  const raw = (text: string | Uint8Array) =>
    refusal(() => parseJson(typeof text === 'string' ? new TextEncoder().encode(text) : text))
  const book = (entry: object) => ({
    ...card,
    data: { ...card.data, character_book: { extensions: {}, entries: [entry] } },
  })

  deepEqual(
    {
      deep: await refusalOfJson({ ...card, deep: nested(limits.depth) }),
      notTooDeep: await refusalOfJson({ ...card, deep: nested(limits.depth - 1) }),
      abyss: await raw(`${'['.repeat(200_000)}${']'.repeat(200_000)}`),
      nul: await refusalOfJson({ ...card, data: { name: 'a\u0000' } }),
      nulInKey: await refusalOfJson({ ...card, 'a\u0000b': 1 }),
      half: await raw('{"name": "\\ud83d"}'),
      halfInKey: await raw('{"name": "x", "\\ude00": 1}'),
      infinite: await raw('{"name": "x", "n": 1e999}'),
      large: await raw(new Uint8Array(limits.json + 1).fill(0x20)),
      bom: await raw('\ufeff{"name": "x"}'),
      empty: await raw(''),
      list: await refusalOfJson([card]),
      nothing: await refusalOfJson({ hello: 'world' }),
      otherSpec: await refusalOfJson({ ...card, spec: 'chara_card_v1' }),
      oddSpec: await refusalOfJson({ ...card, spec: { v: 2 } }),
      noData: await refusalOfJson({ ...card, data: [] }),
      lorebook: await refusalOfJson({ spec: 'lorebook_v3', data: { entries: [] } }),
      longText: await refusalOfJson({ ...card, data: { name: 'x', personality: 'a'.repeat(16_001) } }),
      greetings: await refusalOfJson({ ...card, data: { name: 'x', alternate_greetings: Array(33).fill('hi') } }),
      entries: await refusalOfJson({ ...card, data: { character_book: { entries: Array(2001).fill({}) } } }),
      keys: await refusalOfJson(book({ keys: Array(65).fill('k') })),
      key: await refusalOfJson(book({ keys: ['k'.repeat(201)] })),
      entryExtras: await refusalOfJson(book({ extensions: { x: 'a'.repeat(70_000) } })),
      extras: await refusalOfJson({ ...card, data: { name: 'x', extensions: { x: 'a'.repeat(270_000) } } }),
    },
    {
      deep: 'card_too_deep',
      notTooDeep: 'accepted',
      abyss: 'card_too_deep',
      nul: 'text_not_storable',
      nulInKey: 'text_not_storable',
      half: 'text_not_storable',
      halfInKey: 'text_not_storable',
      infinite: 'card_number_too_large',
      large: 'card_too_large',
      bom: 'accepted',
      empty: 'card_not_json',
      list: 'card_not_recognised',
      nothing: 'card_not_recognised',
      otherSpec: 'card_not_recognised',
      oddSpec: 'card_not_recognised',
      noData: 'card_not_recognised',
      lorebook: 'card_not_recognised',
      longText: 'card_text_too_long',
      greetings: 'card_list_too_long',
      entries: 'lore_entries_too_many',
      keys: 'lore_keys_too_many',
      key: 'lore_key_too_long',
      entryExtras: 'lore_extras_too_large',
      extras: 'card_extras_too_large',
    },
  )
})

Deno.test('a whole number that a double has no room for is said to be rounded, with its place', () => {
  const places = (text: string) => {
    const pointers: string[] = []
    parseJson(new TextEncoder().encode(text), ({ pointer, code }) => pointers.push(`${code} ${pointer}`))
    return pointers.sort()
  }

  deepEqual(places('{"data": {"extensions": {"id": 1234567890123456789, "other": [-9007199254740993]}}}'), [
    'number_rounded #/data/extensions/id',
    'number_rounded #/data/extensions/other/0',
  ])
  deepEqual(
    places(
      '["1234567890123456789", 9007199254740992, 1234567890123456768, 100000000000000000000000, 1e300, 0.1234567890123456]',
    ),
    ['number_rounded #/2'],
  )
  equal(places(`[${'9007199254740993,'.repeat(100_000)}0]`).length, 100_000)
})

Deno.test('a text made to be slow, and lists made to be long, are read like others', async () => {
  const gap = `x${' '.repeat(300_000)}x`
  const many = Array(900_000).fill(0)

  deepEqual(
    [
      await refusalOfJson({ ...card, data: { name: gap, creator: gap } }),
      await refusalOfJson({ ...card, data: { name: 'x', tags: `${'a,'.repeat(1_900_000)}` } }),
      await refusalOfJson({ ...card, spec: 'chara_card_v3', data: { name: 'x', source: many, assets: many } }),
    ],
    ['card_extras_too_large', 'accepted', 'accepted'],
  )
})

Deno.test('a refusal names the place, with keys escaped', async () => {
  const place = (value: unknown) => {
    try {
      readCard(parseJson(new TextEncoder().encode(JSON.stringify(value))), () => true)
    } catch (error) {
      return (error as CardError).pointer
    }
  }
  equal(place({ ...card, 'a/b ~': [{ c: '\u0000' }] }), '#/a~1b%20~0/0/c')
  equal(
    place({ ...card, data: { character_book: { entries: [{}, { keys: ['k'.repeat(201)] }] } } }),
    '#/data/character_book/entries/1/keys',
  )
})

Deno.test('assets inside a card that are too large are left out, and that is said', () => {
  const large = { type: 'emotion', uri: `data:image/png;base64,${'A'.repeat(300_000)}`, name: 'joy', ext: 'png' }
  const linked = { type: 'icon', uri: 'https://example.com/a.png', name: 'main', ext: 'png' }

  const read = readCard(
    { spec: 'chara_card_v3', spec_version: '3.0', data: { name: 'x', assets: [large, linked] } },
    () => true,
  )

  deepEqual(
    read.warnings.map(({ code }) => code),
    ['asset_not_kept'],
  )
  deepEqual((read.definition.card_extras as { data: { kept: { assets: unknown } } }).data.kept.assets, [linked])
})

Deno.test('chunks written here have the checksum that others compute', () => {
  const file = writePicture(encodePng(picture), { chara: card })

  deepEqual(Buffer.from(file), encodePng(withChunks(picture, [cardChunk('chara', card)])))
  ok(encodeChunk(picture[0]!).length === 25)
})
