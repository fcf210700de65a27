import { type Caller, type Extension, readable, writable } from './authorize.ts'
import { Refused } from './credentials.ts'
import type { Services } from './services.ts'

type Answers = Partial<Record<Extension, boolean>>

/**
 * What one channel's token may do in its private room, asked of the policies once and remembered until the token changes,
 * as on hosted: a policy edited meanwhile does not reach channels that are joined. Public rooms ask nobody.
 */
export class Access {
  #sql: Services['sql']
  #caller: Caller
  #read: Answers = {}
  #write: Answers = {}

  constructor(sql: Services['sql'], caller: Caller) {
    this.#sql = sql
    this.#caller = caller
  }

  /** Throws `Refused` unless the caller may read something; a policy that fails is a policy that denies. */
  async join(presenceEnabled: boolean): Promise<void> {
    await this.#ask(presenceEnabled ? ['broadcast', 'presence'] : ['broadcast'])
    if (!this.#read.broadcast && !this.#read.presence) throw unauthorized(this.#caller.topic)
  }

  /** Asks what a join without presence left open. */
  async askPresence(): Promise<void> {
    if (this.#read.presence === undefined) await this.#ask(['presence'])
  }

  reads(extension: Extension): boolean {
    return this.#read[extension] === true
  }

  /** True when `previous` could read something that this token cannot. */
  lostSince(previous: Access): boolean {
    return (['broadcast', 'presence'] as const).some((e) => previous.reads(e) && this.#read[e] === false)
  }

  async writes(extension: Extension): Promise<boolean> {
    const known = this.#write[extension] ?? (await writable(this.#sql, this.#caller, extension))
    this.#write[extension] = known
    return known
  }

  async #ask(extensions: Extension[]): Promise<void> {
    try {
      const allowed = await readable(this.#sql, this.#caller, extensions)
      for (const extension of extensions) this.#read[extension] = allowed.has(extension)
    } catch (error) {
      console.error(`realtime: authorization: ${error instanceof Error ? error.message : error}`)
      throw isFromPolicy(error) ? unauthorized(this.#caller.topic) : UNREACHABLE
    }
  }
}

function unauthorized(topic: string): Refused {
  return new Refused('Unauthorized', `You do not have permissions to read from this Channel topic: ${topic}`)
}

/** An error that Postgres raised while it evaluated the probe, not one of the connection or the server's shutdown. */
function isFromPolicy(error: unknown): boolean {
  const { name, code = '' } = error as { name?: string; code?: string }
  return name === 'PostgresError' && !/^(08|53|57P)/.test(code)
}

const UNREACHABLE = new Refused('UnableToConnectToProject', 'Realtime was unable to connect to the project database')
