import type { Json } from '../../../types/cards.ts'
import { CardError } from './error.ts'
import { limits } from './limits.ts'
import { type Chunk, makeChunk, readPng, requireViewable, writePng } from './png.ts'

/** Keywords of the chunks that hold a card, best first. Readers in the field match them in any case. */
const keywords = ['ccv3', 'chara'] as const
export type Keyword = (typeof keywords)[number]

/** Embedded assets of early V3 cards: `chara-ext-asset_:{path}`. */
const assetPrefix = 'chara-ext-asset_'

const latin1 = (bytes: Uint8Array) => {
  let text = ''
  for (let index = 0; index < bytes.length; index += 8192) {
    text += String.fromCharCode(...bytes.subarray(index, index + 8192))
  }
  return text
}

/** The keyword of a chunk of text, of whichever kind; null for all others. */
function keywordOf({ type, data }: Chunk): string | null {
  if (type !== 'tEXt' && type !== 'zTXt' && type !== 'iTXt') return null
  const end = data.subarray(0, 80).indexOf(0)
  return end < 1 ? null : latin1(data.subarray(0, end))
}

const isCardChunk = (chunk: Chunk) => {
  const keyword = keywordOf(chunk)?.toLowerCase() ?? ''
  return (keywords as readonly string[]).includes(keyword) || keyword.startsWith(assetPrefix)
}

/**
 * What a picture needs to look as it does: pixels, colours, transparency, animation. Everything else may hold words of its
 * maker, under any keyword: texts, XMP, EXIF, chunks of applications.
 */
const visible = new Set(
  'IHDR PLTE IDAT IEND tRNS cHRM gAMA iCCP sBIT sRGB cICP mDCV cLLI bKGD pHYs acTL fcTL fdAT'.split(' '),
)

export interface CardPicture {
  /** UTF-8 of the card's JSON. */
  json: Uint8Array
  /** The PNG without the card and all other text: what may be shown to others. */
  picture: Uint8Array<ArrayBuffer>
  /** Paths of embedded assets, which the picture does not keep. */
  assets: string[]
}

/** Takes a card out of its picture. With both chunks present V3 wins; of several of a kind, the first. */
export async function readPicture(file: Uint8Array): Promise<CardPicture> {
  const chunks = readPng(file)
  await requireViewable(chunks)
  const found = keywords
    .map((keyword) => chunks.find((chunk) => keywordOf(chunk)?.toLowerCase() === keyword))
    .find((chunk) => chunk !== undefined)
  if (!found) throw new CardError('card_missing', 'The picture holds no card.')
  const assets = chunks.flatMap((chunk) => {
    const keyword = keywordOf(chunk) ?? ''
    return keyword.toLowerCase().startsWith(assetPrefix) ? [keyword.slice(assetPrefix.length).replace(/^:/, '')] : []
  })
  return {
    json: fromBase64(await textOf(found)),
    picture: writePng(chunks.filter(({ type }) => visible.has(type))),
    assets,
  }
}

/** Puts cards into a picture, before its end, in place of those that it held. Every other chunk stays as it is. */
export function writePicture(file: Uint8Array, cards: Partial<Record<Keyword, Json>>): Uint8Array<ArrayBuffer> {
  const chunks = readPng(file).filter((chunk) => !isCardChunk(chunk))
  const texts = Object.entries(cards).map(([keyword, card]) => {
    const text = `${keyword}\u0000${toBase64(new TextEncoder().encode(JSON.stringify(card)))}`
    return makeChunk('tEXt', new TextEncoder().encode(text))
  })
  return writePng([...chunks.slice(0, -1), ...texts, ...chunks.slice(-1)])
}

/**
 * The text of a chunk. The specifications know tEXt alone, but image editors write long texts as zTXt or iTXt when they
 * save a card again. What is compressed is unpacked up to the size a card may have.
 */
async function textOf({ type, data }: Chunk): Promise<string> {
  const rest = data.subarray(data.indexOf(0) + 1)
  if (type === 'tEXt') return latin1(rest)
  if (type === 'zTXt') {
    if (rest[0] !== 0) throw new CardError('png_text_invalid', 'A chunk of text is compressed in an unknown way.')
    return latin1(await inflate(rest.subarray(1)))
  }
  const [compressed, method] = rest
  const afterLanguage = rest.indexOf(0, 2) + 1
  const afterTranslation = rest.indexOf(0, afterLanguage) + 1
  if (afterLanguage === 0 || afterTranslation === 0 || (compressed === 1 && method !== 0)) {
    throw new CardError('png_text_invalid', 'A chunk of international text is malformed.')
  }
  const text = rest.subarray(afterTranslation)
  return latin1(compressed === 1 ? await inflate(text) : text)
}

/** Largest base64 text of a card. */
const maxText = Math.ceil(limits.json / 3) * 4 + 4

async function inflate(bytes: Uint8Array): Promise<Uint8Array> {
  const stream = new Blob([bytes as BlobPart]).stream().pipeThrough(new DecompressionStream('deflate'))
  const pieces: Uint8Array[] = []
  let size = 0
  try {
    for await (const piece of stream) {
      size += piece.length
      if (size > maxText)
        throw new CardError('png_text_too_large', 'The compressed text unpacks to more than a card may hold.')
      pieces.push(piece)
    }
  } catch (error) {
    if (error instanceof CardError) throw error
    throw new CardError('png_text_invalid', 'The compressed text cannot be unpacked.')
  }
  const all = new Uint8Array(size)
  let offset = 0
  for (const piece of pieces) {
    all.set(piece, offset)
    offset += piece.length
  }
  return all
}

function fromBase64(text: string): Uint8Array {
  if (text.length > maxText) throw new CardError('card_too_large', 'The text of the card is too long.')
  let bytes: string
  try {
    // Forgiving as the standard has it: white space may stand inside, padding may be missing.
    bytes = atob(text)
  } catch {
    throw new CardError('card_base64_broken', 'The text of the card is not base64.')
  }
  return Uint8Array.from(bytes, (byte) => byte.charCodeAt(0))
}

const toBase64 = (bytes: Uint8Array) => btoa(latin1(bytes))
