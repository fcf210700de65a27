import { deflateSync } from 'node:zlib'

/** PNG files made without the product's own code, so that the two can be held against each other. */

const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a])

function crc32(bytes: Uint8Array): number {
  let crc = -1
  for (const byte of bytes) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1
  }
  return ~crc >>> 0
}

export interface PngChunk {
  type: string
  data: Buffer
}

/** A chunk with its length and checksum. */
export function encodeChunk({ type, data }: PngChunk): Buffer {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data])
  const length = Buffer.alloc(4)
  length.writeUInt32BE(data.length)
  const crc = Buffer.alloc(4)
  crc.writeUInt32BE(crc32(body))
  return Buffer.concat([length, body, crc])
}

export const encodePng = (chunks: PngChunk[]): Buffer => Buffer.concat([signature, ...chunks.map(encodeChunk)])

export function decodePng(file: Uint8Array): PngChunk[] {
  const bytes = Buffer.from(file)
  if (!bytes.subarray(0, 8).equals(signature)) throw new Error('no PNG')
  const chunks: PngChunk[] = []
  for (let at = 8; at < bytes.length; ) {
    const length = bytes.readUInt32BE(at)
    const body = bytes.subarray(at + 4, at + 8 + length)
    if (bytes.readUInt32BE(at + 8 + length) !== crc32(body)) throw new Error('a checksum is wrong')
    chunks.push({ type: body.subarray(0, 4).toString('latin1'), data: body.subarray(4) })
    at += 12 + length
  }
  return chunks
}

/** An animated PNG of two frames of 2 × 2 pixels, with chunks that nobody knows and text that is no card. */
export function animatedPng(): PngChunk[] {
  const numbers = (...values: number[]) => {
    const data = Buffer.alloc(values.length * 4)
    values.forEach((value, index) => {
      data.writeUInt32BE(value, index * 4)
    })
    return data
  }
  const frame = (sequence: number) => Buffer.concat([numbers(sequence, 2, 2, 0, 0), Buffer.from([0, 1, 0, 10, 0, 0])])
  const pixels = (shade: number) => deflateSync(Buffer.from([0, shade, 0, 0, 1, 1, 1, 0, 2, 2, 2, 3, 3, 3]))
  return [
    { type: 'IHDR', data: Buffer.concat([numbers(2, 2), Buffer.from([8, 2, 0, 0, 0])]) },
    { type: 'acTL', data: numbers(2, 0) },
    { type: 'tEXt', data: Buffer.from('Software\0Paint & <Co>', 'latin1') },
    { type: 'fcTL', data: frame(0) },
    { type: 'IDAT', data: pixels(1) },
    { type: 'fcTL', data: frame(1) },
    { type: 'fdAT', data: Buffer.concat([numbers(2), pixels(9)]) },
    { type: 'prVt', data: Buffer.from([0, 255, 1, 2]) },
    { type: 'IEND', data: Buffer.alloc(0) },
  ]
}

export const textChunk = (keyword: string, text: string): PngChunk => ({
  type: 'tEXt',
  data: Buffer.from(`${keyword}\0${text}`, 'latin1'),
})

export const cardChunk = (keyword: string, card: unknown): PngChunk =>
  textChunk(keyword, Buffer.from(JSON.stringify(card)).toString('base64'))

/** Puts chunks before the end. */
export const withChunks = (chunks: PngChunk[], added: PngChunk[]): PngChunk[] => [
  ...chunks.slice(0, -1),
  ...added,
  ...chunks.slice(-1),
]

/** What of a picture may be shown to others: neither texts nor chunks that nobody knows. */
export const shownChunks = (chunks: PngChunk[]): PngChunk[] =>
  chunks.filter(({ type }) => !['tEXt', 'zTXt', 'iTXt', 'eXIf', 'tIME', 'prVt', 'prIv'].includes(type))

/** The card in a chunk of that keyword. */
export function cardIn(file: Uint8Array, keyword: string): unknown {
  const found = decodePng(file).find(
    ({ type, data }) => type === 'tEXt' && data.toString('latin1').startsWith(`${keyword}\0`),
  )
  return (
    found && JSON.parse(Buffer.from(found.data.subarray(keyword.length + 1).toString('latin1'), 'base64').toString())
  )
}
