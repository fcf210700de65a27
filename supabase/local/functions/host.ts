import type { Stack } from '../stack.ts'
import { type Handler, type Loaded, loadFunctions } from './load.ts'
import { refuse } from './refusals.ts'
import { announceUnload, drainBackground } from './runtime.ts'
import type { FunctionSource } from './sources.ts'
import { tokenCheck } from './verify.ts'

export interface HostOptions {
  stack: Stack
  functions: FunctionSource[]
  port: number
  jwks: string
  /** Without response headers for this long a request is answered 504, as hosted does. */
  responseSeconds?: number
}

export interface Host {
  /** Announces the end, lets requests and background tasks finish for at most `ms`, and closes. */
  stop(ms: number): Promise<void>
}

const tooLate = Symbol('too late')

/** Serves `/<slug>/…` on loopback. */
export function startHost({ stack, functions, port, jwks, responseSeconds = 150 }: HostOptions): Host {
  const loaded = loadFunctions(functions, stack.project)
  const guarded = new Set(functions.filter((source) => source.verifyJwt).map((source) => source.slug))
  const checkToken = tokenCheck(jwks, `${stack.url}/auth/v1`)
  let clockRuns = false

  const server = Deno.serve({ hostname: '127.0.0.1', port, onListen() {} }, async (request, info) => {
    const url = new URL(request.url)
    const slug = url.pathname.split('/')[1]!
    const pending = loaded.get(slug)
    if (!pending) return refuse(404, 'NOT_FOUND', 'Requested function was not found')
    if (guarded.has(slug)) {
      const refused = await checkToken(request)
      if (refused) return refused
    }
    if (stack.wallClockSeconds !== null && !clockRuns) {
      clockRuns = true
      startWallClock(stack.wallClockSeconds)
    }
    const module: Loaded = await pending
    if ('reason' in module) return refuse(503, 'BOOT_ERROR', `Function failed to start: ${module.reason}`)
    return answer(slug, module.handler, request, info, responseSeconds)
  })

  return {
    async stop(ms) {
      announceUnload('termination')
      const finished = Promise.all([server.shutdown(), drainBackground()])
      await Promise.race([finished, new Promise((resolve) => setTimeout(resolve, ms))])
    },
  }
}

async function answer(
  slug: string,
  handler: Handler,
  request: Request,
  info: Deno.ServeHandlerInfo,
  seconds: number,
): Promise<Response> {
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<typeof tooLate>((resolve) => {
    timer = setTimeout(() => resolve(tooLate), seconds * 1000)
  })
  try {
    const handled = Promise.resolve(handler(request, info))
    const response = await Promise.race([handled, late])
    if (response !== tooLate) return check(slug, request, response)
    // Nobody will read what it still says; a late failure is logged, not lost.
    handled
      .then((unread) => unread?.body?.cancel())
      .catch((error) => console.error(`function ${slug}, after its 504:`, error))
    return refuse(504, 'IDLE_TIMEOUT', `The function sent no response within ${seconds} s`)
  } catch (error) {
    console.error(`function ${slug} failed:`, error)
    return refuse(500, 'WORKER_ERROR', 'Function exited due to an error (please check logs)')
  } finally {
    clearTimeout(timer)
  }
}

function check(slug: string, request: Request, response: Response): Response {
  if (!(response instanceof Response)) {
    console.error(`function ${slug} answered no Response`)
    return refuse(500, 'WORKER_ERROR', 'Function exited due to an error (please check logs)')
  }
  // Hosted serves no web pages from its own domain.
  if (request.method === 'GET' && response.headers.get('content-type')?.startsWith('text/html')) {
    const headers = new Headers(response.headers)
    headers.set('content-type', 'text/plain')
    return new Response(response.body, { status: response.status, headers })
  }
  return response
}

/** `--wall-clock N`: N seconds after its first request the worker is no more, whatever it is doing. */
function startWallClock(seconds: number): void {
  // Hosted announces the end after nine tenths; a clock set short for a test leaves up to 3 s for the last word, too.
  const announced = Math.min(seconds * 0.9, Math.max(seconds - 3, seconds * 0.6))
  setTimeout(() => announceUnload('wall_clock'), announced * 1000)
  setTimeout(() => Deno.kill(Deno.pid, 'SIGKILL'), seconds * 1000)
}
