import { Channel } from './channel.ts'
import { type Data, decode, encode, type Inbound, type Version } from './codec.ts'
import { type Credentials, identify } from './credentials.ts'
import { MAX_FRAME_BYTES } from './limits.ts'
import type { Services } from './services.ts'

/** A client that does not read what it asked for is cut off here, before it costs the server's memory. */
const MAX_BUFFERED_BYTES = 8 * 1024 * 1024
const IDLE_MS = 60_000

/** One WebSocket and the channels that its client joined over it. */
export class Socket {
  readonly version: Version
  readonly headers: Record<string, string>
  readonly #ws: WebSocket
  readonly #services: Services
  readonly #handshake: Credentials
  readonly #channels = new Map<string, Channel>()
  #heardAt = performance.now()

  constructor(
    ws: WebSocket,
    services: Services,
    handshake: Credentials,
    version: Version,
    headers: Record<string, string>,
  ) {
    this.#ws = ws
    this.#services = services
    this.#handshake = handshake
    this.version = version
    this.headers = headers
    ws.binaryType = 'arraybuffer'
    ws.onopen = () => services.sockets.add(this)
    ws.onmessage = ({ data }) => this.#receive(data)
    ws.onerror = () => {} // a close event follows
    ws.onclose = () => this.#release()
  }

  /** Hosted counts a socket as a user once it has joined something. */
  get isUser(): boolean {
    return [...this.#channels.values()].some((channel) => channel.isJoined)
  }
  get channelCount(): number {
    return this.#channels.size
  }
  get isIdle(): boolean {
    return performance.now() - this.#heardAt > IDLE_MS
  }

  /** Who a channel acts for: its own token, or the key that opened the socket. */
  async credentials(token: string | null): Promise<Credentials> {
    return token === null
      ? await identify(this.#services.tokens, this.#handshake.token)
      : await identify(this.#services.tokens, token)
  }

  send(data: Data | null) {
    if (data === null || this.#ws.readyState !== WebSocket.OPEN) return
    if (this.#ws.bufferedAmount > MAX_BUFFERED_BYTES) return this.close(1013, 'too slow')
    this.#ws.send(data)
  }

  forget(channel: Channel) {
    const topic = `realtime:${channel.subTopic}`
    if (this.#channels.get(topic) === channel) this.#channels.delete(topic)
  }

  close(code: number, reason: string) {
    if (this.#ws.readyState !== WebSocket.OPEN) return
    this.#ws.close(code, reason)
    this.#release()
  }

  #release() {
    this.#services.sockets.delete(this)
    for (const channel of [...this.#channels.values()]) channel.leave()
  }

  #receive(data: unknown) {
    this.#heardAt = performance.now()
    const size = typeof data === 'string' ? data.length : (data as ArrayBuffer).byteLength
    if (size > MAX_FRAME_BYTES) return this.close(1009, 'frame too large')
    const frame = decode(data, this.version)
    if (frame) this.#dispatch(frame)
  }

  #dispatch(frame: Inbound) {
    if (frame.topic === 'phoenix' && frame.event === 'heartbeat') return this.#reply(frame, 'ok', {})
    const channel = this.#channels.get(frame.topic)
    if (frame.event === 'phx_join' && frame.topic.startsWith('realtime:')) {
      channel?.close()
      this.#channels.set(frame.topic, new Channel(this, this.#services, frame))
    } else if (channel) channel.receive(frame)
    else if (frame.event === 'phx_leave') this.#reply(frame, 'ok', {})
    else this.#reply(frame, 'error', { reason: 'unmatched topic' })
  }

  /** To a message that belongs to no channel. */
  #reply({ ref, topic }: Inbound, status: 'ok' | 'error', response: Record<string, unknown>) {
    this.send(encode({ ref, topic, event: 'phx_reply', payload: { status, response } }, this.version))
  }
}
