/** Present in Supabase's edge runtime and in the local function host, absent in plain Deno. */
declare const EdgeRuntime: { waitUntil(work: Promise<unknown>): unknown } | undefined

/** Keeps the isolate alive until `work` ends. `work` handles its own errors; one that escapes must not end the isolate. */
export function inBackground(work: Promise<unknown>): void {
  const guarded = work.catch(() => {})
  if (typeof EdgeRuntime !== 'undefined') EdgeRuntime.waitUntil(guarded)
}

type LastWord = (reason: string) => Promise<unknown> | undefined

const lastWords = new Set<LastWord>()

/**
 * `run` is called when the isolate is about to end (`beforeunload`: wall clock, memory, deployment, or a stop of the
 * local host), with the moments that remain for handing work back. Returns the function that takes it out again.
 */
export function onUnload(run: LastWord): () => void {
  lastWords.add(run)
  return () => lastWords.delete(run)
}

globalThis.addEventListener('beforeunload', (event) => {
  const reason = String((event as CustomEvent<{ reason?: string }>).detail?.reason ?? 'unload')
  for (const run of lastWords) {
    const work = run(reason)
    if (work) inBackground(work)
  }
})
