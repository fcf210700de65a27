import { type ChildProcess, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { type AddressInfo, createConnection } from 'node:net'
import { delimiter, join } from 'node:path'
import { freePort } from '../local/fixtures/processes.ts'

/** A redis-server of a test's own, reached as Upstash's is: over REST, with the token that is named. */
export interface Redis {
  url: string
  token: string
  kill(): Promise<void>
  isUp(): boolean
  /** Starts an empty server in the place of the one that was killed. */
  restart(): Promise<void>
  /** A frozen server takes connections and answers nothing. */
  freeze(): void
  thaw(): void
  command(...args: string[]): Promise<unknown>
  stop(): Promise<void>
}

const token = 'bridged'

export async function startRedis(): Promise<Redis> {
  const port = await freePort()
  let server = await serve(port)
  const bridge = createServer((request, response) => answer(request, response, port))
  await new Promise<void>((resolve) => bridge.listen(0, '127.0.0.1', resolve))
  const isUp = () => server.exitCode === null && server.signalCode === null
  const kill = async () => {
    const gone = new Promise((resolve) => server.once('exit', resolve))
    server.kill('SIGKILL')
    await gone
  }
  return {
    url: `http://127.0.0.1:${(bridge.address() as AddressInfo).port}`,
    token,
    kill,
    isUp,
    async restart() {
      server = await serve(port)
    },
    freeze: () => void server.kill('SIGSTOP'),
    thaw: () => void server.kill('SIGCONT'),
    async command(...args) {
      const [reply] = await ask(port, [args])
      if (reply instanceof Error) throw reply
      return reply
    },
    async stop() {
      if (isUp()) await kill()
      bridge.closeAllConnections()
      await new Promise((resolve) => bridge.close(resolve))
    },
  }
}

/** From PATH, or from the native server that NATIVE_DIR names; resolves when it takes connections. */
async function serve(port: number): Promise<ChildProcess> {
  const root = process.env.NATIVE_DIR
  const inPath = process.env.PATH!.split(delimiter).some((folder) => existsSync(join(folder, 'redis-server')))
  const flags = ['redis-server', '--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no']
  if (!inPath && !root) throw new Error('No redis-server: it is not in PATH, and NATIVE_DIR names no native server.')
  const [command, ...args] = inPath ? flags : ['chroot', root!, ...flags]
  const server = spawn(command!, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  await new Promise<void>((resolve, reject) => {
    server.once('exit', (code) => reject(new Error(`redis-server ended with code ${code}`)))
    server.stdout!.on('data', (text) => String(text).includes('Ready to accept connections') && resolve())
  })
  server.removeAllListeners('exit')
  return server
}

type Reply = string | number | null | Error | Reply[]

/** Upstash's REST over Redis' own protocol: https://upstash.com/docs/redis/features/restapi. */
async function answer(request: IncomingMessage, response: ServerResponse, port: number): Promise<void> {
  const send = (status: number, body: unknown) =>
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
  const encode = request.headers['upstash-encoding'] === 'base64' ? base64 : (reply: Reply) => reply
  const item = (reply: Reply) => (reply instanceof Error ? { error: reply.message } : { result: encode(reply) })
  try {
    let text = ''
    for await (const chunk of request.setEncoding('utf8')) text += chunk
    if (request.headers.authorization !== `Bearer ${token}`)
      return void send(401, { error: 'WRONGPASS invalid or missing auth token' })
    const body = JSON.parse(text)
    if (request.url === '/pipeline') return void send(200, (await ask(port, body)).map(item))
    if (request.url === '/multi-exec') {
      const replies = await ask(port, [['MULTI'], ...body, ['EXEC']])
      const done = replies.at(-1)!
      return void (done instanceof Error ? send(400, { error: done.message }) : send(200, (done as Reply[]).map(item)))
    }
    const [reply] = await ask(port, [body])
    send(reply instanceof Error ? 400 : 200, item(reply!))
  } catch (error) {
    send(503, { error: String(error) })
  }
}

function base64(reply: Reply): Reply {
  if (Array.isArray(reply))
    return reply.map((part) => (part === 'OK' ? Buffer.from(part).toString('base64') : base64(part)))
  return typeof reply === 'string' && reply !== 'OK' ? Buffer.from(reply).toString('base64') : reply
}

/**
 * The scripts of `@upstash/ratelimit` begin with a flag that Upstash alone knows. Redis gets them without that line, and
 * so by another hash than the one that they are asked for by.
 */
const known = new Map<string, string>()
const sha1 = (text: string) => createHash('sha1').update(text).digest('hex')

function forRedis([name, first, ...rest]: unknown[]): string[] {
  let script = String(first)
  if (/^eval$/i.test(String(name))) {
    script = script.replace(/^#!.*/, '')
    known.set(sha1(String(first)), sha1(script))
  }
  if (/^evalsha$/i.test(String(name))) script = known.get(script) ?? script
  return first === undefined ? [String(name)] : [String(name), script, ...rest.map(String)]
}

/** Runs commands on a connection of their own, and answers each. */
function ask(port: number, commands: unknown[][]): Promise<Reply[]> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(port, '127.0.0.1')
    let received = Buffer.alloc(0)
    const replies: Reply[] = []
    let at = 0
    socket.once('error', reject)
    socket.once('close', () => reject(new Error('Redis closed the connection')))
    socket.on('data', (chunk) => {
      received = Buffer.concat([received, chunk])
      for (;;) {
        const read = parse(received, at)
        if (!read) return
        replies.push(read.reply)
        at = read.end
        if (replies.length < commands.length) continue
        resolve(replies)
        return void socket.destroy()
      }
    })
    const wire = commands.map(forRedis).map((parts) => {
      const bulk = parts.map((part) => `$${Buffer.byteLength(part)}\r\n${part}\r\n`)
      return `*${parts.length}\r\n${bulk.join('')}`
    })
    socket.write(wire.join(''))
  })
}

/** One reply of the protocol (RESP2) from `at` on; null while it is not whole. */
function parse(bytes: Buffer, at: number): { reply: Reply; end: number } | null {
  const lineEnd = bytes.indexOf('\r\n', at)
  if (lineEnd < 0) return null
  const line = bytes.toString('utf8', at + 1, lineEnd)
  const after = lineEnd + 2
  switch (String.fromCharCode(bytes[at]!)) {
    case '+':
      return { reply: line, end: after }
    case '-':
      return { reply: new Error(line), end: after }
    case ':':
      return { reply: Number(line), end: after }
    case '$': {
      if (line === '-1') return { reply: null, end: after }
      const end = after + Number(line)
      return bytes.length < end + 2 ? null : { reply: bytes.toString('utf8', after, end), end: end + 2 }
    }
    default: {
      const parts: Reply[] = []
      let end = after
      while (parts.length < Number(line)) {
        const read = parse(bytes, end)
        if (!read) return null
        parts.push(read.reply)
        end = read.end
      }
      return { reply: line === '-1' ? null : parts, end }
    }
  }
}
