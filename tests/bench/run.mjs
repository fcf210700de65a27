// Prints the figures that Parlor promises, each beside a baseline measured in the same run. No assertions: machines differ.
//   npm run bench -- [NAME…]        names: start, first-delta, streams, send-message, rest, rls-list, jobs, characters, prompt, branch, conversations, entitlements, openai; default: all
import { cpus, totalmem } from 'node:os'

const names = [
  'start',
  'first-delta',
  'streams',
  'send-message',
  'rest',
  'rls-list',
  'jobs',
  'characters',
  'prompt',
  'branch',
  'conversations',
  'entitlements',
  'openai',
]
const wanted = process.argv.slice(2).length ? process.argv.slice(2) : names
const unknown = wanted.filter((name) => !names.includes(name))
if (unknown.length) {
  console.error(`No such benchmark: ${unknown}. There are: ${names}.`)
  process.exit(2)
}

console.log(
  `${cpus().length} cores (${cpus()[0].model}), ${Math.round(totalmem() / 2 ** 30)} GiB, Node ${process.version}`,
)
for (const name of wanted) {
  console.log(`\n${name}`)
  const { default: run } = await import(`./${name}.mjs`)
  await run()
}
