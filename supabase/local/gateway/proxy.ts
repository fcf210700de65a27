import http from 'node:http'
import { gatewayError } from './errors.ts'

/** Headers that belong to one connection, not to the message. */
const HOP_BY_HOP = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
])
const agent = new http.Agent({ keepAlive: true, maxSockets: Number.POSITIVE_INFINITY })

/**
 * Passes a request on to a child and its answer back, both byte by byte as they come. Not `fetch`, because that unpacks
 * compressed answers and keeps their content-encoding. When either side goes away, so does the other.
 */
export function proxy(request: Request, url: URL, port: number, path: string): Promise<Response> {
  const headers: Record<string, string> = { 'x-forwarded-host': url.host, 'x-forwarded-proto': 'http' }
  for (const [name, value] of request.headers) if (!HOP_BY_HOP.has(name)) headers[name] = value
  if (request.body && !headers['content-length']) headers['transfer-encoding'] = 'chunked'
  return new Promise((resolve) => {
    let answered = false
    const upstream = http.request({ host: '127.0.0.1', port, method: request.method, path, headers, agent })
    request.signal.addEventListener('abort', () => leave(upstream), { once: true })
    upstream.on('error', () => {
      if (answered) return
      const unavailable = gatewayError(503, 'Service temporarily unavailable', 'It is starting; try again in a moment.')
      unavailable.headers.set('retry-after', '1')
      resolve(unavailable)
    })
    upstream.on('response', (incoming) => {
      answered = true
      const answer = new Headers()
      for (let i = 0; i < incoming.rawHeaders.length; i += 2) {
        const name = incoming.rawHeaders[i]!.toLowerCase()
        if (!HOP_BY_HOP.has(name)) answer.append(name, incoming.rawHeaders[i + 1]!)
      }
      const status = incoming.statusCode!
      const bodyless = request.method === 'HEAD' || status === 204 || status === 205 || status === 304
      if (bodyless) incoming.resume()
      resolve(new Response(bodyless ? null : stream(incoming, upstream), { status, headers: answer }))
    })
    send(request.body, upstream)
  })
}

/** A reused socket that is destroyed while Deno waits for its answer stays open in secret: it is half closed first. */
function leave(upstream: http.ClientRequest): void {
  // Done already: its socket may serve another request.
  if (upstream.destroyed) return
  upstream.socket?.end()
  setTimeout(() => upstream.destroy(), 100)
}

async function send(body: ReadableStream<Uint8Array> | null, upstream: http.ClientRequest) {
  try {
    for await (const chunk of body ?? []) {
      if (!upstream.write(chunk)) await new Promise((resolve) => upstream.once('drain', resolve).once('close', resolve))
      if (upstream.destroyed) return
    }
    upstream.end()
  } catch {
    upstream.destroy()
  }
}

function stream(incoming: http.IncomingMessage, upstream: http.ClientRequest): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      incoming.on('data', (chunk: Uint8Array) => {
        controller.enqueue(chunk)
        if ((controller.desiredSize ?? 1) <= 0) incoming.pause()
      })
      incoming.once('end', () => controller.close())
      // A child that dies in the middle of an answer must not look like the answer's end.
      incoming.once('error', (error) => controller.error(error))
    },
    pull: () => void incoming.resume(),
    cancel: () => void upstream.destroy(),
  })
}
