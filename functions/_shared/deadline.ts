/** Raised when something outside took longer than it was given. `what` names it for the log, never for a client. */
export class DeadlineError extends Error {
  constructor(
    readonly what: string,
    readonly milliseconds: number,
  ) {
    super(`${what} took longer than ${milliseconds} ms`)
    this.name = 'DeadlineError'
  }
}

/** Runs `work` with a signal that fires after `milliseconds`, or when `signal` does; fails even if `work` ignores it. */
export async function withDeadline<T>(
  what: string,
  milliseconds: number,
  work: (signal: AbortSignal) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const controller = new AbortController()
  const { promise: expired, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(() => {
    const error = new DeadlineError(what, milliseconds)
    controller.abort(error)
    reject(error)
  }, milliseconds)
  try {
    return await Promise.race([
      work(signal ? AbortSignal.any([signal, controller.signal]) : controller.signal),
      expired,
    ])
  } finally {
    clearTimeout(timer)
  }
}

/** Waits; resolves at once, without an error, when `signal` fires. */
export function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted) return Promise.resolve()
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, milliseconds)
    signal?.addEventListener('abort', done)
  })
}
