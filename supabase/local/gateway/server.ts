import { startAuth } from '../auth/server.ts'
import type { Running } from '../child.ts'
import { type Project, readProject } from '../config.ts'
import { functionEnvironment } from '../env.ts'
import { startRealtime } from '../realtime/server.ts'
import { startScheduler } from '../scheduler/start.ts'
import type { Stack } from '../stack.ts'
import { preflight, withCors } from './cors.ts'
import { gatewayError } from './errors.ts'
import { authenticate, refuseKey } from './keys.ts'
import { createPool } from './pool.ts'
import { proxy } from './proxy.ts'
import { startRest } from './rest.ts'
import { createSessions } from './session.ts'
import { startStorage } from './storage/server.ts'
import { createTokens } from './tokens.ts'
import { writeBigIntsExactly } from './values.ts'

type Handler = (request: Request, url: URL, peer: string) => Response | Promise<Response>

/** Longer than 800 ids in a filter, shorter than what the HTTP server cuts off without a word. */
const MAX_URL_LENGTH = 48 * 1024
/** Reached by browsers following a link, which cannot carry a key. */
const KEYLESS_AUTH = /^\/auth\/v1\/(authorize|callback|verify|health|\.well-known\/.*)$/

/** The one public port: knows the routes, the keys and CORS, and leaves the rest to the services. */
export async function startGateway(stack: Stack): Promise<Running> {
  writeBigIntsExactly()
  const project: Project = readProject(stack.project, functionEnvironment(stack))
  const tokens = await createTokens(stack)
  const pool = createPool(stack)
  const sessions = createSessions(pool)
  const [rest, storage, auth, realtime, scheduler] = await Promise.all([
    startRest({ stack, project, sessions }),
    startStorage({ stack, project, sessions, tokens }),
    startAuth({ stack, project, tokens }),
    startRealtime({ stack, tokens }),
    startScheduler({ stack }),
  ])

  const restHandler: Handler = async (request, url) => {
    const { claims, response } = await authenticate(request, url, tokens)
    if (response) return response
    // Written only when needed: it would encode the whole query anew.
    if (url.searchParams.has('apikey')) url.searchParams.delete('apikey')
    return rest.fetch(request, url, claims)
  }
  const authHandler: Handler = (request, url) =>
    (KEYLESS_AUTH.test(url.pathname) ? null : refuseKey(request, url, tokens)) ?? auth.fetch(request)
  // A socket brings its key in the address or in its first message, and Realtime checks it there.
  const realtimeHandler: Handler = (request, url) =>
    (request.headers.has('upgrade') ? null : refuseKey(request, url, tokens)) ?? realtime.fetch(request)
  const toChild =
    (prefix: string, port: number): Handler =>
    (request, url, peer) =>
      proxy(request, { url, peer, port, path: (url.pathname.slice(prefix.length) || '/') + url.search })

  /** The first prefix that matches answers. `cors: false` where the answering code sets its own headers. */
  const routes: { prefix: string; handler: Handler; cors: boolean }[] = [
    { prefix: '/rest/v1', handler: restHandler, cors: true },
    { prefix: '/storage/v1', handler: storage.fetch, cors: true },
    { prefix: '/auth/v1', handler: authHandler, cors: true },
    { prefix: '/realtime/v1', handler: realtimeHandler, cors: true },
    { prefix: '/functions/v1/worker', handler: toChild('/functions/v1', stack.ports.worker), cors: false },
    { prefix: '/functions/v1', handler: toChild('/functions/v1', stack.ports.functions), cors: false },
    { prefix: '/sandbox', handler: toChild('/sandbox', stack.ports.sandbox), cors: false },
  ]

  /**
   * A web page can give its own name the address of this machine, and then read every answer, the inbox too: what it
   * cannot do is write another name than its own into the request.
   */
  const hosts = new Set(['127.0.0.1', 'localhost', '[::1]', new URL(stack.url).hostname])

  async function answer(request: Request, { remoteAddr }: Deno.ServeHandlerInfo<Deno.NetAddr>): Promise<Response> {
    if (request.url.length > MAX_URL_LENGTH) return gatewayError(414, 'URI too long')
    const url = URL.parse(request.url)
    if (!url) return gatewayError(400, 'The host of the request could not be read')
    if (!hosts.has(url.hostname)) return gatewayError(403, 'The stack answers to its own address alone', stack.url)
    const route = routes.find(({ prefix }) => url.pathname === prefix || url.pathname.startsWith(`${prefix}/`))
    if (!route) return gatewayError(404, 'no Route matched with those values')
    if (!route.cors) return await route.handler(request, url, remoteAddr.hostname)
    if (request.method === 'OPTIONS' && request.headers.has('origin')) return preflight(request)
    return withCors(await route.handler(request, url, remoteAddr.hostname))
  }

  const server = Deno.serve({
    hostname: '127.0.0.1',
    port: stack.ports.platform,
    onListen: () => {},
    handler: answer,
    onError(error) {
      console.error('gateway', error)
      return withCors(gatewayError(500, 'An unexpected error occurred'))
    },
  })
  return {
    async stop() {
      const closed = server.shutdown()
      await Promise.all([scheduler.stop(), realtime.stop()])
      // Streams that go on for long are cut: the supervisor does not wait for them either.
      await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, 1_000))])
      await Promise.all([auth.stop(), rest.stop()])
      await pool.stop()
    },
  }
}
