import { isConnectionError, isDatabaseError } from '../errors.ts'
import { TooLarge } from './files.ts'

/** A refusal as Storage words it: HTTP 400 whatever it is, with the meaning in `statusCode` and `error`. */
export class StorageError extends Error {
  constructor(
    readonly statusCode: number,
    readonly code: string,
    readonly error: string,
    message: string,
  ) {
    super(message)
  }

  toResponse(): Response {
    const { statusCode, error, message, code } = this
    const status = statusCode < 500 ? 400 : statusCode
    return Response.json({ statusCode: String(statusCode), error, message, code }, { status })
  }
}

const refusal = (statusCode: number, code: string, error: string) => (message: string) =>
  new StorageError(statusCode, code, error, message)

export const noBucket = () => refusal(404, 'NoSuchBucket', 'Bucket not found')('Bucket not found')
export const noObject = () => refusal(404, 'NoSuchKey', 'not_found')('Object not found')
export const invalidKey = (key: string) => refusal(400, 'InvalidKey', 'InvalidKey')(`Invalid key: ${key}`)
export const invalidToken = refusal(400, 'InvalidJWT', 'InvalidJWT')
export const tooLarge = () =>
  refusal(413, 'EntityTooLarge', 'Payload too large')('The object exceeded the maximum allowed size')
export const wrongType = (type: string) =>
  refusal(415, 'InvalidMimeType', 'invalid_mime_type')(`mime type ${type} is not supported`)
export const badRequest = refusal(400, 'InvalidRequest', 'InvalidRequest')
export const unauthorized = refusal(403, 'AccessDenied', 'Unauthorized')
export const notEmpty = () =>
  refusal(409, 'BucketNotEmpty', 'InvalidRequest')('The bucket you tried to delete is not empty')
export const duplicate = () => refusal(409, 'ResourceAlreadyExists', 'Duplicate')('The resource already exists')
export const noRoute = (route: string) => refusal(404, 'NotFound', 'Not Found')(`Route ${route} not found`)

/** Turns whatever went wrong into an answer; only what is not understood is logged. */
export function toStorageError(error: unknown): StorageError {
  if (error instanceof StorageError) return error
  if (error instanceof TooLarge) return tooLarge()
  if (error instanceof URIError) return badRequest('The path is not valid UTF-8')
  if (error instanceof SyntaxError) return badRequest('The body is not valid JSON')
  if (isConnectionError(error)) {
    return refusal(503, 'DatabaseUnavailable', 'DatabaseUnavailable')('The database is not available')
  }
  if (isDatabaseError(error)) {
    const { code, message } = error
    if (code === '42501') return unauthorized('new row violates row-level security policy')
    if (code === '23505') return duplicate()
    if (code === '57014') return refusal(544, 'DatabaseTimeout', 'DatabaseTimeout')('The database timed out')
    return refusal(/^(22|23|P0001|PT4)/.test(code) ? 400 : 500, 'DatabaseError', 'DatabaseError')(message)
  }
  console.error('storage', error)
  return refusal(500, 'InternalError', 'InternalError')('Internal Server Error')
}
