// Tries a running instance from outside, changing nothing.
//   npm run smoke -- [URL PUBLISHABLE_KEY]      default: the stack that `npm start` runs
import { readFileSync } from 'node:fs'

const args = process.argv.slice(2)
if (args.length !== 0 && args.length !== 2) {
  console.error('usage: npm run smoke -- [URL PUBLISHABLE_KEY]')
  process.exit(2)
}
const [url, key] = args.length ? args : localInstance()
const deadline = 10_000
let failed = 0

const get = (path, headers = {}) => fetch(url + path, { headers, signal: AbortSignal.timeout(deadline) })

/** Prints one line per check; a check that throws or returns false has failed. */
async function check(what, test) {
  const started = performance.now()
  const outcome = await test().catch((error) => error)
  const passed = outcome !== false && !(outcome instanceof Error)
  if (!passed) failed++
  const reason = outcome instanceof Error ? ` (${outcome.message})` : ''
  console.log(`${passed ? 'ok    ' : 'FAILED'} ${what}${reason} · ${Math.round(performance.now() - started)} ms`)
}

await check('health answers without a key, and the database with it', async () => {
  const body = await (await get('/functions/v1/health')).json()
  return body.status === 'ok' && body.database === 'connected'
})
await check('ready: the schemas are exposed and the migrations have run', async () => {
  return (await get('/functions/v1/health/ready')).status === 200
})
await check('Auth publishes the keys that tokens are verified with', async () => {
  return (await (await get('/auth/v1/.well-known/jwks.json')).json()).keys.length > 0
})
await check('the Data API takes the publishable key', async () => {
  return (await get('/rest/v1/profiles?select=id&limit=1', { apikey: key })).status === 200
})
await check('the Data API refuses a missing key', async () => {
  return (await get('/rest/v1/profiles?select=id&limit=1')).status === 401
})
await check('a visitor reads no private table', async () => {
  return (await get('/rest/v1/profile_private?select=*&limit=1', { apikey: key })).status === 401
})
await check('a function refuses a wrong token', async () => {
  const headers = { apikey: key, authorization: 'Bearer wrong', 'content-type': 'application/json' }
  const signal = AbortSignal.timeout(deadline)
  return (
    (await fetch(`${url}/functions/v1/chat/messages`, { method: 'POST', headers, body: '{}', signal })).status === 401
  )
})

console.log(failed ? `\n${failed} checks failed` : '\nall checks passed')
process.exit(failed ? 1 : 0)

function localInstance() {
  const { url, keys } = JSON.parse(readFileSync('supabase/.temp/local/stack.json', 'utf8'))
  return [url, keys.publishable]
}
