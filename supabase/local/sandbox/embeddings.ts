import { hash } from './answer.ts'

/**
 * A unit vector made of the text's words (hashed, with a sign): the same text gives the same vector, and texts that
 * share words are near each other, so that a semantic search has something to find.
 */
export function embed(text: string, dimensions: number): number[] {
  const vector = new Float32Array(dimensions)
  const words = text
    .toLowerCase()
    .normalize('NFKD')
    .match(/[\p{L}\p{N}]+/gu) ?? [text]
  for (const word of words) {
    // Two places a word make accidental collisions of whole texts unlikely also with few dimensions.
    for (const salt of ['a', 'b']) {
      const value = hash(salt + word)
      vector[value % dimensions]! += value & 0x10000 ? 1 : -1
    }
  }
  let length = Math.hypot(...vector)
  if (length === 0) {
    vector[hash(text) % dimensions] = 1
    length = 1
  }
  return Array.from(vector, (value) => Math.fround(value / length))
}

/** What `encoding_format: "base64"` means: little-endian float32. */
export function toBase64(vector: number[]): string {
  const view = new DataView(new ArrayBuffer(vector.length * 4))
  vector.forEach((value, index) => {
    view.setFloat32(index * 4, value, true)
  })
  return new Uint8Array(view.buffer).toBase64()
}
