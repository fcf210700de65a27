import postgres from 'postgres'
import { isBrowser } from '../gateway/keys.ts'
import type { Tokens } from '../gateway/tokens.ts'
import { databaseUrl, type Stack } from '../stack.ts'
import { Changes } from './changes.ts'
import type { Version } from './codec.ts'
import { identify, Refused } from './credentials.ts'
import { Feed } from './feed.ts'
import { Limits } from './limits.ts'
import { handleBroadcast } from './rest.ts'
import { Rooms } from './rooms.ts'
import type { Services } from './services.ts'
import { Socket } from './socket.ts'

const BASE = '/realtime/v1'
const IDLE_CHECK_MS = 15_000
/** Stored broadcasts can be replayed for three days; hosted drops them by the day. */
const PRUNE_EVERY_MS = 3_600_000
const CORS = {
  'access-control-allow-origin': '*',
  'access-control-allow-headers': 'authorization, x-client-info, apikey, content-type',
  'access-control-allow-methods': 'GET, POST, OPTIONS',
}

/** The local Realtime server: WebSocket and broadcast routes below `/realtime/v1`, fed by the database's WAL. */
export async function startRealtime({ stack, tokens }: { stack: Stack; tokens: Tokens }) {
  const url = databaseUrl(stack, 'supabase_admin')
  const sql = postgres(url, {
    max: 4,
    onnotice: () => {},
    // A policy that hangs must not hold one of the few connections.
    connection: { application_name: `realtime ${Deno.pid}`, statement_timeout: 10_000 },
  })
  const limits = new Limits(stack.realtimeLimits)
  const rooms = new Rooms(limits)
  const changes = new Changes(sql, limits)
  const feed = new Feed({ url, sql, rooms, changes })
  const services: Services = { sql, tokens, limits, rooms, changes, feed, sockets: new Set() }
  changes.useFeed(feed)
  await feed.start()

  const prune = () =>
    sql`delete from realtime.messages where inserted_at < now() - interval '3 days'`.catch((error) =>
      console.error(`realtime: old messages stay: ${error.message}`),
    )
  await prune()
  const pruning = setInterval(prune, PRUNE_EVERY_MS)
  const sweep = setInterval(() => {
    for (const socket of services.sockets) if (socket.isIdle) socket.close(1000, 'idle')
  }, IDLE_CHECK_MS)

  return {
    async fetch(request: Request): Promise<Response> {
      const path = new URL(request.url).pathname.slice(BASE.length)
      if (request.method === 'OPTIONS') return new Response(null, { status: 204, headers: CORS })
      if (path === '/websocket') return await openSocket(services, request)
      const response = await handleBroadcast(services, request, path)
      for (const [name, value] of Object.entries(CORS)) response.headers.set(name, value)
      return response
    },
    async stop(): Promise<void> {
      clearInterval(sweep)
      clearInterval(pruning)
      // 1001: clients take it for a loss and come back by themselves.
      for (const socket of services.sockets) socket.close(1001, 'server stops')
      await feed.stop()
      await sql.end({ timeout: 1 })
    },
  }
}

/** The key is the header's or the query's; `Authorization` plays no part on a WebSocket. */
async function openSocket(services: Services, request: Request): Promise<Response> {
  const { searchParams } = new URL(request.url)
  const version = versionOf(searchParams.get('vsn'))
  if (!version) return Response.json({ error: 'Unsupported protocol version' }, { status: 400 })
  const key = request.headers.get('x-api-key') ?? searchParams.get('apikey')
  if (!key) return Response.json({ error: 'API key is missing' }, { status: 401 })
  try {
    const handshake = await identify(services.tokens, key)
    if (handshake.claims.role === 'service_role' && isBrowser(request)) {
      return Response.json({ error: 'Forbidden use of secret API key in browser' }, { status: 401 })
    }
    if (request.headers.get('upgrade')?.toLowerCase() !== 'websocket') {
      return Response.json({ error: 'A WebSocket upgrade is expected' }, { status: 426 })
    }
    const headers = Object.fromEntries([...request.headers].filter(([name]) => name.startsWith('x-')))
    const { socket, response } = Deno.upgradeWebSocket(request, { idleTimeout: 0 })
    new Socket(socket, services, handshake, version, headers)
    return response
  } catch (error) {
    if (!(error instanceof Refused)) throw error
    return Response.json({ error: error.message }, { status: 401 })
  }
}

function versionOf(vsn: string | null): Version | null {
  if (vsn === null || vsn.startsWith('1.0.')) return 1
  return vsn.startsWith('2.0.') ? 2 : null
}
