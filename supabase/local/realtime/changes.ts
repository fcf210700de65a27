import type { Sql } from 'postgres'
import type { Claims } from '../gateway/tokens.ts'
import type { Channel } from './channel.ts'
import { encodeText, Fanout, type Payload } from './codec.ts'
import type { Credentials } from './credentials.ts'
import type { Feed } from './feed.ts'
import { type Action, BadSubscription, describe, readSubscription, type Subscription } from './filters.ts'
import type { Limits } from './limits.ts'
import { errorMessage, type Message, messagesFor } from './messages.ts'
import type { Transaction } from './pgoutput.ts'
import { type Cells, describeTable, evaluate, isVisible, Rejected, resolveTables, type Table } from './tables.ts'
import type { Change } from './wal.ts'

export interface Binding extends Subscription {
  id: number
  channel: Channel
  claims: Claims
  /** Oids of the tables it was resolved to. */
  tables: Set<number>
}

/** Changes that may wait for the database before the stream is held back. */
const MAX_QUEUED = 2_000
const MAX_ID = 2 ** 27

/** `postgres_changes`: who subscribed to what, and the delivery of committed changes under each subscriber's RLS. */
export class Changes {
  #sql: Sql
  #limits: Limits
  #feed!: Feed
  #bindings = new Map<Channel, Binding[]>()
  #ids = new WeakMap<Channel, number[]>()
  #lastId = 0
  #work: Promise<void> = Promise.resolve()
  #queued = 0
  #described: { transaction: Transaction; tables: Map<number, Table | null> } | null = null

  constructor(sql: Sql, limits: Limits) {
    this.#sql = sql
    this.#limits = limits
  }

  useFeed(feed: Feed): void {
    this.#feed = feed
  }

  /**
   * Replaces what the channel is subscribed to. The requests come back with ids even when the subscription fails; one bad
   * request spoils the channel's others, and `failure` is what its client is to be told.
   */
  async subscribe(channel: Channel, requests: Payload[], { claims }: Credentials) {
    const ids = this.#ids.get(channel) ?? requests.map(() => this.#nextId())
    this.#ids.set(channel, ids)
    const bindings = requests.map((request, index) => ({ ...request, id: ids[index]! }))
    let failure: string | null = null
    if (requests.length > 0) {
      try {
        await this.#feed.streamingTables()
        const resolved: Binding[] = []
        for (const [index, request] of requests.entries()) {
          resolved.push(await this.#resolve(channel, request, ids[index]!, claims))
        }
        if (channel.isJoined) this.#bindings.set(channel, resolved) // it may have left while we asked
      } catch (error) {
        this.#bindings.delete(channel)
        if (!(error instanceof BadSubscription) && !(error instanceof Rejected)) throw error
        failure = error.message
      }
    }
    return { bindings, failure }
  }

  /** Clients accept neither 0 nor a string. */
  #nextId(): number {
    this.#lastId = (this.#lastId % MAX_ID) + 1
    return this.#lastId
  }

  async #resolve(channel: Channel, request: Payload, id: number, claims: Claims): Promise<Binding> {
    const subscription = readSubscription(request)
    const tables = new Set(await resolveTables(this.#sql, subscription, claims.role))
    if (tables.size === 0) {
      throw new Rejected(
        `Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the given connect parameters: [${describe(subscription)}]`,
      )
    }
    return { ...subscription, id, channel, claims, tables }
  }

  unsubscribe(channel: Channel): void {
    this.#bindings.delete(channel)
  }

  /** The stream was down: what was committed meanwhile is lost, and clients may want to read again. */
  resumed(): void {
    for (const channel of this.#bindings.keys()) channel.reportSubscription(null)
  }

  /** Takes a committed change; they are delivered one after the other. Waits only when too many wait already. */
  add(change: Change): Promise<void> | void {
    const bindings = this.#interested(change)
    if (bindings.length === 0) return
    this.#queued++
    this.#work = this.#work
      .then(() => this.#deliver(change, bindings))
      .catch((error) => console.error(`realtime: change of ${change.relation.name}: ${error?.message ?? error}`))
      .finally(() => this.#queued--)
    if (this.#queued > MAX_QUEUED) return this.#work
  }

  #interested(change: Change): Binding[] {
    const action = actionOf(change)
    return [...this.#bindings.values()]
      .flat()
      .filter((binding) => (binding.event === '*' || binding.event === action) && covers(binding, change))
  }

  async #deliver(change: Change, bindings: Binding[]): Promise<void> {
    const table = await this.#describe(change)
    if (!table) return
    const action = actionOf(change)
    // While the change waited, channels may have left or changed their token.
    const current = bindings.flatMap(({ channel, id }) => this.#bindings.get(channel)?.find((b) => b.id === id) ?? [])
    const [after, before] = sidesOf(change)
    const keys = table.columns.filter((column) => column.isKey)
    const messages: Message[] = []
    for (const [role, group] of Map.groupBy(current, (binding) => binding.claims.role)) {
      if (action !== 'DELETE' && keys.length === 0) {
        messages.push(...errorMessage(change, group, 'Error 400: Bad Request, no primary key'))
      } else if (action !== 'DELETE' && keys.some((key) => !key.readers.includes(role))) {
        messages.push(...errorMessage(change, group, 'Error 401: Unauthorized'))
      } else {
        const { json, seen } = await this.#see(table, change, group, after, before)
        messages.push(...messagesFor({ change, table, role, bindings: seen, after: json[0], before: json[1] }))
      }
    }
    for (const { channel, payload } of messages) this.#send(channel, payload)
  }

  /** Which bindings of one role pass their filters and RLS, and the change as JSON. */
  async #see(table: Table, change: Change, group: Binding[], after: Cells | null, before: Cells | null) {
    const sides = [after ?? new Map(), before ?? new Map()] as [Cells, Cells]
    // New values are tested; of a deleted row there are only the old ones.
    const tested = after ?? sides[1]
    const questions = group.flatMap((binding) => binding.filters.map((filter) => ({ filter, cells: tested })))
    const { json, answers } = await evaluate(this.#sql, table.columns, sides, questions)
    const remaining = [...answers]
    const passing = group.filter(({ filters }) => remaining.splice(0, filters.length).every(Boolean))
    if (!table.hasRls || change.kind === 'delete') return { json, seen: passing }
    const asked = [...Map.groupBy(passing, ({ claims }) => claims)].map(async ([claims, same]) => {
      const sees = await isVisible(this.#sql, table, sides[0], claims).catch((error) => {
        console.error(`realtime: policy on ${table.name}: ${error?.message ?? error}`)
        return false
      })
      return sees ? same : []
    })
    const seen = (await Promise.all(asked)).flat()
    return { json, seen }
  }

  /** Once per transaction and table. */
  async #describe({ transaction, relation }: Change): Promise<Table | null> {
    if (this.#described?.transaction !== transaction) this.#described = { transaction, tables: new Map() }
    const { tables } = this.#described
    if (!tables.has(relation.oid)) tables.set(relation.oid, await describeTable(this.#sql, relation.oid))
    return tables.get(relation.oid)!
  }

  #send(channel: Channel, payload: string): void {
    const topic = `realtime:${channel.subTopic}`
    const withinLimit = this.#limits.event(1)
    channel.deliver(new Fanout((version) => encodeText({ topic, event: 'postgres_changes' }, payload, version)))
    if (!withinLimit) channel.shutDown('Too many messages per second')
  }
}

export function actionOf({ kind }: Change): Action {
  return kind.toUpperCase() as Action
}

/** A table published after a wildcard subscription belongs to it too; hosted notices within a minute. */
function covers(binding: Binding, { relation }: Change): boolean {
  if (binding.tables.has(relation.oid)) return true
  const { schema, table, filters } = binding
  const isNew = table === '*' && (schema === '*' || schema === relation.schema) && filters.length === 0
  if (isNew) binding.tables.add(relation.oid)
  return isNew
}

/** New values, and the old ones of the replica identity (of an update that did not touch them, the new ones). */
function sidesOf({ relation, after, before }: Change): [Cells | null, Cells | null] {
  const cells = (tuple: Change['after'], keep: (key: boolean) => boolean): Cells | null => {
    if (!tuple) return null
    const entries = relation.columns.flatMap(({ name, key }, index) => {
      const text = tuple[index]
      return text === undefined || !keep(key) ? [] : [[name, text] as const]
    })
    return new Map(entries)
  }
  const isInsert = after !== null && before === null
  const old = cells(before ?? after, (key) => key)
  const now = cells(after, () => true)
  // An unchanged value that is stored out of line is not sent again; a full identity has it in the old row.
  if (now && old && before) for (const [name, text] of old) if (!now.has(name)) now.set(name, text)
  return [now, isInsert && !old ? null : old]
}
