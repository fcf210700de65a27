import { z } from 'zod'
import { accountRoutes } from './account.ts'
import { cardRoutes } from './cards.ts'
import { chatRoutes, generationEvents } from './chat.ts'
import type { Access, ResponseDescription, RouteDescription } from './common.ts'
import { completionRoutes } from './completions.ts'
import { healthRoutes } from './health.ts'
import { openAiRoutes } from './openai.ts'
import { problem } from './problem.ts'
import { workerRoutes } from './worker.ts'

/** Every route of every function. */
export const routes: RouteDescription[] = [
  ...chatRoutes,
  ...completionRoutes,
  ...cardRoutes,
  ...openAiRoutes,
  ...accountRoutes,
  ...healthRoutes,
  ...workerRoutes,
]

type Json = Record<string, unknown>

const security: Record<Access, Json[]> = {
  none: [],
  user: [{ user: [] }],
  key: [{ key: [] }, { user: [] }],
  worker: [{ worker: [] }],
}

const problemTitles: Record<number, string> = {
  400: 'The body cannot be read.',
  401: 'No credential, or a wrong one.',
  403: 'The caller may not do this.',
  404: 'There is no such thing, or the caller may not see it.',
  409: 'It does not fit the present state; `code` says why.',
  413: 'The body is too large.',
  415: 'The body is of a type that is not taken here.',
  422: 'Read, and not as expected; `errors` says where.',
  429: 'Too often, or more than the plan includes; `Retry-After` says when to come back.',
  500: 'Something went wrong on our side.',
  502: 'The model could not answer.',
  503: 'Something this needs cannot be reached; try again.',
}

/** The OpenAPI document of the functions, from the schemas that the functions themselves parse with. */
export function openApiDocument(version: string): Json {
  const schemas = new Map<string, Json>()
  const paths: Record<string, Json> = {}
  for (const route of routes) {
    paths[route.path] ??= {}
    paths[route.path]![route.method] = operation(route, schemas)
  }
  for (const [name, schema] of Object.entries(generationEvents)) {
    schemas.set(`Event.${name}`, toSchema(schema, schemas, 'output'))
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Parlor functions',
      version,
      description:
        'The Edge Functions. Tables, SQL functions, sign-in, files and live updates are reached with supabase-js. ' +
        'Every error is a problem document (RFC 9457): branch on `code`; under `/openai` errors have OpenAI’s form.',
      license: { name: 'MIT', identifier: 'MIT' },
    },
    servers: [
      {
        url: '{project}/functions/v1',
        variables: { project: { default: 'http://127.0.0.1:54321', description: 'URL of the Supabase project.' } },
      },
    ],
    paths,
    components: {
      securitySchemes: {
        key: { type: 'http', scheme: 'bearer', description: 'Personal API key, made by rpc create_api_key.' },
        user: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT', description: 'Access token of a signed-in user.' },
        worker: { type: 'http', scheme: 'bearer', description: 'WORKER_SECRET; known to database and worker only.' },
      },
      schemas: Object.fromEntries([...schemas].sort(([a], [b]) => (a < b ? -1 : 1))),
    },
  }
}

function operation(route: RouteDescription, schemas: Map<string, Json>): Json {
  const problems = new Set([...(route.problems ?? []), 500])
  if (route.access !== 'none') problems.add(401).add(503)
  if (route.access === 'user' || route.access === 'key') problems.add(429)
  // What is read and wrong is 400 to clients of OpenAI.
  const wrong = route.error ? 400 : 422
  if (route.body) for (const status of [400, 413, 415, wrong]) problems.add(status)
  if (route.params || route.headers) problems.add(wrong)
  for (const status of Object.keys(route.responses)) problems.delete(Number(status))

  const responses: Record<string, Json> = {}
  for (const [status, description] of Object.entries(route.responses)) {
    responses[status] = response(description, schemas)
  }
  for (const status of [...problems].sort()) {
    responses[status] = {
      description: problemTitles[status] ?? 'Refused.',
      content: route.error
        ? { 'application/json': { schema: toSchema(route.error, schemas, 'output') } }
        : { 'application/problem+json': { schema: toSchema(problem, schemas, 'output') } },
    }
  }
  return {
    operationId: operationId(route),
    summary: route.summary,
    ...(route.description && { description: route.description }),
    tags: [route.path.split('/')[1]],
    security: security[route.access],
    parameters: [
      ...parameters(route.params, 'path', schemas),
      ...parameters(route.headers, 'header', schemas),
      ...parameters(route.query, 'query', schemas),
    ],
    ...(route.body && {
      requestBody: {
        required: !route.bodyMayBeEmpty,
        content: requestContent(route, route.body, schemas),
      },
    }),
    responses,
  }
}

const binary = { type: 'string', format: 'binary' }

function requestContent(
  { bodyFiles = [], bodyForm }: RouteDescription,
  body: z.ZodType,
  schemas: Map<string, Json>,
): Json {
  const form = bodyForm && toSchema(bodyForm, schemas, 'input')
  return {
    'application/json': { schema: toSchema(body, schemas, 'input') },
    ...Object.fromEntries(bodyFiles.map((type) => [type, { schema: binary }])),
    ...(form && {
      'multipart/form-data': {
        schema: { ...form, properties: { file: binary, ...(form.properties as Json) }, required: ['file'] },
      },
    }),
  }
}

const answerEvents = 'Events named `generation.*` with JSON as data (schemas `Event.*`), then `data: [DONE]`.'
const eventStream = (description = answerEvents) => ({
  'text/event-stream': { schema: { type: 'string', description } },
})

function response({ description, content, orEvents, orFile }: ResponseDescription, schemas: Map<string, Json>): Json {
  if (!content) return { description }
  if (content === 'events') return { description, content: eventStream() }
  const json = { 'application/json': { schema: toSchema(content, schemas, 'output') } }
  const events = orEvents && eventStream(orEvents === true ? undefined : orEvents)
  const file = orFile && { [orFile]: { schema: binary } }
  return { description, content: { ...events, ...json, ...file } }
}

function parameters(object: z.ZodObject | undefined, place: string, schemas: Map<string, Json>): Json[] {
  return Object.entries(object?.shape ?? {}).map(([name, schema]) => {
    const { description, ...rest } = toSchema(schema, schemas, 'input')
    const required = place === 'path' || !(schema as z.ZodType).safeParse(undefined).success
    return { name, in: place, required, ...(description ? { description } : {}), schema: rest }
  })
}

/** JSON schema of a zod schema; the ones that have an id become components and are referred to. */
function toSchema(schema: unknown, schemas: Map<string, Json>, io: 'input' | 'output'): Json {
  const json = z.toJSONSchema(schema as z.ZodType, { io, target: 'draft-2020-12', unrepresentable: 'any' }) as Json
  const { $schema: _, $defs, ...rest } = json
  for (const [name, definition] of Object.entries(($defs as Record<string, Json>) ?? {}))
    schemas.set(name, clean(definition))
  const named = rest.id
  if (typeof named !== 'string') return clean(rest)
  schemas.set(named, clean(rest))
  return { $ref: `#/components/schemas/${named}` }
}

/** Points references to where an OpenAPI document keeps schemas, and drops zod's own `id`. */
function clean(value: Json): Json {
  const { id, ...rest } = value
  const text = JSON.stringify(typeof id === 'string' ? rest : value).replaceAll('#/$defs/', '#/components/schemas/')
  return JSON.parse(text)
}

function operationId({ method, path }: RouteDescription): string {
  const words = path.split(/[/{}_-]+/).filter(Boolean)
  return method + words.map((word) => word[0]!.toUpperCase() + word.slice(1)).join('')
}
