import { z } from 'zod'

/** Text that Postgres can store as it is: no NUL and no half of a surrogate pair. */
export const storableText = z
  .string()
  .refine((text) => !text.includes('\u0000') && text.isWellFormed(), { params: { code: 'text_not_storable' } })

/** An id; any version of uuid, because clients do not care which. */
export const id = z.guid()

/** A client's own name for one action: the same key with the same body does it once. */
export const idempotencyKey = storableText
  .min(1)
  .max(255)
  .meta({ description: 'Repeat it to repeat the request safely.' })

/** How a caller proves who it is: `key` takes an API key or a user's token; `worker` is the secret of database and worker. */
export type Access = 'none' | 'user' | 'key' | 'worker'

export interface ResponseDescription {
  description: string
  /** A schema for JSON; `events` for server-sent events; nothing for an answer without a body. */
  content?: z.ZodType | 'events'
  /** The same answer also comes as events, when the body asks for them; a text says what they are, if not those of an answer. */
  orEvents?: boolean | string
  /** Media type of the file that the same answer comes as, when it is asked for. */
  orFile?: string
}

/** One route of a function, as the OpenAPI document lists it. */
export interface RouteDescription {
  method: 'get' | 'post' | 'put' | 'patch' | 'delete'
  /** Under `/functions/v1`. */
  path: string
  summary: string
  description?: string
  access: Access
  params?: z.ZodObject
  headers?: z.ZodObject
  query?: z.ZodObject
  body?: z.ZodType
  bodyMayBeEmpty?: boolean
  /** Media types of files that may be sent as the body instead. */
  bodyFiles?: string[]
  /** The same as a browser's form sends it, with the file as `file`. */
  bodyForm?: z.ZodObject
  responses: Record<number, ResponseDescription>
  /** Statuses of problems that this route has beside the common ones. */
  problems?: number[]
  /** What problems look like, where they are no problem documents. */
  error?: z.ZodType
}
