import { readStack, type Stack } from './stack.ts'

export interface Running {
  /** Finishes what is under way and releases everything. */
  stop(): Promise<void>
}

/**
 * Runs one child of the supervisor: reads the stack file named by the first argument, starts, prints `@ready`, and stops
 * on SIGTERM, SIGINT or when its standard input closes, which is how it learns that the supervisor was killed.
 */
export async function runChild(start: (stack: Stack) => Promise<Running>): Promise<void> {
  const running = await start(readStack(Deno.args[0]!))
  let stopping = false
  const stop = async () => {
    if (stopping) return
    stopping = true
    await running.stop()
    Deno.exit(0)
  }
  for (const signal of ['SIGTERM', 'SIGINT'] as const) Deno.addSignalListener(signal, stop)
  console.log('@ready')
  for await (const _ of Deno.stdin.readable) {
    /* the supervisor never writes; only the end matters */
  }
  await stop()
}
