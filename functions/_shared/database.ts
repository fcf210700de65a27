import postgres from 'postgres'
import { fromDatabase } from './problem.ts'

/**
 * The functions of schema `service` and the types of their arguments. The pool runs these and nothing else: it reads no
 * table, so that every rule stays in SQL.
 */
const functions = {
  claim_generation: ['uuid'],
  append_chunks: ['jsonb'],
  follow_generations: ['jsonb'],
  finish_generation: ['uuid', 'integer', 'uuid', 'jsonb'],
  claim_jobs: ['uuid', 'integer', 'integer'],
  extend_jobs: ['uuid', 'jsonb'],
  finish_job: ['uuid', 'uuid', 'jsonb'],
  finish_and_claim: ['uuid', 'uuid', 'jsonb', 'uuid'],
  release_jobs: ['uuid'],
  deliver_events: ['integer'],
  begin_account_deletion: ['uuid'],
  erase_plan: ['uuid'],
  purge_conversations_of: ['uuid'],
  missing_functions: ['text[]'],
  list_providers: [],
  report_call: ['jsonb'],
  moderation: [],
  begin_completion: ['uuid', 'jsonb'],
  finish_completion: ['uuid', 'jsonb'],
  begin_summary: ['uuid', 'uuid'],
  keep_summary: ['uuid', 'uuid', 'uuid', 'text', 'text'],
  authenticate_api_key: ['bytea', 'text'],
  raise_hold: ['uuid', 'bigint', 'bigint'],
  import_character: ['uuid', 'jsonb', 'text'],
  export_character: ['uuid', 'uuid'],
  character_files_left: ['uuid'],
  read_catalogue: ['uuid', 'bigint'],
  take_rate: ['text', 'uuid', 'text'],
  add_rate_hits: ['jsonb'],
  character_models: ['uuid', 'uuid'],
  talk_to_character: ['uuid', 'jsonb'],
  cancel_answer: ['uuid', 'uuid'],
} as const satisfies Record<string, readonly string[]>

export type ServiceFunction = keyof typeof functions
export const serviceFunctions = Object.keys(functions) as ServiceFunction[]

export interface ServiceDatabase {
  /** Runs one `service` function as `service_role` in a transaction of its own and returns its result. */
  call<T>(name: ServiceFunction, ...args: unknown[]): Promise<T>
}

/**
 * A small pool. It fits a transaction pooler (hosted: Supavisor), where consecutive transactions meet different
 * connections: nothing is prepared, and the role is set anew, locally, in each transaction. A call is one message of
 * the simple protocol, whose statements are one transaction: one round trip, where begin, parse, bind and commit are four.
 */
export function serviceDatabase(url: string, { connections = 4 } = {}): ServiceDatabase {
  const sql = postgres(url, {
    max: connections,
    prepare: false,
    fetch_types: false,
    idle_timeout: 30,
    connect_timeout: 5,
    onnotice: () => {},
    connection: { application_name: 'parlor-functions' },
  })

  return {
    async call<T>(name: ServiceFunction, ...args: unknown[]): Promise<T> {
      const types = functions[name]
      const given = types.map((type, index) =>
        literal(type === 'jsonb' ? JSON.stringify(args[index]) : args[index], type),
      )
      try {
        const results = await sql.unsafe(
          `set local role service_role; set local statement_timeout = '15s'; select to_jsonb(service.${name}(${given.join(', ')})) as result`,
        )
        // postgres.js gives one result for some statements and none for others; ours is the last.
        return (results as unknown as [{ result: T }][]).at(-1)![0].result
      } catch (error) {
        throw fromDatabase(error as { code?: string })
      }
    },
  }
}

/** An SQL literal, whatever standard_conforming_strings says. NUL cannot be in one: Postgres would cut the message there. */
function literal(value: unknown, type: string): string {
  if (value === null || value === undefined) return `null::${type}`
  const text = String(value).replaceAll('\u0000', '').replaceAll('\\', '\\\\').replaceAll("'", "''")
  return `E'${text}'::${type}`
}
