import type { Channel } from './channel.ts'
import { type Broadcast, encode, encodeBroadcast, Fanout, type Payload } from './codec.ts'
import type { Limits } from './limits.ts'
import { Presence } from './presence.ts'

/** Everyone on one sub-topic. The private and the public room of a name are two rooms that never meet. */
export class Room {
  readonly channels = new Set<Channel>()
  readonly presence: Presence
  /** Name on the wire. */
  readonly topic: string

  constructor(
    subTopic: string,
    readonly isPrivate: boolean,
  ) {
    this.topic = `realtime:${subTopic}`
    this.presence = new Presence((diff) => {
      const message = new Fanout((version) =>
        encode({ topic: this.topic, event: 'presence_diff', payload: diff }, version),
      )
      for (const channel of this.channels) if (channel.receivesPresence) channel.deliver(message, { presence: true })
    })
  }
}

export class Rooms {
  #rooms = new Map<string, Room>()
  #limits: Limits

  constructor(limits: Limits) {
    this.#limits = limits
  }

  enter(subTopic: string, channel: Channel): Room {
    const key = keyOf(subTopic, channel.isPrivate)
    const room = this.#rooms.get(key) ?? new Room(subTopic, channel.isPrivate)
    this.#rooms.set(key, room)
    room.channels.add(channel)
    return room
  }

  leave(room: Room, channel: Channel): void {
    room.channels.delete(channel)
    room.presence.untrack(channel)
    if (room.channels.size === 0) this.#rooms.delete(keyOf(room.topic.slice('realtime:'.length), room.isPrivate))
  }

  /** A broadcast to the room of that name, if anybody is in it. `from` is left out: a sender who did not ask for its own. */
  broadcast(subTopic: string, isPrivate: boolean, message: Broadcast, from?: Channel): void {
    this.#send(
      subTopic,
      isPrivate,
      (topic) => new Fanout((version) => encodeBroadcast(topic, message, version)),
      message.meta,
      from,
    )
  }

  /** A payload of the sender's making, relayed verbatim as a text frame. */
  relay(subTopic: string, isPrivate: boolean, payload: Payload, from?: Channel): void {
    this.#send(
      subTopic,
      isPrivate,
      (topic) => new Fanout((version) => encode({ topic, event: 'broadcast', payload }, version)),
      undefined,
      from,
    )
  }

  #send(subTopic: string, isPrivate: boolean, build: (topic: string) => Fanout, meta?: Payload, from?: Channel) {
    const room = this.#rooms.get(keyOf(subTopic, isPrivate))
    const receivers = [...(room?.channels ?? [])].filter((channel) => channel !== from && channel.receivesBroadcasts)
    const withinLimit = this.#limits.event(1 + receivers.length)
    if (!room) return
    const message = build(room.topic)
    for (const channel of receivers) {
      channel.deliver(message, { id: meta?.id as string | undefined })
      if (!withinLimit) channel.shutDown('Too many messages per second')
    }
  }
}

const keyOf = (subTopic: string, isPrivate: boolean) => `${isPrivate ? 'private' : 'public'}:${subTopic}`
