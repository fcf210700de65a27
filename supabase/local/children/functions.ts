import { runChild } from '../child.ts'
import { functionEnvironment } from '../env.ts'
import { startHost } from '../functions/host.ts'
import { installRuntime, replaceEnvironment } from '../functions/runtime.ts'
import { findFunctions, watchedPaths } from '../functions/sources.ts'
import { watchSources } from '../functions/watch.ts'

/** The supervisor starts a child that ends so at once. */
const restart = 75

/** How long what is under way may take to finish: at the end of the stack, and when code has changed. */
const stopMs = 3000
const restartMs = 3000

/**
 * The Edge Functions of the project, imported as they are deployed. With the argument `worker` only the function of that
 * name, otherwise all but it: the worker can then be killed alone. `--response-seconds=N` shortens hosted's 150 s.
 */
await runChild((stack) => {
  const onlyWorker = Deno.args[1] === 'worker'
  const seconds = Deno.args.map((arg) => /^--response-seconds=(\d+)$/.exec(arg)?.[1]).find(Boolean)
  const environment = functionEnvironment(stack)
  const all = findFunctions(stack.project, environment)
  const functions = all.filter(({ slug }) => (slug === 'worker') === onlyWorker)

  replaceEnvironment(environment)
  installRuntime()
  const host = startHost({
    stack,
    functions,
    port: onlyWorker ? stack.ports.worker : stack.ports.functions,
    jwks: environment.SUPABASE_JWKS!,
    responseSeconds: seconds ? Number(seconds) : undefined,
  })

  const unwatch = watchSources({
    ...watchedPaths(stack.project, all),
    ignored: stack.data,
    async changed(path) {
      unwatch()
      console.log(`${path} changed: starting the functions again`)
      await host.stop(restartMs)
      Deno.exit(restart)
    },
  })
  return Promise.resolve({
    async stop() {
      unwatch()
      await host.stop(stopMs)
    },
  })
})
