import type { Project } from '../../config.ts'
import type { Stack } from '../../stack.ts'
import { apikeyOf, authenticate, bearerOf } from '../keys.ts'
import type { Rollback, Session, Sessions } from '../session.ts'
import type { Claims, Tokens } from '../tokens.ts'
import { type Buckets, createBuckets } from './buckets.ts'
import { badRequest, noRoute, tooLarge, toStorageError, unauthorized } from './errors.ts'
import { openFiles } from './files.ts'
import { checkKey } from './keys.ts'
import { createObjects, type Objects } from './objects.ts'
import { collectOrphans } from './orphans.ts'
import { createGrants } from './tokens.ts'

interface Options {
  stack: Stack
  project: Project
  sessions: Sessions
  tokens: Tokens
}

/** Runs statements for somebody, with the name of the operation that policies may ask for. */
export type Run = <T>(
  claims: Claims,
  operation: string,
  work: (session: Session) => Promise<T | Rollback<T>>,
) => Promise<T>

/** The platform itself, for what no policy should decide: which buckets there are, and keeping what was allowed. */
export const PLATFORM: Claims = { role: 'service_role', exp: 0 }

/**
 * Storage: files in the data folder, their rows in `storage.objects` under the caller's own policies. Each operation
 * first asks the database as the caller; bytes are kept only after that.
 */
export async function startStorage({ stack, project, sessions, tokens }: Options) {
  const folder = `${stack.data}/storage`
  const files = await openFiles(folder)
  const run: Run = (claims, operation, work) => {
    const settings = {
      search_path: 'storage, public, extensions',
      'storage.operation': `storage.${operation}`,
      'storage.allow_delete_query': 'true',
    }
    return sessions.run({ claims, readOnly: false, settings }, work)
  }
  await collectOrphans(folder, files, run).catch((error) => console.error('storage: orphans:', error.message))
  const buckets = createBuckets(run, files)
  const grants = createGrants(stack.keys.jwtSecret)
  const objects = createObjects({ run, buckets, files, grants, sizeLimit: project.storage.file_size_limit })

  async function answer(request: Request, url: URL): Promise<Response> {
    const segments = url.pathname.slice('/storage/v1/'.length).split('/').map(decodeURIComponent)
    const keyless = KEYLESS.test(`${request.method} ${segments.join('/')}`)
    // A public file needs no key, but a key that is present is checked all the same.
    const anonymous = keyless && !apikeyOf(request, url) && !request.headers.has('authorization')
    const caller = anonymous ? null : await callerOf(request, url, tokens)
    if (caller instanceof Response) return caller
    return await route({ request, url, segments, claims: caller ?? { role: 'anon', exp: 0 }, buckets, objects })
  }

  return {
    fetch: (request: Request, url: URL): Promise<Response> =>
      answer(request, url).catch((error) => toStorageError(error).toResponse()),
  }
}

const MAX_JSON_BYTES = 1024 * 1024

async function readJsonText(request: Request): Promise<string> {
  const decoder = new TextDecoder()
  let text = ''
  let size = 0
  for await (const chunk of request.body ?? []) {
    size += chunk.byteLength
    if (size > MAX_JSON_BYTES) throw tooLarge()
    text += decoder.decode(chunk, { stream: true })
  }
  return text + decoder.decode()
}

/** What browsers fetch by a bare address: public files, and signed URLs whose token is the key. */
const KEYLESS = /^((GET|HEAD) object\/(public|sign|info\/public)\/|PUT object\/upload\/sign\/)/

/** Storage takes a user's token without a key as well. */
async function callerOf(request: Request, url: URL, tokens: Tokens): Promise<Claims | Response> {
  const authorization = request.headers.get('authorization')
  const bearer = authorization && bearerOf(authorization)
  // Hosted takes whatever the header holds for a token, and one of another scheme is none.
  if (authorization && bearer === null) throw unauthorized('Invalid Compact JWS')
  if (!apikeyOf(request, url) && bearer) {
    return await tokens.verify(bearer).catch((error) => {
      throw unauthorized(error instanceof Error ? error.message : 'Invalid Compact JWS')
    })
  }
  const { claims, response } = await authenticate(request, url, tokens)
  if (response) {
    if (response.headers.has('www-authenticate')) throw unauthorized((await response.json()).message)
    return response
  }
  return claims
}

export interface Call {
  request: Request
  url: URL
  claims: Claims
}

async function route({
  request,
  url,
  segments,
  claims,
  buckets,
  objects,
}: Call & { segments: string[]; buckets: Buckets; objects: Objects }): Promise<Response> {
  const call: Call = { request, url, claims }
  const { method } = request
  const reads = method === 'GET' || method === 'HEAD'
  const [kind, first = '', second = ''] = segments
  const json = async (answer: Promise<unknown>) => Response.json(await answer)
  const body = async () => {
    const value: unknown = JSON.parse(await readJsonText(request))
    if (typeof value !== 'object' || value === null) throw badRequest('The body must be an object')
    return value as Record<string, unknown>
  }
  if (kind === 'bucket') {
    if (!first && method === 'GET') return json(buckets.list(claims))
    if (!first && method === 'POST') return json(buckets.create(claims, await body()))
    if (second === 'empty' && method === 'POST') return json(buckets.empty(claims, first))
    if (!second && method === 'GET') return json(buckets.get(claims, first))
    if (!second && method === 'PUT') return json(buckets.update(claims, first, await body()))
    if (!second && method === 'DELETE') return json(buckets.remove(claims, first))
  }
  if (kind === 'object') {
    /** Bucket and key that follow `skip` segments. */
    const at = (skip: number) => {
      const [bucket = '', ...rest] = segments.slice(skip)
      return { bucket, key: checkKey(rest.join('/')) }
    }
    const whole = segments.length > 2
    if (first === 'list' && method === 'POST') return json(objects.list(claims, second, await body()))
    if (first === 'move' && method === 'POST') return json(objects.move(claims, await body()))
    if (first === 'copy' && method === 'POST') return json(objects.copy(call, await body()))
    if (first === 'upload' && second === 'sign' && method === 'POST') return json(objects.signUpload(call, at(3)))
    if (first === 'upload' && second === 'sign' && method === 'PUT') return json(objects.uploadSigned(call, at(3)))
    if (first === 'sign' && method === 'POST') {
      const wanted = await body()
      return json(segments.length > 3 ? objects.sign(claims, at(2), wanted) : objects.signMany(claims, second, wanted))
    }
    if (first === 'sign' && reads) return await objects.downloadSigned(call, at(2))
    if (first === 'public' && reads) return await objects.downloadPublic(call, at(2))
    if (first === 'authenticated' && reads) return await objects.download(call, at(2))
    if (first === 'info' && second === 'public' && reads) return json(objects.infoPublic(at(3)))
    if (first === 'info' && reads) return json(objects.info(claims, at(second === 'authenticated' ? 3 : 2)))
    if (whole && reads) return await objects.download(call, at(1))
    if (whole && method === 'POST') return json(objects.upload(call, at(1), request.headers.get('x-upsert') === 'true'))
    if (whole && method === 'PUT') return json(objects.upload(call, at(1), true))
    if (whole && method === 'DELETE') return json(objects.removeOne(claims, at(1)))
    if (!whole && method === 'DELETE') return json(objects.remove(claims, first, await body()))
  }
  throw noRoute(`${method}:${url.pathname.slice('/storage/v1'.length)}`)
}
