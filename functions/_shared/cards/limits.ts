/** What a card may hold here. Real cards stay far below; files made to hurt do not. Sizes in bytes, texts in characters. */
export const limits = {
  /** A file with a picture. */
  file: 8 * 1024 * 1024,
  /** A card as JSON, on its own or decoded from a picture. */
  json: 4 * 1024 * 1024,
  /** A picture without its card; the bucket `avatars` takes no more. */
  picture: 5 * 1024 * 1024,
  /** Pixels of a picture's width or height. */
  side: 16_384,
  chunks: 20_000,
  /** Objects and lists inside one another. */
  depth: 32,
  entries: 2000,
  keys: 64,
  key: 200,
  /** Keys of a book that are patterns: each is compiled. */
  patterns: 1000,
  entryContent: 32_000,
  /** All that has no column. */
  cardExtras: 256 * 1024,
  bookExtras: 64 * 1024,
  /** How many warnings an answer lists. */
  warnings: 100,
} as const
