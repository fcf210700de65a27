/**
 * Frames of the Realtime protocol (Phoenix channels) in both serializer versions: objects in 1.0.0, arrays plus binary
 * broadcasts in 2.0.0.
 *
 * Two frames wedge supabase-js for good and can therefore not be built here: one whose payload is null, and a binary one
 * of any other kind than 4.
 */

export type Version = 1 | 2
export type Data = string | Uint8Array<ArrayBuffer>
export type Payload = Record<string, unknown>

/** A broadcast as its sender named it. `bytes` is JSON text unless `raw`. */
export interface Broadcast {
  event: string
  raw: boolean
  bytes: Uint8Array
  /** What only the server adds: the row's id, or that it is a replay. */
  meta?: Payload
}

export interface Inbound {
  joinRef: string | null
  ref: string | null
  topic: string
  event: string
  payload: unknown
  /** Set when the frame was binary (kind 3); `payload` is then empty. */
  broadcast?: Broadcast
}

export interface Outbound {
  joinRef?: string | null
  ref?: string | null
  topic: string
  event: string
  payload: Payload
}

const KIND_PUSH = 3
const KIND_BROADCAST = 4
const PUSH_HEADER = 7
const encoder = new TextEncoder()
const decoder = new TextDecoder()

/** Reads one frame; null when it is malformed, which costs the sender this frame and nothing else. */
export function decode(data: unknown, version: Version): Inbound | null {
  if (typeof data !== 'string') {
    return version === 2 && data instanceof ArrayBuffer ? decodePush(new Uint8Array(data)) : null
  }
  let frame: unknown
  try {
    frame = JSON.parse(data)
  } catch {
    return null
  }
  if (typeof frame !== 'object' || frame === null) return null
  const fields = version === 2 ? frame : fieldsOf(frame as Payload)
  if (!Array.isArray(fields) || fields.length !== 5) return null
  const [joinRef, ref, topic, event, payload] = fields
  if (typeof topic !== 'string' || typeof event !== 'string') return null
  return { joinRef: refOf(joinRef), ref: refOf(ref), topic, event, payload }
}

function fieldsOf(frame: Payload): unknown[] {
  return [frame.join_ref, frame.ref, frame.topic, frame.event, frame.payload]
}

function refOf(value: unknown): string | null {
  return typeof value === 'string' ? value : typeof value === 'number' ? String(value) : null
}

function decodePush(frame: Uint8Array): Inbound | null {
  if (frame.length < PUSH_HEADER || frame[0] !== KIND_PUSH) return null
  const lengths = frame.subarray(1, 6)
  const encoding = frame[6]
  let at = PUSH_HEADER
  const parts: string[] = []
  for (const length of lengths) {
    if (at + length > frame.length) return null
    parts.push(decoder.decode(frame.subarray(at, at + length)))
    at += length
  }
  const [joinRef, ref, topic, event] = parts as [string, string, string, string]
  const bytes = frame.subarray(at)
  if (topic === '' || encoding === undefined || encoding > 1) return null
  // Receivers parse the text without a guard: what is no JSON would break every client of the room.
  if (encoding === 1 && !isJson(bytes)) return null
  return {
    joinRef: joinRef || null,
    ref: ref || null,
    topic,
    event: 'broadcast',
    payload: {},
    broadcast: { event, raw: encoding === 0, bytes },
  }
}

function isJson(bytes: Uint8Array): boolean {
  try {
    JSON.parse(decoder.decode(bytes))
    return true
  } catch {
    return false
  }
}

export function encode(message: Outbound, version: Version): string {
  return encodeText(message, JSON.stringify(message.payload), version)
}

/** The same with a payload that is JSON text already (an object), so that a fan-out serializes it once. */
export function encodeText(message: Omit<Outbound, 'payload'>, payload: string, version: Version): string {
  const [joinRef, ref] = [JSON.stringify(message.joinRef ?? null), JSON.stringify(message.ref ?? null)]
  const [topic, event] = [JSON.stringify(message.topic), JSON.stringify(message.event)]
  return version === 2
    ? `[${joinRef},${ref},${topic},${event},${payload}]`
    : `{"topic":${topic},"event":${event},"payload":${payload},"ref":${ref},"join_ref":${joinRef}}`
}

/** A broadcast for one room: kind 4 where the client can read it, text elsewhere; null when it cannot be expressed. */
export function encodeBroadcast(topic: string, message: Broadcast, version: Version): Data | null {
  const meta = message.meta ? JSON.stringify(message.meta) : ''
  if (version === 2) {
    const head = [topic, message.event, meta].map((part) => encoder.encode(part))
    if (head.every((part) => part.length <= 255)) {
      const lengths = head.map((part) => part.length)
      const frame = new Uint8Array(5 + lengths.reduce((sum, length) => sum + length, message.bytes.length))
      frame.set([KIND_BROADCAST, ...lengths, message.raw ? 0 : 1])
      let at = 5
      for (const part of [...head, message.bytes]) {
        frame.set(part, at)
        at += part.length
      }
      return frame
    }
    // Sizes are single bytes. A longer topic or event still fits a text frame.
  }
  if (message.raw) return null
  const body = `{"type":"broadcast","event":${JSON.stringify(message.event)},"payload":${decoder.decode(message.bytes)}${meta && `,"meta":${meta}`}}`
  return encodeText({ topic, event: 'broadcast' }, body, version)
}

/** One message for many sockets: each version is encoded at most once. */
export class Fanout {
  #encoded = new Map<Version, Data | null>()
  #build: (version: Version) => Data | null

  constructor(build: (version: Version) => Data | null) {
    this.#build = build
  }

  for(version: Version): Data | null {
    const known = this.#encoded.get(version)
    const data = known === undefined ? this.#build(version) : known
    this.#encoded.set(version, data)
    return data
  }
}

export const jsonBytes = (value: unknown): Uint8Array => encoder.encode(JSON.stringify(value))
export const textBytes = (text: string): Uint8Array => encoder.encode(text)
