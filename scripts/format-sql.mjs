// Formats SQL as far as a machine should: spaces instead of tabs, nothing at the end of lines, one blank line at most, one
// line end at the end, keywords in lower case. Columns that are aligned by hand stay aligned; see
// docs/decisions/2026-11-sql-tools.md. `--check` changes nothing and names what would change.
//   node scripts/format-sql.mjs [--check] FOLDER_OR_FILE…
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'

const check = process.argv.includes('--check')
const paths = process.argv.slice(2).filter((argument) => !argument.startsWith('--'))
const keywords =
  `add after all alter and any as asc before begin between by cascade case check column comment commit constraint
  create cross current_user declare default definer delete desc distinct do drop each else elsif end exception execute exists
  false for foreign from function grant group having if immutable in index inner insert into invoker is join key language lateral
  left like limit loop not null on or order outer over partition perform policy primary raise references replace return
  returning returns revoke right role row rows schema security select set setof stable table then to trigger true union unique
  update using values view volatile when where with`.split(/\s+/)
const shouted = new RegExp(`\\b(?:${keywords.join('|').toUpperCase()})\\b`, 'g')
// What is quoted or commented is left alone, in whatever case it stands.
const verbatim = /(--[^\n]*|\/\*[\s\S]*?\*\/|'(?:[^']|'')*'|"(?:[^"]|"")*")/

const format = (text) =>
  text
    .split(verbatim)
    .map((part, at) => (at % 2 ? part : part.replaceAll('\t', '  ').replace(shouted, (word) => word.toLowerCase())))
    .join('')
    .replace(/[ \r]+$/gm, '')
    .replace(/\n{3,}/g, '\n\n')
    .trim()
    .concat('\n')

const files = paths.flatMap((path) =>
  statSync(path).isFile()
    ? [path]
    : readdirSync(path, { recursive: true, encoding: 'utf8' })
        .filter((name) => name.endsWith('.sql'))
        .map((name) => `${path}/${name}`),
)
let wrong = 0
for (const file of files) {
  const text = readFileSync(file, 'utf8')
  const formatted = format(text)
  if (formatted === text) continue
  if (!check) writeFileSync(file, formatted)
  else {
    console.error(`${file}: not formatted; run \`npm run format\``)
    wrong++
  }
}
process.exit(wrong ? 1 : 0)
