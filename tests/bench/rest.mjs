// REST reads of 20 rows under RLS with 16 connections: through the gateway, and bare `@supabase/lite` on the same database.
import { spawn } from 'node:child_process'
import autocannon from 'autocannon'
import { line, signUp, startStack } from './support.mjs'

const load = { connections: 16, duration: 6 }

export default async function run() {
  const stack = await startStack()
  const lite = await startBareLite(stack)
  try {
    const person = await signUp(stack)
    const rows = Array.from({ length: 20 }, (_, n) => ({ collection: 'bench', data: { n } }))
    const { error } = await person.client.from('documents').insert(rows)
    if (error) throw error
    const path = '/rest/v1/documents?select=id,collection,data,version&limit=20'
    const headers = { apikey: stack.keys.publishable }
    const warm = { ...load, duration: 2 }
    const gateway = { url: stack.url + path, headers: { ...headers, authorization: `Bearer ${person.token}` } }
    const bare = {
      url: lite.url + path,
      headers: { ...headers, authorization: `Bearer ${await lite.token(person.id)}` },
    }
    await autocannon({ ...warm, ...gateway })
    const ours = await autocannon({ ...load, ...gateway })
    await autocannon({ ...warm, ...bare })
    const theirs = await autocannon({ ...load, ...bare })
    for (const [name, result] of [
      ['gateway', ours],
      ['bare lite', theirs],
    ]) {
      const { average } = result.requests
      const { p50, p97_5, p99 } = result.latency
      line(
        `${name}: requests per second`,
        average.toFixed(0),
        `p50 ${p50} ms, p97.5 ${p97_5} ms, p99 ${p99} ms, failures ${result.non2xx}`,
      )
    }
    line(
      'gateway over bare lite',
      `${(ours.requests.average / theirs.requests.average).toFixed(2)} ×`,
      'goal 1,000 requests per second',
    )
  } finally {
    lite.stop()
    await stack.discard()
  }
}

async function startBareLite(stack) {
  const child = spawn(
    'npx',
    ['--no', 'deno', '--', 'run', '-A', 'tests/bench/bare-lite.ts', `${stack.data}/stack.json`],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
      detached: true,
    },
  )
  const url = await new Promise((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`bare lite ended with code ${code}`)))
    child.stdout.on('data', (chunk) => resolve(String(chunk).match(/http:\S+/)[0]))
  })
  const { SignJWT } = await import('jose')
  const key = new TextEncoder().encode(stack.keys.jwtSecret)
  return {
    url,
    stop: () => process.kill(-child.pid),
    token: (sub) =>
      new SignJWT({ role: 'authenticated', aud: 'authenticated' })
        .setProtectedHeader({ alg: 'HS256', typ: 'JWT' })
        .setSubject(sub)
        .setIssuedAt()
        .setExpirationTime('1h')
        .sign(key),
  }
}
