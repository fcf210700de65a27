import { pathToFileURL } from 'node:url'
import { stripVTControlCharacters } from 'node:util'

export type Handler = (request: Request, info: Deno.ServeHandlerInfo) => Response | Promise<Response>

type OnError = (error: unknown) => Response | Promise<Response>

/** A function that was imported, or the reason why it could not be. */
export type Loaded = { handler: Handler } | { reason: string }

export interface Source {
  slug: string
  /** Absolute path. */
  entrypoint: string
}

/** A module that waits for ever at its top level must not keep the functions after it from starting. */
const importMs = 20_000

/**
 * Imports the functions one after the other and gives a promise for each at once. A function says what to serve by
 * `export default { fetch }`, or by calling `Deno.serve` while it is imported: hence one at a time.
 */
export function loadFunctions(sources: Source[], project: string): Map<string, Promise<Loaded>> {
  let previous: Promise<unknown> = Promise.resolve()
  return new Map(
    sources.map((source) => {
      const loaded = previous.then(() => loadFunction(source, project))
      previous = loaded
      return [source.slug, loaded]
    }),
  )
}

async function loadFunction({ slug, entrypoint }: Source, project: string): Promise<Loaded> {
  let served: Handler | undefined
  const serve = Deno.serve
  let timer: ReturnType<typeof setTimeout> | undefined
  try {
    Deno.serve = ((...args: unknown[]) => {
      const options = (args.find((arg) => typeof arg === 'object') ?? {}) as { handler?: Handler; onError?: OnError }
      const handler = (args.find((arg) => typeof arg === 'function') ?? options.handler) as Handler
      const { onError } = options
      served = onError ? (request, info) => attempt(handler, onError, request, info) : handler
      return {
        finished: new Promise<void>(() => {}),
        addr: null,
        ref() {},
        unref() {},
        shutdown: async () => {},
        [Symbol.asyncDispose]: async () => {},
      }
    }) as unknown as typeof Deno.serve
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`the module is not ready after ${importMs / 1000} s`)), importMs)
    })
    const module = await Promise.race([import(pathToFileURL(entrypoint).href), late])
    const exported = module.default
    if (typeof exported?.fetch === 'function') return { handler: (request, info) => exported.fetch(request, info) }
    if (served) return { handler: served }
    return { reason: `${relative(entrypoint, project)} neither exports \`default { fetch }\` nor calls Deno.serve.` }
  } catch (error) {
    const reason = describe(error, project)
    console.error(`function ${slug} failed to start: ${reason}`)
    return { reason }
  } finally {
    clearTimeout(timer)
    Deno.serve = serve
  }
}

async function attempt(handler: Handler, onError: OnError, request: Request, info: Deno.ServeHandlerInfo) {
  try {
    return await handler(request, info)
  } catch (error) {
    return await onError(error)
  }
}

/** The message, with the place in the project's own files; colours and absolute paths removed. */
function describe(error: unknown, project: string): string {
  const base = pathToFileURL(`${project}/`).href
  const clean = (text: string) => stripVTControlCharacters(text).replaceAll(base, '')
  if (!(error instanceof Error)) return clean(String(error))
  const message = clean(error.message)
  const place = clean(error.stack?.split('\n').find((line) => line.includes(base)) ?? '').match(
    /([^\s(]+:\d+:\d+)/,
  )?.[1]
  return place && !message.includes(place) ? `${message} at ${place}` : message
}

function relative(path: string, project: string): string {
  return path.startsWith(`${project}/`) ? path.slice(project.length + 1) : path
}
