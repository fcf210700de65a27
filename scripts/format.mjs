// Formats TypeScript and JSON with Biome, SQL with scripts/format-sql.mjs. `--check` changes nothing and fails where something
// would change.
import { spawnSync } from 'node:child_process'

const check = process.argv.includes('--check')
const run = (command, ...args) => spawnSync(command, args, { stdio: 'inherit' }).status === 0

const biome = run('npx', '--no', 'biome', '--', 'format', ...(check ? [] : ['--write']), '.')
const sql = run(
  'node',
  'scripts/format-sql.mjs',
  ...(check ? ['--check'] : []),
  'sql',
  'supabase/seed.sql',
  'supabase/local/bootstrap',
  'tests/db',
)
process.exit(biome && sql ? 0 : 1)
