import type { Sql } from 'postgres'
import type { Tokens } from '../gateway/tokens.ts'
import type { Changes } from './changes.ts'
import type { Feed } from './feed.ts'
import type { Limits } from './limits.ts'
import type { Rooms } from './rooms.ts'
import type { Socket } from './socket.ts'

/** What all sockets and channels of one server share. */
export interface Services {
  /** Small pool of the superuser: policies are probed by becoming the caller inside a transaction. */
  sql: Sql
  tokens: Tokens
  limits: Limits
  rooms: Rooms
  changes: Changes
  feed: Feed
  sockets: Set<Socket>
}
