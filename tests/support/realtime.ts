import { randomUUID } from 'node:crypto'
import { createClient, type RealtimeChannel, type SupabaseClient } from '@supabase/supabase-js'
import { type CryptoKey, importJWK, SignJWT } from 'jose'
import WebSocket from 'ws'
import { publishableKey, stack, superuser, until, url } from './local.ts'

interface Claims {
  sub?: string
  role?: string
  /** Seconds from now. */
  expiresIn?: number
}

/** A user's token as Auth signs it, for somebody who need not exist. */
export async function tokenOf({ sub = randomUUID(), role = 'authenticated', expiresIn = 3600 }: Claims = {}) {
  const { signingKey } = stack.keys
  const exp = Math.floor(Date.now() / 1000) + expiresIn
  return await new SignJWT({ sub, role, exp })
    .setProtectedHeader({ alg: 'ES256', kid: signingKey.kid, typ: 'JWT' })
    .sign((await importJWK({ ...signingKey, alg: 'ES256' }, 'ES256')) as CryptoKey)
}

export type Options = { token?: string | (() => Promise<string | null>); key?: string; url?: string; vsn?: string }

/** A topic of the kinds that `roomPolicies` speaks of; `open` is for public channels. */
export const topic = (kind: 'open' | 'room' | 'hall' | 'box' | 'vault') => `spec:${kind}:${randomUUID()}`
export const PRIVATE = { config: { private: true } }

/**
 * Policies for one file's private channels: users may read and write a `room`, only read a `hall`, only write a `box`;
 * nobody may do anything in a `vault`.
 */
export function roomPolicies(file: string) {
  const drop = `drop policy if exists "${file} reads" on realtime.messages; drop policy if exists "${file} writes" on realtime.messages;`
  return {
    create: () =>
      superuser().unsafe(`${drop}
        create policy "${file} reads" on realtime.messages for select to authenticated
          using (realtime.topic() like any (array['spec:room:%', 'spec:hall:%']));
        create policy "${file} writes" on realtime.messages for insert to authenticated
          with check (realtime.topic() like any (array['spec:room:%', 'spec:box:%']));`),
    drop: () => superuser().unsafe(drop),
  }
}

const clients: SupabaseClient[] = []

/** The unmodified client, whose channels act for `token` from their first join on. */
export async function realtimeClient({ token, key = publishableKey, url: base = url, vsn }: Options = {}) {
  const accessToken = typeof token === 'function' ? token : token ? async () => token : undefined
  const client = createClient(base, key, {
    auth: { persistSession: false, autoRefreshToken: false },
    realtime: { transport: WebSocket as never, ...(vsn && { vsn }) } as never,
    ...(accessToken && { accessToken }),
  })
  clients.push(client)
  await client.realtime.setAuth()
  return client
}

/** For `afterEach`: leaves no socket behind. */
export async function disconnectAll(): Promise<void> {
  await Promise.all(clients.splice(0).map((client) => client.realtime.disconnect()))
}

/** Somebody signed in, as far as tokens tell. */
export const realtimeUser = async (sub?: string) => await realtimeClient({ token: await tokenOf({ sub }) })

/** Joins; rejects with the server's reason. */
export function join(channel: RealtimeChannel): Promise<RealtimeChannel> {
  return new Promise((resolve, reject) => {
    channel.subscribe((status, error) => {
      if (status === 'SUBSCRIBED') resolve(channel)
      else if (status !== 'CLOSED') reject(error ?? new Error(status))
    })
  })
}

/** Collects what a channel receives of one event of `kind`. */
export function received(channel: RealtimeChannel, kind: 'broadcast' | 'system' | 'presence', event = '*') {
  // biome-ignore lint/suspicious/noExplicitAny: specs look into whatever arrives
  const messages: any[] = []
  channel.on(kind as never, kind === 'system' ? {} : ({ event } as never), (message: unknown) => messages.push(message))
  return messages
}

// biome-ignore lint/suspicious/noExplicitAny: as above
export type Frame = [joinRef: string | null, ref: string | null, topic: string, event: string, payload: any]

/** A bare WebSocket of protocol 2.0.0, for what the client never sends. */
export async function bareSocket({ key = publishableKey, url: base = url }: Options = {}) {
  const socket = new WebSocket(`${base.replace('http', 'ws')}/realtime/v1/websocket?apikey=${key}&vsn=2.0.0`)
  const frames: Frame[] = []
  const closed = new Promise<number>((resolve) => socket.on('close', resolve))
  socket.on('message', (data, isBinary) => {
    if (!isBinary) frames.push(JSON.parse(String(data)))
  })
  await new Promise((resolve, reject) => socket.on('open', resolve).on('error', reject))
  return {
    socket,
    frames,
    /** Code of the close frame. */
    closed,
    send: (...frame: Frame) => socket.send(JSON.stringify(frame)),
    /** The first frame that answers `ref`. */
    reply: (ref: string) => until(() => frames.find((frame) => frame[3] === 'phx_reply' && frame[1] === ref)),
    event: (event: string) => until(() => frames.find((frame) => frame[3] === event)),
  }
}
