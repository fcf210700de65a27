import type { Project } from '../config.ts'
import type { Stack } from '../stack.ts'
import { exactOperands, normaliseJson, type Preferences, Refusal, readBody, type Target, tooDeep } from './body.ts'
import { databaseErrorResponse, databaseUnavailable, isConnectionError, isDatabaseError, restError } from './errors.ts'
import { listen } from './listen.ts'
import { createLite } from './lite.ts'
import { PoolTimeout } from './pool.ts'
import { type Caller, Rollback, type Session, type Sessions } from './session.ts'
import type { Claims } from './tokens.ts'

export interface Rest {
  /** Answers a request below /rest/v1 for the caller whose claims these are. */
  fetch(request: Request, url: URL, claims: Claims): Promise<Response>
  stop(): Promise<void>
}

interface Options {
  stack: Stack
  project: Project
  sessions: Sessions
}

/** One request on its way through lite, which hands the object back as the token's claims. */
interface Pending extends Caller {
  role: string
  target: Target
  singular: boolean
  /** A plan was older than the table; nothing was done. */
  isOutdated: boolean
}

/** Headers that mean something to lite; keys, tokens and cookies stay outside. */
const PASSED_HEADERS = ['accept', 'accept-profile', 'content-profile', 'content-type', 'range', 'range-unit']
const METHODS = new Set(['GET', 'HEAD', 'POST', 'PATCH', 'PUT', 'DELETE', 'OPTIONS'])
const SINGULAR = 'application/vnd.pgrst.object'

/** The Data API: PostgREST's behaviour on one Postgres, translated by lite, with hosted's order of checks. */
export async function startRest({ stack, project, sessions }: Options): Promise<Rest> {
  const { schemas, extra_search_path: extraSearchPath, max_rows: maxRows } = project.api
  const defaultSchema = schemas[0] ?? 'public'
  const lite = createLite({
    stack,
    schemas,
    maxRows,
    transaction: (caller, answer) => transact(caller as Pending, answer),
  })

  /** Runs one answer in the caller's transaction and keeps nothing of a request that is refused. */
  async function transact(pending: Pending, answer: (session: Session) => Promise<Response>): Promise<Response> {
    try {
      return await sessions.run(pending, async (session) => {
        const response = await answer(session)
        const settled = pending.singular ? await single(response) : response
        return (await refuses(settled, pending.target)) ? new Rollback(settled) : settled
      })
    } catch (error) {
      if (error instanceof Refusal) return error.response
      if (error instanceof PoolTimeout) {
        return restError(504, 'PGRST003', 'Timed out acquiring connection from connection pool.')
      }
      if (isConnectionError(error)) return databaseUnavailable()
      // PGRST is the code with which a function dictates a whole answer; lite knows how to build it.
      if (!isDatabaseError(error) || error.code === 'PGRST') throw error
      if (error.message === 'cached plan must not change result type') {
        sessions.forget()
        pending.isOutdated = true
      }
      return databaseErrorResponse(error, pending.role, pending.target.isRpc ? undefined : pending.target.name)
    }
  }

  async function answer(request: Request, url: URL, claims: Claims): Promise<Response> {
    const reads = request.method === 'GET' || request.method === 'HEAD'
    const path = url.pathname.slice('/rest/v1'.length)
    const [, first = '', second = '', ...more] = path.split('/').map(decodeURIComponent)
    // Beside its root, lite takes many an address that ends in a slash for the description of the API.
    const isPath =
      /^\/?$/.test(path) || (first === 'rpc' ? second !== '' && !more.length : first && !/^\/[^/]+\//.test(path))
    if (!isPath) return restError(404, 'PGRST125', 'Invalid path specified in request URL')
    // URLSearchParams would read broken UTF-8 as other characters instead of refusing it.
    if (/%[89a-f]/i.test(url.search)) decodeURIComponent(url.search.replaceAll(/%(?![\da-f]{2})/gi, '%25'))
    const headers = new Headers({ prefer: preferWithoutTx(request) })
    for (const name of PASSED_HEADERS) {
      const value = request.headers.get(name)
      if (value !== null) headers.set(name, value)
    }
    const profile = reads ? 'accept-profile' : 'content-profile'
    if (!headers.has(profile) && defaultSchema !== 'public') headers.set(profile, defaultSchema)
    const isRpc = first === 'rpc' && second !== ''
    const target = { schema: headers.get(profile) ?? defaultSchema, name: isRpc ? second : first, isRpc }
    if (first === '' && claims.role !== 'service_role') {
      return Response.json({ message: 'You cannot consume this service' }, { status: 403 })
    }
    if (!METHODS.has(request.method)) return restError(405, 'PGRST117', `Unsupported HTTP method: ${request.method}`)
    if (/^(PATCH|DELETE)$/.test(request.method)) refuseLimit(url)
    refuseNesting(url)

    const inner = new URL(url)
    inner.search = exactOperands(readableRanges(url.search))
    const schema = await lite.schema()
    const body = reads ? undefined : await writableBody(request, url, target, headers)
    const timezone = /(?:^|,)\s*timezone=([^,\s]+)/.exec(headers.get('prefer') ?? '')?.[1]
    const pending: Pending = {
      role: claims.role,
      claims,
      target,
      singular: (headers.get('accept') ?? '').includes(SINGULAR) && !reads && !isRpc,
      isOutdated: false,
      readOnly: reads,
      settings: {
        search_path: [target.schema, ...extraSearchPath].map(quoteIdentifier).join(', '),
        'request.method': request.method,
        'request.path': path,
        'request.headers': JSON.stringify(headersWithoutCookies(request)),
        'request.cookies': JSON.stringify(cookies(request)),
        ...(timezone && schema.timezones?.includes(timezone) ? { timezone } : {}),
      },
    }
    const ask = () => lite.fetch(new Request(inner, { method: request.method, headers, body }), pending)
    let response = await ask()
    if (pending.isOutdated) response = await ask()
    if (response.status === 500 && (await response.clone().text()).includes(OVERFLOW)) throw tooDeep()
    // It repeats the address; beside a long filter, clients would refuse headers of that size.
    if ((response.headers.get('content-location') ?? '').length > 2_000) response.headers.delete('content-location')
    return response
  }

  async function writableBody(request: Request, url: URL, target: Target, headers: Headers): Promise<string> {
    const text = await readBody(request)
    const type = (headers.get('content-type') ?? '').split(';')[0]!.trim().toLowerCase()
    if (type !== '' && type !== 'application/json') return text
    const preferences: Preferences = {
      columns: columnNames(url.searchParams.get('columns')),
      missing: /(?:^|,)\s*missing=default/.test(headers.get('prefer') ?? '') ? 'default' : 'null',
    }
    return normaliseJson(text, target, preferences, await lite.schema())
  }

  const reload = async (what: string) => {
    if (what !== 'reload config') await lite.reloadSchema()
    if (what !== 'reload schema') await sessions.reloadSettings()
    sessions.forget()
  }
  // As PostgREST: `notify pgrst` without a text reloads both.
  const stopListening = listen(stack, 'pgrst', reload)
  await lite.schema()

  return {
    async fetch(request, url, claims) {
      try {
        return await answer(request, url, claims)
      } catch (error) {
        if (error instanceof Refusal) return error.response
        if (error instanceof URIError) return restError(400, 'PGRST125', 'Invalid path specified in request URL')
        console.error('rest', request.method, url.pathname, error)
        return restError(503, 'PGRST002', 'Could not query the database for the schema cache. Retrying.')
      }
    },
    async stop() {
      await stopListening()
      await lite.stop()
    },
  }
}

/** lite answers some single-object requests with an array; PostgREST refuses any number of rows but one. */
async function single(response: Response): Promise<Response> {
  if (!response.ok || response.status === 204 || !response.body) return response
  const body: unknown = await response
    .clone()
    .json()
    .catch(() => null)
  if (!Array.isArray(body)) return response
  if (body.length !== 1) {
    const message = 'Cannot coerce the result to a single JSON object'
    return restError(406, 'PGRST116', message, `The result contains ${body.length} rows`)
  }
  // Cut out of the text, so that numbers keep the digits that parsing would take from them.
  const text = (await response.text()).trim()
  const headers = new Headers(response.headers)
  headers.set('content-type', `${SINGULAR}+json; charset=utf-8`)
  headers.delete('content-length')
  return new Response(text.slice(1, -1), { status: response.status, headers })
}

/** Whether the answer means that nothing may be kept. A function may keep its work and still set an error status. */
async function refuses(response: Response, { isRpc }: Target): Promise<boolean> {
  if (response.status < 400) return false
  if (!isRpc) return true
  const body: unknown = await response
    .clone()
    .json()
    .catch(() => null)
  return String((body as { code?: unknown } | null)?.code).startsWith('PGRST')
}

/** lite would ignore the limit and change every row that matches. */
function refuseLimit(url: URL) {
  for (const name of ['limit', 'offset']) {
    if (url.searchParams.has(name)) {
      const message = `"${name}" is not supported on updates and deletes`
      throw new Refusal(restError(400, 'PGRST100', message, null, 'Select the rows by their keys.'))
    }
  }
}

/** Levels of parentheses in `select`, `and` and `or`: lite reads them by recursion, and in quadratic time. */
const MAX_NESTING = 100

function refuseNesting(url: URL) {
  for (const [name, value] of url.searchParams) {
    if (!/^select$|(^|\.)(and|or)$/.test(name)) continue
    let depth = 0
    for (const character of value) {
      if (character === '(') depth += 1
      else if (character === ')') depth -= 1
      if (depth > MAX_NESTING) {
        throw new Refusal(restError(400, 'PGRST100', `"${name}" is nested more than ${MAX_NESTING} levels deep`))
      }
    }
  }
}

/** What lite says when its recursion over the JSON of a form or of CSV ends; JSON itself is measured before that. */
const OVERFLOW = 'Maximum call stack size exceeded'

const MAX_BIGINT = 2n ** 63n - 1n
const FAR = 999_999_999_999_999

/**
 * lite passes over limits and offsets beyond 2^53, and would give rows that nobody asked for. No table has as many rows,
 * so a smaller offset says the same; a limit is cut to `max_rows` anyway.
 */
function readableRanges(search: string): string {
  return search.replace(/([?&](?:[^=&]*\.)?(limit|offset)=)(-?\d{16,})(?=&|$)/g, (whole, start, name, digits) => {
    const number = BigInt(digits)
    if (name === 'limit') return number < 0 ? `${start}-1` : whole
    if (number > MAX_BIGINT) {
      throw new Refusal(restError(400, '22003', `value "${digits}" is out of range for type bigint`))
    }
    return number > 0 ? `${start}${FAR}` : whole
  })
}

/** Hosted ignores `tx`; lite would honour it and store nothing. */
const preferWithoutTx = (request: Request) =>
  (request.headers.get('prefer') ?? '')
    .split(',')
    .filter((preference) => !/^\s*tx\s*=/.test(preference))
    .join(',')

function headersWithoutCookies(request: Request): Record<string, string> {
  const headers = Object.fromEntries(request.headers)
  delete headers.cookie
  return headers
}

function cookies(request: Request): Record<string, string> {
  const pairs = (request.headers.get('cookie') ?? '').split(';').filter((pair) => pair.includes('='))
  return Object.fromEntries(pairs.map((pair) => pair.trim().split(/=(.*)/s).slice(0, 2)))
}

const columnNames = (parameter: string | null): string[] =>
  parameter?.match(/"[^"]*"|[^,\s]+/g)?.map((name) => name.replace(/^"(.*)"$/, '$1')) ?? []

const quoteIdentifier = (name: string) => `"${name.replaceAll('"', '""')}"`
