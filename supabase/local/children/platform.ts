import { runChild } from '../child.ts'
import { isConnectionError } from '../gateway/errors.ts'
import { startGateway } from '../gateway/server.ts'

// When the database goes away, postgres.js leaves rejections behind that nobody can catch: of a write to a socket that
// has just been closed, of the types it was asking for on a new connection. Requests learn of the end by other ways.
globalThis.addEventListener('unhandledrejection', (event) => {
  if (isConnectionError(event.reason)) event.preventDefault()
})

await runChild(startGateway)
