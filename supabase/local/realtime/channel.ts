import { Access } from './access.ts'
import { type Broadcast, encode, encodeBroadcast, type Fanout, type Inbound, jsonBytes, type Payload } from './codec.ts'
import { isObject, type JoinConfig, joinToken, objectOf, readJoinConfig } from './config.ts'
import { type Credentials, checkExpiry, identify, Refused } from './credentials.ts'
import { MAX_PAYLOAD_BYTES, TOO_MANY_JOINS } from './limits.ts'
import { replayed, replayPayload } from './replay.ts'
import type { Room } from './rooms.ts'
import type { Services } from './services.ts'
import type { Socket } from './socket.ts'

const CONFIRM_TOKEN_MS = 5 * 60_000
/** Frames of a client that wait for the database; more means that it floods us. */
const MAX_WAITING = 1_000

/** One joined topic of one socket. Its messages are handled one after the other, as they came. */
export class Channel {
  readonly subTopic: string
  readonly joinRef: string | null
  readonly #socket: Socket
  readonly #services: Services
  readonly #config: JoinConfig
  readonly #withinPresenceLimit: () => boolean
  #credentials!: Credentials
  #access: Access | null = null
  #room: Room | null = null
  #presenceEnabled: boolean
  /** Deliveries between entering the room and the join's reply; null once they flow. */
  #held: { message: Fanout; id?: string }[] | null = []
  #closed = false
  #expiry: ReturnType<typeof setTimeout> | undefined
  #work: Promise<void> = Promise.resolve()
  #waiting = 0

  constructor(socket: Socket, services: Services, join: Inbound) {
    this.#socket = socket
    this.#services = services
    this.#config = readJoinConfig(join.payload)
    this.#presenceEnabled = this.#config.presence.enabled
    this.#withinPresenceLimit = services.limits.presenceCalls()
    this.joinRef = join.joinRef ?? join.ref
    this.subTopic = join.topic.slice('realtime:'.length)
    this.#enqueue(() => this.#join(join))
  }

  get isPrivate(): boolean {
    return this.#config.isPrivate
  }
  get receivesBroadcasts(): boolean {
    return !this.#access || this.#access.reads('broadcast')
  }
  get receivesPresence(): boolean {
    return !this.#access || this.#access.reads('presence')
  }
  /** Counts as joined once it is in its room. */
  get isJoined(): boolean {
    return this.#room !== null && !this.#closed
  }

  receive(frame: Inbound) {
    this.#enqueue(() => this.#handle(frame))
  }

  #enqueue(task: () => Promise<void>) {
    if (++this.#waiting > MAX_WAITING) return this.#socket.close(1013, 'too many messages at once')
    this.#work = this.#work
      .then(() => (this.#closed ? undefined : task()))
      .catch((error) => console.error(`realtime: ${this.subTopic}: ${error instanceof Error ? error.message : error}`))
      .finally(() => this.#waiting--)
  }

  async #join({ payload, ref }: Inbound): Promise<void> {
    try {
      this.#checkMayJoin()
      this.#credentials = await this.#socket.credentials(joinToken(payload))
      this.#access = await this.#authorize()
      this.#scheduleExpiry()
      if (this.#closed) return
      this.#room = this.#services.rooms.enter(this.subTopic, this)
      const replays = await this.#replays()
      const { bindings, failure } = await this.#subscribe()
      if (failure && this.#config.changesRequired) throw new Refused('RealtimeDisabledForConfiguration', failure)
      if (this.#closed) return
      this.#reply(ref, 'ok', { postgres_changes: bindings })
      this.#afterJoin(replays, failure)
    } catch (error) {
      if (this.#closed) return
      if (!(error instanceof Refused)) console.error('realtime: join failed', error)
      const reason = error instanceof Refused ? error.reason : 'Unknown Error on Channel'
      this.#reply(ref, 'error', { reason })
      this.leave()
      if (reason === TOO_MANY_JOINS) this.#socket.close(1000, 'too many joins')
    }
  }

  #checkMayJoin() {
    if (this.subTopic === '') throw new Refused('TopicNameRequired', 'You must provide a topic name')
    const { limits, sockets } = this.#services
    const users = [...sockets].filter((socket) => socket.isUser).length
    const refusal = limits.join({ isNewUser: !this.#socket.isUser, users, channels: this.#socket.channelCount })
    if (refusal) throw new Refused(...(refusal.split(': ') as [string, string]))
  }

  async #authorize(): Promise<Access | null> {
    if (!this.isPrivate) return null
    const { claims } = this.#credentials
    const access = new Access(this.#services.sql, { topic: this.subTopic, claims, headers: this.#socket.headers })
    await access.join(this.#presenceEnabled)
    return access
  }

  async #replays(): Promise<Broadcast[]> {
    const { replay } = this.#config
    if (!replay) return []
    if (!this.isPrivate) throw new Refused('UnableToReplayMessages', 'Replay is not allowed for public channels')
    if (!this.receivesBroadcasts) return []
    return await replayed(this.#services.sql, this.subTopic, replay.since, replay.limit)
  }

  /** Order matters: replays, what was sent meanwhile (without what was replayed), then state and system messages. */
  #afterJoin(replays: Broadcast[], failure: string | null) {
    for (const message of replays) {
      // Text, unlike live broadcasts, except where the payload is bytes; addressed to this join only.
      if (message.raw) this.#socket.send(encodeBroadcast(`realtime:${this.subTopic}`, message, this.#socket.version))
      else this.#push('broadcast', replayPayload(message))
    }
    const seen = new Set(replays.map((message) => message.meta?.id))
    const held = this.#held ?? []
    this.#held = null
    for (const { message, id } of held) if (!id || !seen.has(id)) this.deliver(message)
    if (this.#config.changes.length > 0) this.reportSubscription(failure)
    if (this.#presenceEnabled && this.receivesPresence) this.#pushPresenceState()
    if (this.#config.replicationReady) {
      this.#services.feed.streaming().then(() => this.#system('system', 'ok', 'Replication connection established'))
    }
  }

  async #handle(frame: Inbound): Promise<void> {
    switch (frame.event) {
      case 'phx_leave':
        this.#reply(frame.ref, 'ok', {})
        return this.close()
      case 'access_token':
        return await this.#refresh(objectOf(frame.payload).access_token)
      case 'broadcast':
        return await this.#broadcast(frame)
      case 'presence':
        return await this.#presence(frame)
    }
  }

  /** There is no reply: what the new token may not do any more ends the channel. */
  async #refresh(token: unknown): Promise<void> {
    if (typeof token !== 'string' || token.startsWith('sb_') || token === this.#credentials.token) return
    const previous = this.#access
    try {
      this.#credentials = await identify(this.#services.tokens, token)
      this.#access = await this.#authorize()
    } catch (error) {
      if (!(error instanceof Refused)) throw error
      return this.shutDown(error.message)
    }
    if (previous && this.#access?.lostSince(previous)) {
      return this.shutDown(`You no longer have permission to read from this Channel topic: ${this.subTopic}`)
    }
    this.#scheduleExpiry()
    if (this.#config.changes.length === 0) return
    try {
      this.reportSubscription((await this.#subscribe()).failure)
    } catch {
      // Neither the old claims may go on nor the channel without its changes: the client comes back and joins anew.
      this.#socket.close(1011, 'the database cannot be reached')
    }
  }

  #subscribe() {
    return this.#services.changes.subscribe(this, this.#config.changes, this.#credentials)
  }

  #scheduleExpiry() {
    clearTimeout(this.#expiry)
    if (this.#closed) return
    const untilExpiry = this.#credentials.claims.exp * 1_000 - Date.now()
    this.#expiry = setTimeout(() => this.#confirmToken(), Math.min(CONFIRM_TOKEN_MS, Math.max(untilExpiry, 0)))
  }

  #confirmToken() {
    try {
      checkExpiry(this.#credentials.claims)
      this.#scheduleExpiry()
    } catch (error) {
      this.shutDown((error as Error).message)
    }
  }

  async #broadcast(frame: Inbound): Promise<void> {
    if (this.#access && !(await this.#writes('broadcast'))) return // hosted says nothing, not even to `ack`
    const size = frame.broadcast ? frame.broadcast.bytes.length : jsonBytes(frame.payload ?? null).length
    if (size > MAX_PAYLOAD_BYTES) {
      if (this.#config.ack) this.#reply(frame.ref, 'error', { reason: 'payload_size_exceeded' })
      return
    }
    const from = this.#config.self ? undefined : this
    if (frame.broadcast) this.#services.rooms.broadcast(this.subTopic, this.isPrivate, frame.broadcast, from)
    else if (isObject(frame.payload)) this.#services.rooms.relay(this.subTopic, this.isPrivate, frame.payload, from)
    if (this.#config.ack) this.#reply(frame.ref, 'ok', {})
  }

  /** A failing policy denies; it is asked again next time, since a failure is not remembered. */
  async #writes(extension: 'broadcast' | 'presence'): Promise<boolean> {
    try {
      return await this.#access!.writes(extension)
    } catch (error) {
      console.error(`realtime: policy on ${this.subTopic}: ${error instanceof Error ? error.message : error}`)
      return false
    }
  }

  async #presence({ ref, payload }: Inbound): Promise<void> {
    const { event, payload: state = {} } = objectOf(payload)
    if (typeof event !== 'string') return this.#reply(ref, 'ok', {})
    if (!this.#withinPresenceLimit()) return this.shutDown('Client presence rate limit exceeded')
    const action = event.toLowerCase()
    if (action === 'untrack') this.#room?.presence.untrack(this)
    else if (action !== 'track') return this.#reply(ref, 'error', {})
    else if (this.#access && !(await this.#mayTrack())) return this.#reply(ref, 'error', {})
    else if (!isObject(state)) return this.#reply(ref, 'error', { reason: 'Presence track payload must be a map' })
    else if (jsonBytes(state).length > MAX_PAYLOAD_BYTES) return this.shutDown('Track message size exceeded')
    else if (!this.#services.limits.presence()) return this.shutDown('Too many presence messages per second')
    else {
      this.#presenceEnabled = true
      if (!this.#closed) this.#room?.presence.track(this, this.#config.presence.key, state)
    }
    this.#reply(ref, 'ok', {})
  }

  async #mayTrack(): Promise<boolean> {
    await this.#access!.askPresence().catch(() => {}) // reading stays closed then; writing decides
    return await this.#writes('presence')
  }

  #pushPresenceState() {
    if (!this.#services.limits.presence()) return this.shutDown('Too many presence messages per second')
    this.#push('presence_state', this.#room!.presence.state())
  }

  /** A message of the room. Presence diffs before the reply are left out: the state that follows contains them. */
  deliver(message: Fanout, { presence = false, id }: { presence?: boolean; id?: string } = {}) {
    if (!this.#held) this.#socket.send(message.for(this.#socket.version))
    else if (!presence) this.#held.push({ message, id })
  }

  /** Tells the client that its bindings are active, or why they are not. */
  reportSubscription(failure: string | null) {
    if (this.#held || this.#closed) return
    this.#system('postgres_changes', failure ? 'error' : 'ok', failure ?? 'Subscribed to PostgreSQL')
  }

  #system(extension: string, status: 'ok' | 'error', message: string) {
    if (!this.#closed) this.#push('system', { extension, status, message, channel: this.subTopic })
  }

  #push(event: string, payload: Payload) {
    this.#out({ joinRef: this.joinRef, event, payload })
  }

  #reply(ref: string | null, status: 'ok' | 'error', response: Payload) {
    this.#out({ joinRef: this.joinRef, ref, event: 'phx_reply', payload: { status, response } })
  }

  #out(message: { joinRef: string | null; ref?: string | null; event: string; payload: Payload }) {
    this.#socket.send(encode({ ...message, topic: `realtime:${this.subTopic}` }, this.#socket.version))
  }

  /** Ends the channel for good: supabase-js does not join again after a `phx_close`. */
  shutDown(message: string) {
    if (this.#closed) return
    this.#system('system', 'error', message)
    this.close()
  }

  close() {
    if (this.#closed) return
    this.#out({ joinRef: this.joinRef, ref: this.joinRef, event: 'phx_close', payload: {} })
    this.leave()
  }

  /** Releases everything without a word to the client: the join failed, or the socket is gone. */
  leave() {
    this.#closed = true
    clearTimeout(this.#expiry)
    this.#services.changes.unsubscribe(this)
    if (this.#room) this.#services.rooms.leave(this.#room, this)
    this.#socket.forget(this)
  }
}
