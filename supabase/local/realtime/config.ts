import type { Payload } from './codec.ts'

/** What a client asks for when it joins. */
export interface JoinConfig {
  isPrivate: boolean
  ack: boolean
  self: boolean
  presence: { enabled: boolean; key: string }
  /** Each is echoed to the client key for key. */
  changes: Payload[]
  /** A subscription that fails refuses the join, instead of following it with a system message. */
  changesRequired: boolean
  replay: { since: unknown; limit: unknown } | null
  replicationReady: boolean
}

/** Never refuses: a part that cannot be read takes its default, as on hosted. */
export function readJoinConfig(payload: unknown): JoinConfig {
  const config = objectOf(objectOf(payload).config)
  const broadcast = objectOf(config.broadcast)
  const presence = objectOf(config.presence)
  return {
    isPrivate: isTrue(config.private),
    ack: isTrue(broadcast.ack),
    self: isTrue(broadcast.self),
    presence: {
      enabled: isTrue(presence.enabled),
      key: typeof presence.key === 'string' && presence.key !== '' ? presence.key : crypto.randomUUID(),
    },
    changes: Array.isArray(config.postgres_changes) ? config.postgres_changes.filter(isObject) : [],
    changesRequired: isTrue(objectOf(config.postgres_changes_options).wait),
    replay: isObject(broadcast.replay) ? { since: broadcast.replay.since, limit: broadcast.replay.limit } : null,
    replicationReady: isTrue(broadcast.replication_ready),
  }
}

/** The token that a join brings, in hosted's order; null means the socket's own. */
export function joinToken(payload: unknown): string | null {
  const { user_token, access_token } = objectOf(payload)
  const preferred = access_token ?? user_token
  if (typeof preferred === 'string' && preferred.startsWith('sb_')) return null
  if (typeof user_token === 'string') return user_token
  return typeof access_token === 'string' ? access_token : null
}

export const isObject = (value: unknown): value is Payload =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
export const objectOf = (value: unknown): Payload => (isObject(value) ? value : {})
const isTrue = (value: unknown) => value === true || value === 'true'
