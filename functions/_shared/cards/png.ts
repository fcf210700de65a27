import { CardError } from './error.ts'
import { limits } from './limits.ts'

/** One chunk of a PNG: views into the file it was read from. */
export interface Chunk {
  type: string
  data: Uint8Array
  /** Length, type, data and CRC, as they stand in the file. */
  bytes: Uint8Array
}

const signature = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]

export const isPng = (file: Uint8Array): boolean => signature.every((byte, index) => file[index] === byte)

/**
 * The chunks of a PNG or APNG up to IEND; what follows is no part of the picture and is left out. Nothing is allocated by
 * a length that the file only claims, and every CRC is checked.
 */
export function readPng(file: Uint8Array): Chunk[] {
  if (!isPng(file)) throw new CardError('png_signature_missing', 'This is not a PNG file.')
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength)
  const chunks: Chunk[] = []
  let offset = signature.length
  while (chunks.at(-1)?.type !== 'IEND') {
    if (offset + 12 > file.length) throw new CardError('png_truncated', 'The file ends before its last chunk.')
    const length = view.getUint32(offset)
    if (length > file.length - offset - 12) {
      throw new CardError('png_chunk_length_invalid', 'A chunk claims to be longer than the file.')
    }
    const bytes = file.subarray(offset, offset + 12 + length)
    const type = String.fromCharCode(...bytes.subarray(4, 8))
    if (!/^[A-Za-z]{4}$/.test(type)) throw new CardError('png_chunk_type_invalid', 'A chunk has no valid type.')
    if (view.getUint32(offset + 8 + length) !== crc32(bytes.subarray(4, 8 + length))) {
      throw new CardError('png_crc_mismatch', 'A chunk does not match its checksum: the file is damaged.')
    }
    if (chunks.length === 0 && (type !== 'IHDR' || length !== 13)) {
      throw new CardError('png_header_invalid', 'A PNG file begins with its header.')
    }
    if (chunks.length === limits.chunks) throw new CardError('png_too_many_chunks', 'The file has too many chunks.')
    chunks.push({ type, data: bytes.subarray(8, 8 + length), bytes })
    offset += bytes.length
  }
  if (!chunks.some(({ type }) => type === 'IDAT')) throw new CardError('png_picture_missing', 'There is no picture.')
  return chunks
}

/**
 * Refuses a picture that no viewer could show: measures or a kind of pixels that PNG does not have, more pixels a side than
 * ours may have, or image data that do not begin as a zlib stream. The rest of the data is the viewer's affair: unpacked, it
 * may be gigabytes.
 */
export async function requireViewable(chunks: Chunk[]): Promise<void> {
  const { data } = chunks[0]!
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
  const [width, height] = [view.getUint32(0), view.getUint32(4)]
  const [depth, colour, compression, filter, interlace] = data.subarray(8)
  const isSized = [width, height].every((side) => side >= 1 && side <= limits.side)
  const isKnown = bitDepths[colour!]?.includes(depth!) && compression === 0 && filter === 0 && interlace! <= 1
  if (!isSized || !isKnown) {
    throw new CardError(
      'png_header_invalid',
      `A picture has 1 to ${limits.side} pixels a side, of a kind that PNG knows.`,
    )
  }
  const pixels = chunks.filter(({ type }) => type === 'IDAT').map((chunk) => chunk.data as BlobPart)
  const reader = new Blob(pixels).stream().pipeThrough(new DecompressionStream('deflate')).getReader()
  const isUnpacked = await reader.read().then(
    ({ done }) => !done,
    () => false,
  )
  // A stream that broke by now cannot be cancelled, and need not be.
  await reader.cancel().catch(() => {})
  if (!isUnpacked) throw new CardError('png_picture_broken', 'The pixels of the picture cannot be unpacked.')
}

/** Bits of a sample by type of colour: PNG specification, table 11.1. */
const bitDepths: Record<number, number[]> = { 0: [1, 2, 4, 8, 16], 2: [8, 16], 3: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16] }

export function writePng(chunks: Chunk[]): Uint8Array<ArrayBuffer> {
  const file = new Uint8Array(chunks.reduce((size, { bytes }) => size + bytes.length, signature.length))
  file.set(signature)
  let offset = signature.length
  for (const { bytes } of chunks) {
    file.set(bytes, offset)
    offset += bytes.length
  }
  return file
}

export function makeChunk(type: string, data: Uint8Array): Chunk {
  const bytes = new Uint8Array(12 + data.length)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, data.length)
  for (let index = 0; index < 4; index += 1) bytes[4 + index] = type.charCodeAt(index)
  bytes.set(data, 8)
  view.setUint32(8 + data.length, crc32(bytes.subarray(4, 8 + data.length)))
  return { type, data: bytes.subarray(8, 8 + data.length), bytes }
}

/** CRC-32 of the PNG specification, annex D. */
function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff
  for (const byte of bytes) crc = crcTable[(crc ^ byte) & 0xff]! ^ (crc >>> 8)
  return (crc ^ 0xffffffff) >>> 0
}

const crcTable = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1
  return value
})
