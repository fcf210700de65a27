import { gatewayError } from './errors.ts'

/** Headers that belong to one connection, not to the message. */
const HOP_BY_HOP = [
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]

interface Onward {
  url: URL
  /** Address of the client; what it claims itself is not believed, because limits go by it. */
  peer: string
  port: number
  path: string
}

/** Each request has a connection of its own: on one that served before, Deno's server does not see that we went away. */
const client = Deno.createHttpClient({ poolMaxIdlePerHost: 0 })

/**
 * Passes a request on to a child and its answer back, both piece by piece as they come. When either side goes away, so
 * does the other.
 */
export async function proxy(request: Request, { url, peer, port, path }: Onward): Promise<Response> {
  const headers = new Headers(request.headers)
  for (const name of HOP_BY_HOP) headers.delete(name)
  // Without it `fetch` offers gzip and brotli in the caller's name, and curl prints what it cannot read.
  if (!headers.has('accept-encoding')) headers.set('accept-encoding', 'identity')
  headers.set('x-forwarded-for', peer)
  headers.set('x-forwarded-host', url.host)
  headers.set('x-forwarded-proto', 'http')
  let answer: Response
  try {
    answer = await fetch(`http://127.0.0.1:${port}${path}`, {
      method: request.method,
      headers,
      body: request.body,
      redirect: 'manual',
      signal: request.signal,
      client,
    } as RequestInit)
  } catch {
    const unavailable = gatewayError(503, 'Service temporarily unavailable', 'It is starting; try again in a moment.')
    unavailable.headers.set('retry-after', '1')
    return unavailable
  }
  return repack(answer)
}

/** The answer as it was sent: `fetch` unpacks a compressed body and leaves its headers as they were. */
function repack({ body, headers, status }: Response): Response {
  const passed = new Headers(headers)
  for (const name of HOP_BY_HOP) passed.delete(name)
  const encoding = headers.get('content-encoding')
  if (!body || !encoding) return new Response(body, { status, headers: passed })
  passed.delete('content-length')
  if (encoding === 'gzip' || encoding === 'deflate') {
    return new Response(body.pipeThrough(new CompressionStream(encoding)), { status, headers: passed })
  }
  passed.delete('content-encoding')
  return new Response(body, { status, headers: passed })
}
