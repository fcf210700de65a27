// Replaced by `npm run types`.
// deno-lint-ignore no-explicit-any
export type Database = any
