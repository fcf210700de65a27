import { resolve } from 'node:path'
import { createParser, type EventSourceMessage } from 'eventsource-parser'
import { describe, expect, it } from 'vitest'
import { version } from '../package.json'
import { shared } from './local/fixtures/processes.ts'
import { functionsUrl, until } from './support/local.ts'

const get = (path: string, init?: RequestInit) => fetch(`${functionsUrl}/health${path}`, init)

async function readEvents(response: Response): Promise<EventSourceMessage[]> {
  const events: EventSourceMessage[] = []
  createParser({ onEvent: (event) => events.push(event) }).feed(await response.text())
  return events
}

describe('health', () => {
  it('S-16 M-18 answers without any key with status, timestamp, database, redis and version', async () => {
    const before = Date.now()

    const response = await get('')

    expect(response.status).toBe(200)
    expect(response.headers.get('content-type')).toMatch(/^application\/json/)
    const { timestamp, ...rest } = await response.json()
    expect(rest).toEqual({ status: 'ok', database: 'connected', redis: 'not_configured', version })
    expect(new Date(timestamp).toISOString()).toBe(timestamp)
    expect(Math.abs(Date.parse(timestamp) - before)).toBeLessThan(10_000)
  })

  it('M-18 is ready when the database has the migrations and the Data API serves public and service', async () => {
    const response = await get('/ready')

    expect(response.status).toBe(200)
    expect(await response.json()).toEqual({
      status: 'ready',
      checks: { database: true, migrations: true, public_schema: true, service_schema: true },
    })
  })

  it('M-18 is alive', async () => {
    const response = await get('/live')

    expect(response.status).toBe(200)
    expect(await response.json()).toEqual({ status: 'alive' })
  })

  it('M-18 says which providers are configured, and neither where they are nor with which key', async () => {
    const response = await get('/providers')

    const { providers } = await response.json()
    expect(providers.map(({ provider }: { provider: string }) => provider)).toEqual(
      expect.arrayContaining(['anthropic', 'google', 'groq', 'openai', 'openrouter', 'vastai']),
    )
    for (const entry of providers)
      expect(entry).toEqual({
        provider: expect.any(String),
        configured: expect.any(Boolean),
        routes: expect.any(Array),
      })
    expect(JSON.stringify(providers)).not.toMatch(/http|api_key|BASE_URL|API_KEY/)
  })
})

describe('the echo stream', () => {
  it('K-15 sends a text back word by word, with the events of an answer', async () => {
    const response = await get('/echo', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ text: 'one two  three', delay_ms: 0 }),
    })

    expect(response.headers.get('content-type')).toMatch(/^text\/event-stream/)
    const events = await readEvents(response)
    expect(events.map(({ event }) => event)).toEqual([
      'generation.connected',
      'generation.processing',
      ...Array(3).fill('generation.delta'),
      'generation.completed',
      undefined,
    ])
    const deltas = events.filter(({ event }) => event === 'generation.delta')
    expect(deltas.map(({ data }) => JSON.parse(data).text).join('')).toBe('one two  three')
    expect(deltas.map(({ id }) => id)).toEqual(['1.1', '1.2', '1.3'])
    expect(events.at(-1)!.data).toBe('[DONE]')
  })

  it('K-15 takes its text from the query as well, for EventSource', async () => {
    const events = await readEvents(await get('/echo?text=hello%20there&delay_ms=0'))

    expect(events.filter(({ event }) => event === 'generation.delta')).toHaveLength(2)
  })

  it.each([
    ['delay_ms=5000', '#/delay_ms'],
    ['delay_ms=soon', '#/delay_ms'],
    ['text=', '#/text'],
    ['texts=a', '#/texts'],
  ])('refuses the query %s', async (query, pointer) => {
    const response = await get(`/echo?${query}`)

    expect(response.status).toBe(422)
    expect((await response.json()).errors[0].pointer).toBe(pointer)
  })
})

describe('health without its database', () => {
  const own = shared({ project: resolve('.') })

  it('S-16 M-18 says so with 503, still alive, and recovers by itself', async () => {
    const { url } = own.running.stack()
    const read = async (path: string) => {
      const response = await fetch(`${url}/functions/v1/health${path}`)
      return { status: response.status, body: await response.json() }
    }
    const sql = own.running.sql('supabase_admin')
    expect((await read('')).status).toBe(200)

    await sql`alter role postgres connection limit 0`
    await sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'parlor-functions'`
    const down = await until(async () => {
      const now = await read('')
      return now.status === 503 ? now : null
    })
    const [ready, live] = [await read('/ready'), await read('/live')]
    await sql`alter role postgres connection limit -1`

    expect(down.body).toMatchObject({ status: 'error', database: 'disconnected' })
    expect(ready).toMatchObject({ status: 503, body: { status: 'not_ready', checks: { database: false } } })
    expect(live.status).toBe(200)
    await until(async () => (await read('/ready')).status === 200, 20_000)
  }, 60_000)
})
