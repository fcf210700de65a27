/** What Edge Functions find around them on hosted Supabase, made in this process before the first of them is imported. */

type UnloadReason = 'wall_clock' | 'termination'

const background = new Set<Promise<unknown>>()

/** Makes `names` the whole environment: a function must not come to need what only this machine has. */
export function replaceEnvironment(variables: Record<string, string>): void {
  for (const name of Object.keys(Deno.env.toObject())) {
    if (!Object.hasOwn(variables, name)) Deno.env.delete(name)
  }
  for (const [name, value] of Object.entries(variables)) Deno.env.set(name, value)
}

/** Offers `EdgeRuntime.waitUntil`, and keeps the process alive whatever a function forgets to catch. */
export function installRuntime(): void {
  Object.assign(globalThis, {
    EdgeRuntime: {
      waitUntil<T>(promise: Promise<T>): Promise<T> {
        const settled = Promise.resolve(promise)
          .catch((error) => console.error('background task failed:', error))
          .finally(() => background.delete(settled))
        background.add(settled)
        return promise
      },
    },
  })
  // Hosted ends one worker, here the others would go with it.
  globalThis.addEventListener('unhandledrejection', (event) => {
    event.preventDefault()
    console.error('unhandled rejection in a function:', event.reason)
  })
  globalThis.addEventListener('error', (event) => {
    event.preventDefault()
    console.error('uncaught error in a function:', event.error)
  })
}

/** Tells the functions that the end is near: their last word, as hosted gives it. */
export function announceUnload(reason: UnloadReason): void {
  globalThis.dispatchEvent(new CustomEvent('beforeunload', { detail: { reason } }))
}

/** Resolves when no background task is left; tasks may add others. */
export async function drainBackground(): Promise<void> {
  while (background.size > 0) await Promise.all(background)
}
