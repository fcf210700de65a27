// Writes docs/openapi.json from the schemas in types/. With --check it writes nothing and fails when the file is stale.
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const file = `${root}docs/openapi.json`
const { version } = JSON.parse(readFileSync(`${root}package.json`, 'utf8'))

const program = `
  const { openApiDocument } = await import('./types/openapi.ts')
  console.log(JSON.stringify(openApiDocument(Deno.args[0]), null, 2))
`
const document = execFileSync('npx', ['deno', 'eval', '--ext=ts', program, version], { cwd: root, encoding: 'utf8' })

if (!process.argv.includes('--check')) {
  writeFileSync(file, document)
} else if (readFileSync(file, 'utf8') !== document) {
  console.error('docs/openapi.json is stale: run `npm run build:openapi`.')
  process.exit(1)
}
