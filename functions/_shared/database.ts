import postgres from 'postgres'
import { fromDatabase, Problem } from './problem.ts'

/**
 * The functions of schema `service` and the types of their arguments. The pool runs these and nothing else: it reads no
 * table, so that every rule stays in SQL.
 */
const functions = {
  claim_generation: ['uuid'],
  append_chunks: ['jsonb'],
  finish_generation: ['uuid', 'integer', 'uuid', 'jsonb'],
  claim_jobs: ['uuid', 'integer'],
  extend_jobs: ['uuid', 'jsonb'],
  finish_job: ['uuid', 'uuid', 'jsonb'],
  release_jobs: ['uuid'],
  begin_account_deletion: ['uuid'],
  erase_plan: ['uuid'],
  missing_functions: ['text[]'],
  list_providers: [],
} as const satisfies Record<string, readonly string[]>

export type ServiceFunction = keyof typeof functions
export const serviceFunctions = Object.keys(functions) as ServiceFunction[]

export interface ServiceDatabase {
  /** Runs one `service` function as `service_role` in a transaction of its own and returns its result. */
  call<T>(name: ServiceFunction, ...args: unknown[]): Promise<T>
}

/**
 * A small pool. It fits a transaction pooler (hosted: Supavisor), where consecutive transactions meet different
 * connections: nothing is prepared, and the role is set anew, locally, in each transaction.
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
      const values = types.map((type, index) => (type === 'jsonb' ? JSON.stringify(args[index]) : args[index]))
      // Text first, so that the driver needs no round trip to learn the parameters' types.
      const parameters = types.map((type, index) => `$${index + 1}::text::${type}`).join(', ')
      try {
        const [, rows] = await sql.begin((transaction) => [
          transaction.unsafe("set local role service_role; set local statement_timeout = '15s'"),
          transaction.unsafe(
            `select to_jsonb(service.${name}(${parameters})) as result`,
            values.map((value) => (value === null || value === undefined ? null : String(value))),
          ),
        ])
        return (rows as unknown as [{ result: T }])[0].result
      } catch (error) {
        throw error instanceof Problem ? error : fromDatabase(error as { code?: string })
      }
    },
  }
}
