import type { Engine } from './engine.ts'
import { exitCode, Failure } from './failure.ts'
import { connect, type Sql } from './sql.ts'
import type { Stack } from './stack.ts'

/** Session lock that a stack holds on its database for as long as it runs, so that two never serve one database. */
const lockKey = 54_321_001

/** Holds the lock, and brings the database back when it dies. */
export class DatabaseKeeper {
  private session: Sql | null = null
  private stopping = false
  private fail: (error: Error) => void = () => {}
  /** Rejects when the database is lost for good. */
  readonly lost = new Promise<never>((_, reject) => {
    this.fail = reject
  })

  constructor(
    private readonly stack: Pick<Stack, 'database'>,
    private readonly engine: Engine,
    private readonly say: (text: string) => void,
  ) {
    // Nobody may be waiting yet when it happens.
    this.lost.catch(() => {})
  }

  async start(): Promise<void> {
    await this.engine.start()
    await this.hold().catch((error) => {
      if (error.code !== '28P01') throw error
      throw new Failure(
        'The password in keys.json is not the one of this database.',
        exitCode.data,
        'Put the right keys.json back, or run `npm run reset` to make the data anew.',
      )
    })
  }

  private async hold(): Promise<void> {
    let closed = () => {}
    const session = connect(this.stack, 'supabase_admin', { onclose: () => closed(), lasting: true })
    this.session = session
    const [row] = await session`select pg_try_advisory_lock(${lockKey}) as held`
    if (!row?.held) {
      await session.end()
      throw new Failure('Another stack is working on this database.', exitCode.inUse, 'Stop it first.')
    }
    closed = () => {
      if (!this.stopping) this.revive()
    }
  }

  /** Postgres restarts its own sessions after a backend was killed; when the server itself is gone, we start it. */
  private async revive(): Promise<void> {
    this.say('the database went away, bringing it back')
    await this.session?.end({ timeout: 0 }).catch(() => {})
    let reason: unknown
    let refusals = 0
    for (const deadline = Date.now() + 30_000; Date.now() < deadline && refusals < 5 && !this.stopping; ) {
      try {
        await this.hold()
        return this.say('the database is back')
      } catch (error) {
        reason = error
        await this.session?.end({ timeout: 0 }).catch(() => {})
      }
      if ((reason as { code?: string }).code === 'ECONNREFUSED') {
        await this.engine.start().catch((error) => {
          reason = error
          refusals++
        })
      }
      await new Promise((resolve) => setTimeout(resolve, 100 * (1 + refusals)))
    }
    if (!this.stopping) this.fail(reason as Error)
  }

  async stop(): Promise<void> {
    this.stopping = true
    await this.session?.end({ timeout: 2 }).catch(() => {})
    await this.engine.stop()
  }
}
