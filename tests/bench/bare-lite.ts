// `@supabase/lite` without our gateway, on the database of a running stack: `deno run -A tests/bench/bare-lite.ts STACK_JSON`.
// Only what it needs to serve at all: keys, the secret of its tokens, and roles switched per request.
import { App } from '@supabase/lite'
import { createPostgresConnection } from '@supabase/lite/postgres'
import { databaseUrl, readStack } from '../../supabase/local/stack.ts'

const stack = readStack(Deno.args[0]!)
const connection = createPostgresConnection({
  url: databaseUrl(stack, 'postgres'),
  postgresOptions: { max: 16, onnotice: () => {} },
})
Object.assign(connection, { rlsState: 'active' })
const app = new App({
  connection: connection as never,
  api: { enabled: true, schemas: ['public'], max_rows: 1000 },
  auth: {
    enabled: true,
    jwt_secret: stack.keys.jwtSecret,
    publishable_key: stack.keys.publishable,
    secret_key: stack.keys.secret,
  },
  studio: { enabled: false },
  db: { migrations: { enabled: false } },
} as never)

Deno.serve(
  { port: 0, hostname: '127.0.0.1', onListen: ({ port }) => console.log(`http://127.0.0.1:${port}`) },
  (request) => app.fetch(request) as Promise<Response>,
)
