import { createHash } from 'node:crypto'
import { scripts } from './redis-scripts.ts'

export type Reply = string | number | null | Reply[]

/** An error as Redis answers it: its first word is what clients look at. */
export class RedisError extends Error {}

type Hash = Map<string, string>

interface Entry {
  value: string | Hash
  /** Unix milliseconds; null: it stays. */
  expiresAt: number | null
}

const wrongType = () => new RedisError('WRONGTYPE Operation against a key holding the wrong kind of value')
const notInteger = () => new RedisError('ERR value is not an integer or out of range')
const syntax = () => new RedisError('ERR syntax error')

/** One database: strings, hashes, expiry, and the scripts of `@upstash/ratelimit`. A command is atomic, since it never waits. */
export class RedisDatabase {
  #entries = new Map<string, Entry>()
  #loaded = new Set<string>()

  /** Throws RedisError. */
  run(command: string[]): Reply {
    return this.check(command)(this, command.slice(1))
  }

  /** What runs a command; throws, as Redis does before it begins, for one that is not known or lacks arguments. */
  check([name = '', ...args]: string[]): Command['run'] {
    const known = commands[name.toLowerCase()]
    if (!known) throw new RedisError(`ERR unknown command '${name}'`)
    if (args.length < known.least || args.length > (known.most ?? known.least)) {
      throw new RedisError(`ERR wrong number of arguments for '${name.toLowerCase()}' command`)
    }
    return known.run
  }

  find(key: string): Entry | undefined {
    const entry = this.#entries.get(key)
    if (entry?.expiresAt == null || entry.expiresAt > Date.now()) return entry
    this.#entries.delete(key)
    return undefined
  }

  text(key: string): string | null {
    const value = this.find(key)?.value
    if (value instanceof Map) throw wrongType()
    return value ?? null
  }

  hash(key: string): Hash | null {
    const value = this.find(key)?.value
    if (typeof value === 'string') throw wrongType()
    return value ?? null
  }

  /** Keeps the moment at which the key expires, unless another is given. */
  put(key: string, value: string | Hash, expiresAt = this.find(key)?.expiresAt ?? null): void {
    this.#entries.set(key, { value, expiresAt })
  }

  expire(key: string, at: number | null): number {
    const entry = this.find(key)
    if (!entry) return 0
    entry.expiresAt = at
    return 1
  }

  delete(key: string): boolean {
    return this.find(key) !== undefined && this.#entries.delete(key)
  }

  keys(pattern = '*'): string[] {
    const matches = glob(pattern)
    return [...this.#entries.keys()].filter((key) => this.find(key) && matches.test(key))
  }

  clear(): string {
    this.#entries.clear()
    return 'OK'
  }

  /** Of a text: keeps it for EVALSHA. What no script of ours has the hash of cannot be run. */
  load(text: string): string {
    const sha = createHash('sha1').update(text).digest('hex')
    if (!scripts[sha]) {
      throw new RedisError(`ERR the sandbox has no Lua: it runs the scripts of @upstash/ratelimit, and ${sha} is none`)
    }
    this.#loaded.add(sha)
    return sha
  }

  hasLoaded(sha: string): boolean {
    return this.#loaded.has(sha.toLowerCase())
  }

  unload(): string {
    this.#loaded.clear()
    return 'OK'
  }

  evaluate(sha: string, [count, ...rest]: string[]): Reply {
    if (!this.hasLoaded(sha)) throw new RedisError('NOSCRIPT No matching script. Please use EVAL.')
    const keys = integer(count)
    if (keys < 0) throw new RedisError("ERR Number of keys can't be negative")
    if (keys > rest.length) throw new RedisError("ERR Number of keys can't be greater than number of args")
    const call = (...command: (string | number)[]) => this.run(command.map(String))
    const reply = scripts[sha.toLowerCase()]!(call, rest.slice(0, keys), rest.slice(keys))
    return whole(reply)
  }
}

/** Lua's numbers leave a script without their fraction. */
const whole = (reply: Reply): Reply =>
  typeof reply === 'number' ? Math.trunc(reply) : Array.isArray(reply) ? reply.map(whole) : reply

function integer(text: string | undefined): number {
  const value = Number(text)
  if (!text || !/^-?\d+$/.test(text) || !Number.isSafeInteger(value)) throw notInteger()
  return value
}

function increase(db: RedisDatabase, key: string, by: number): number {
  const value = integer(db.text(key) ?? '0') + by
  if (!Number.isSafeInteger(value)) throw new RedisError('ERR increment or decrement would overflow')
  db.put(key, String(value))
  return value
}

/** `*`, `?`, `[a-z]`, `[^a]` and `\` as Redis reads them. */
function glob(pattern: string): RegExp {
  const source = pattern.replace(/\\(.)|\[(\^?)([^\]]*)\]|[\s\S]/g, (part, escaped, not, set) => {
    if (escaped) return RegExp.escape(escaped)
    if (set !== undefined) return `[${not}${set.replace(/[\\\]^]/g, '\\$&')}]`
    return part === '*' ? '[\\s\\S]*' : part === '?' ? '[\\s\\S]' : RegExp.escape(part)
  })
  return new RegExp(`^${source}$`)
}

function set(db: RedisDatabase, [key, value, ...options]: string[]): Reply {
  const before = db.find(key!)
  let expiresAt: number | null = null
  let isMeant = true
  for (let at = 0; at < options.length; at++) {
    const option = options[at]!.toUpperCase()
    if (option === 'NX') isMeant &&= !before
    else if (option === 'XX') isMeant &&= before !== undefined
    else if (option === 'KEEPTTL') expiresAt = before?.expiresAt ?? null
    else if (option === 'EX' || option === 'PX') {
      const time = integer(options[++at])
      if (time <= 0) throw new RedisError("ERR invalid expire time in 'set' command")
      expiresAt = Date.now() + time * (option === 'EX' ? 1000 : 1)
    } else throw syntax()
  }
  if (!isMeant) return null
  db.put(key!, value!, expiresAt)
  return 'OK'
}

function hset(db: RedisDatabase, [key, ...pairs]: string[]): number {
  if (pairs.length % 2) throw new RedisError("ERR wrong number of arguments for 'hset' command")
  const fields: Hash = new Map(db.hash(key!) ?? [])
  const before = fields.size
  for (let at = 0; at < pairs.length; at += 2) fields.set(pairs[at]!, pairs[at + 1]!)
  db.put(key!, fields)
  return fields.size - before
}

function hdel(db: RedisDatabase, [key, ...names]: string[]): number {
  const fields = db.hash(key!)
  const gone = names.filter((name) => fields?.delete(name)).length
  if (fields?.size === 0) db.delete(key!)
  return gone
}

function expire(db: RedisDatabase, key: string, milliseconds: number): number {
  if (milliseconds > 0) return db.expire(key, Date.now() + milliseconds)
  return db.delete(key) ? 1 : 0
}

/** Milliseconds that a key has left; -1: it stays, -2: there is none. */
function left(db: RedisDatabase, key: string): number {
  const entry = db.find(key)
  return entry ? (entry.expiresAt === null ? -1 : entry.expiresAt - Date.now()) : -2
}

/** All at once: a scan of one step. */
function scan(db: RedisDatabase, [, ...options]: string[]): Reply {
  let keys = db.keys()
  for (let at = 0; at < options.length; at += 2) {
    const [option, value] = [options[at]!.toUpperCase(), options[at + 1]]
    if (value === undefined) throw syntax()
    if (option === 'MATCH') keys = keys.filter((key) => glob(value).test(key))
    else if (option === 'COUNT') integer(value)
    else throw syntax()
  }
  return ['0', keys]
}

function script(db: RedisDatabase, [verb, ...args]: string[]): Reply {
  switch (verb!.toUpperCase()) {
    case 'LOAD':
      return db.load(args[0] ?? '')
    case 'EXISTS':
      return args.map((sha) => Number(db.hasLoaded(sha)))
    case 'FLUSH':
      return db.unload()
    default:
      throw new RedisError(`ERR unknown subcommand '${verb}'`)
  }
}

interface Command {
  /** Arguments: at least, and at most (`least` unless said). */
  least: number
  most?: number
  run(db: RedisDatabase, args: string[]): Reply
}

const many = Number.POSITIVE_INFINITY

const commands: Record<string, Command> = {
  ping: { least: 0, most: 1, run: (_, [text]) => text ?? 'PONG' },
  echo: { least: 1, run: (_, [text]) => text! },
  get: { least: 1, run: (db, [key]) => db.text(key!) },
  mget: {
    least: 1,
    most: many,
    run: (db, keys) => keys.map((key) => (db.find(key)?.value instanceof Map ? null : db.text(key))),
  },
  set: { least: 2, most: many, run: set },
  incr: { least: 1, run: (db, [key]) => increase(db, key!, 1) },
  decr: { least: 1, run: (db, [key]) => increase(db, key!, -1) },
  incrby: { least: 2, run: (db, [key, by]) => increase(db, key!, integer(by)) },
  decrby: { least: 2, run: (db, [key, by]) => increase(db, key!, -integer(by)) },
  del: { least: 1, most: many, run: (db, keys) => keys.filter((key) => db.delete(key)).length },
  exists: { least: 1, most: many, run: (db, keys) => keys.filter((key) => db.find(key)).length },
  type: {
    least: 1,
    run: (db, [key]) => {
      const entry = db.find(key!)
      return entry ? (typeof entry.value === 'string' ? 'string' : 'hash') : 'none'
    },
  },
  expire: { least: 2, run: (db, [key, seconds]) => expire(db, key!, integer(seconds) * 1000) },
  pexpire: { least: 2, run: (db, [key, milliseconds]) => expire(db, key!, integer(milliseconds)) },
  persist: { least: 1, run: (db, [key]) => (left(db, key!) < 0 ? 0 : db.expire(key!, null)) },
  ttl: { least: 1, run: (db, [key]) => Math.max(-2, Math.round(left(db, key!) / (left(db, key!) < 0 ? 1 : 1000))) },
  pttl: { least: 1, run: (db, [key]) => left(db, key!) },
  hset: { least: 3, most: many, run: hset },
  hget: { least: 2, run: (db, [key, name]) => db.hash(key!)?.get(name!) ?? null },
  hmget: {
    least: 2,
    most: many,
    run: (db, [key, ...names]) => {
      const fields = db.hash(key!)
      return names.map((name) => fields?.get(name) ?? null)
    },
  },
  hgetall: { least: 1, run: (db, [key]) => [...(db.hash(key!) ?? [])].flat() },
  hdel: { least: 2, most: many, run: hdel },
  keys: { least: 1, run: (db, [pattern]) => db.keys(pattern) },
  scan: { least: 1, most: many, run: scan },
  dbsize: { least: 0, run: (db) => db.keys().length },
  flushdb: { least: 0, most: 1, run: (db) => db.clear() },
  flushall: { least: 0, most: 1, run: (db) => db.clear() },
  eval: { least: 2, most: many, run: (db, [text, ...rest]) => db.evaluate(db.load(text!), rest) },
  evalsha: { least: 2, most: many, run: (db, [sha, ...rest]) => db.evaluate(sha!, rest) },
  script: { least: 1, most: many, run: script },
}
