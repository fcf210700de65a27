// Formats TypeScript and JSON with Biome, SQL with Prettier. `--check` changes nothing and fails where something would change.
import { spawnSync } from 'node:child_process'

const check = process.argv.includes('--check')
const run = (command, ...args) => spawnSync('npx', ['--no', command, '--', ...args], { stdio: 'inherit' }).status === 0

const code = check ? run('biome', 'format', '.') : run('biome', 'format', '--write', '.')
const sql = run(
  'prettier',
  check ? '--check' : '--write',
  '--log-level=warn',
  'sql/**/*.sql',
  'supabase/seed.sql',
  'tests/db/**/*.sql',
)
process.exit(code && sql ? 0 : 1)
