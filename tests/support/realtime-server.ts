/**
 * Realtime alone, on a port of its own, beside a running stack: `deno run -A tests/support/realtime-server.ts <stack.json>
 * [--limits]`. Prints its origin. Specs use it for what they cannot do to the stack that all of them share: hosted's limits,
 * a restart, a kill.
 */
import { createTokens } from '../../supabase/local/gateway/tokens.ts'
import { startRealtime } from '../../supabase/local/realtime/server.ts'
import { readStack } from '../../supabase/local/stack.ts'

const stack = { ...readStack(Deno.args[0]!), realtimeLimits: Deno.args.includes('--limits') }
const realtime = await startRealtime({ stack, tokens: await createTokens(stack) })
const port = Number(Deno.env.get('PORT') ?? 0)
Deno.serve(
  { port, hostname: '127.0.0.1', onListen: ({ port }) => console.log(`http://127.0.0.1:${port}`) },
  (request) => realtime.fetch(request),
)
Deno.addSignalListener('SIGTERM', async () => {
  await realtime.stop()
  Deno.exit(0)
})
