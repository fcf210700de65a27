import { type Context, Hono } from 'hono'
import { RedisDatabase, RedisError, type Reply } from './redis.ts'

/** What every database of the sandbox takes as its token. */
const token = 'sandbox'

interface Served {
  redis: RedisDatabase
  faults: { down: boolean; delay_ms: number }
}

type Item = { result: unknown } | { error: string }

/**
 * Upstash's Redis over REST, as `@upstash/redis` and `@upstash/ratelimit` meet it. `/<name>` is the URL of a database of
 * that name, empty when first asked. `PUT /<name>/faults` and `DELETE /<name>` are for tests.
 */
export function upstash(): Hono {
  const app = new Hono()
  const served = new Map<string, Served>()
  const find = (name: string) => {
    const known = served.get(name) ?? { redis: new RedisDatabase(), faults: { down: false, delay_ms: 0 } }
    served.set(name, known)
    return known
  }

  app.put('/:name/faults', async (c) => {
    const { down = false, delay_ms = 0 } = await c.req.json()
    find(c.req.param('name')).faults = { down: Boolean(down), delay_ms: Number(delay_ms) }
    return c.body(null, 204)
  })
  app.delete('/:name', (c) => {
    served.delete(c.req.param('name'))
    return c.body(null, 204)
  })

  app.use('/:name/*', async (c, next) => {
    const { faults } = find(c.req.param('name'))
    if (faults.delay_ms > 0) await new Promise((resolve) => setTimeout(resolve, faults.delay_ms))
    // What stands in front of a database that is gone answers no JSON.
    if (faults.down) return c.text('upstream connect error', 503)
    if (c.req.header('authorization') !== `Bearer ${token}`) {
      return c.json({ error: 'WRONGPASS invalid or missing auth token' }, 401)
    }
    await next()
  })

  app.post('/:name', async (c) => {
    const command = commandOf(await bodyOf(c))
    if (!command) return c.json({ error: 'ERR failed to parse command' }, 400)
    const item = run(find(c.req.param('name')).redis, command, encoder(c))
    return c.json(item, 'error' in item ? 400 : 200)
  })

  app.post('/:name/pipeline', async (c) => {
    const commands = commandsOf(await bodyOf(c))
    if (!commands) return c.json({ error: 'ERR failed to parse pipeline request' }, 400)
    const { redis } = find(c.req.param('name'))
    return c.json(commands.map((command) => run(redis, command, encoder(c))))
  })

  app.post('/:name/multi-exec', async (c) => {
    const commands = commandsOf(await bodyOf(c))
    if (!commands) return c.json({ error: 'ERR failed to parse multi-exec request' }, 400)
    const { redis } = find(c.req.param('name'))
    try {
      for (const command of commands) redis.check(command)
    } catch (error) {
      const { message } = error as RedisError
      return c.json({ error: `EXECABORT Transaction discarded because of: ${message}` }, 400)
    }
    return c.json(commands.map((command) => run(redis, command, encoder(c))))
  })

  return app
}

function run(redis: RedisDatabase, command: string[], encode: (reply: Reply) => Reply): Item {
  try {
    return { result: encode(redis.run(command)) }
  } catch (error) {
    if (error instanceof RedisError) return { error: error.message }
    throw error
  }
}

const bodyOf = (c: Context): Promise<unknown> => c.req.json().catch(() => null)

/** Clients send numbers and booleans as such; Redis knows only text. */
function commandOf(body: unknown): string[] | null {
  if (!Array.isArray(body) || body.length === 0) return null
  return body.some((part) => typeof part === 'object' && part !== null) ? null : body.map(String)
}

function commandsOf(body: unknown): string[][] | null {
  if (!Array.isArray(body)) return null
  const commands = body.map(commandOf)
  return commands.every((command) => command !== null) ? commands : null
}

/** With `Upstash-Encoding: base64` every text is the base64 of its bytes, within lists too; a status `OK` stays. */
function encoder(c: Context): (reply: Reply) => Reply {
  if (c.req.header('upstash-encoding') !== 'base64') return (reply) => reply
  const encode = (reply: Reply): Reply => {
    if (Array.isArray(reply)) return reply.map(encode)
    return typeof reply === 'string' ? new TextEncoder().encode(reply).toBase64() : reply
  }
  return (reply) => (reply === 'OK' ? reply : encode(reply))
}
